//! The REST skin.

mod compression;
mod infer;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::metrics;
use super::model::Server;
use super::queue::RETRY_AFTER;
use crate::protocol::rest::only_ready;
use crate::protocol::{Error, Kind};

/// Describes every path below; kept true by tests.
const OPENAPI: &str = include_str!("rest/openapi.json");

pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/models/{name}", get(model_metadata))
        .route("/v2/models/{name}/versions/{version}", get(model_metadata))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/versions/{version}/ready", get(model_ready))
        .route("/v2/models/{name}/infer", post(infer::infer))
        .route("/v2/models/{name}/versions/{version}/infer", post(infer::infer))
        .route("/v2/models/{name}/config", get(model_config))
        .route("/v2/models/{name}/versions/{version}/config", get(model_config))
        .route("/v2/models/stats", get(server_statistics))
        .route("/v2/models/{name}/stats", get(model_statistics))
        .route("/v2/models/{name}/versions/{version}/stats", get(model_statistics))
        .route("/v2/repository/index", post(repository_index))
        .route("/v2/openapi.json", get(openapi))
        .route("/metrics", get(worker_metrics))
        .method_not_allowed_fallback(|| async {
            Failure(Error::new(Kind::MethodNotAllowed, "this path does not take this method"))
        })
        .with_state(server)
}

/// `{"error": "…"}` with the status of the error's kind.
pub struct Failure(pub Error);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Message<'a> {
            error: &'a str,
        }
        let status =
            StatusCode::from_u16(self.0.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(Message { error: &self.0.message })).into_response();
        if self.0.kind == Kind::Unavailable {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
        }
        response
    }
}

/// axum's, with this protocol's words for a path that is no text.
struct Path<T>(T);

impl<T: serde::de::DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(target)) => Ok(Self(target)),
            Err(_) => Err(Failure(Error::invalid("not a model name, nor a version: it is not UTF-8"))),
        }
    }
}

#[derive(Deserialize)]
struct Target {
    name: String,
    version: Option<String>,
}

impl Target {
    fn check(&self, server: &Server) -> Result<(), Failure> {
        server.check_name(&self.name, self.version.as_deref()).map_err(Failure)
    }
}

async fn server_metadata(State(server): State<Arc<Server>>) -> Response {
    axum::Json(server.metadata()).into_response()
}

async fn server_ready(State(server): State<Arc<Server>>) -> Result<StatusCode, Failure> {
    server.model().map_err(Failure).map(|_| StatusCode::OK)
}

async fn model_ready(
    State(server): State<Arc<Server>>,
    Path(target): Path<Target>,
) -> Result<StatusCode, Failure> {
    target.check(&server)?;
    server.model().map_err(Failure).map(|_| StatusCode::OK)
}

async fn model_metadata(
    State(server): State<Arc<Server>>,
    Path(target): Path<Target>,
) -> Result<Response, Failure> {
    target.check(&server)?;
    let metadata = server.model_metadata().map_err(Failure)?;
    Ok(axum::Json(metadata).into_response())
}

async fn worker_metrics(State(server): State<Arc<Server>>) -> Result<Response, Failure> {
    let text = server.metrics.text().map_err(|e| Failure(Error::new(Kind::Internal, e.to_string())))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn model_config(
    State(server): State<Arc<Server>>,
    Path(target): Path<Target>,
) -> Result<Response, Failure> {
    target.check(&server)?;
    let config = server.model_config().map_err(Failure)?;
    Ok(axum::Json(config).into_response())
}

async fn server_statistics(State(server): State<Arc<Server>>) -> Response {
    axum::Json(server.model_statistics()).into_response()
}

async fn model_statistics(
    State(server): State<Arc<Server>>,
    Path(target): Path<Target>,
) -> Result<Response, Failure> {
    target.check(&server)?;
    Ok(axum::Json(server.model_statistics()).into_response())
}

async fn repository_index(State(server): State<Arc<Server>>, body: Body) -> Result<Response, Failure> {
    /// Far more than the request can hold.
    const LIMIT: usize = 64 << 10;
    let body = axum::body::to_bytes(body, LIMIT).await.map_err(|_| Failure(Error::too_large(LIMIT)))?;
    let models = server.repository_index(only_ready(&body).map_err(Failure)?);
    Ok(axum::Json(models).into_response())
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
