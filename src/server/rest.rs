//! The REST skin.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};

use super::metrics;
use super::model::Server;
use super::queue::{Deadline, RETRY_AFTER};
use crate::protocol::rest::{HEADER_LENGTH, decode, encode};
use crate::protocol::{Error, Kind};

pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/models/{name}", get(model_metadata))
        .route("/v2/models/{name}/versions/{version}", get(model_metadata))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/versions/{version}/ready", get(model_ready))
        .route("/v2/models/{name}/infer", post(infer))
        .route("/v2/models/{name}/versions/{version}/infer", post(infer))
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

async fn infer(
    State(server): State<Arc<Server>>,
    Path(target): Path<Target>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let started = Instant::now();
    target.check(&server)?;
    let result = answer(&server, &headers, body, started).await;
    let outcome = result.as_ref().map_or_else(|e| e.kind.outcome(), |_| "ok");
    server.metrics.request("rest", outcome, started.elapsed());
    result.map_err(Failure)
}

async fn answer(
    server: &Server,
    headers: &HeaderMap,
    body: Body,
    started: Instant,
) -> Result<Response, Error> {
    check_media(headers)?;
    let header_length = header_length(headers)?;
    let body = read(server, headers, body).await?;
    let mut request = decode(&body, header_length)?;
    drop(body);
    let response = server.infer(&mut request, Deadline::new(started, server.request_timeout)).await?;
    let encoded = encode(&response, &request)?;
    let kind = if encoded.header_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut answer = ([(header::CONTENT_TYPE, kind)], encoded.body).into_response();
    if let Some(length) = encoded.header_length {
        answer.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    Ok(answer)
}

/// Refuses what is surely no request of this protocol. `curl -d` says it sends a form: that is let through.
fn check_media(headers: &HeaderMap) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::new(Kind::UnsupportedMedia, what));
    let text =
        |name| headers.get(name).map(|v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).to_lowercase());
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|e| e != "identity") {
        return refuse(format!("content-encoding {encoding} is not supported: send the body as it is"));
    }
    let Some(kind) = text(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    match essence {
        "" | "application/json" | "application/octet-stream" | "application/x-www-form-urlencoded" => Ok(()),
        other => refuse(format!("content-type {other} is not supported: send application/json")),
    }
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.trim().parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(Error::invalid("Inference-Header-Content-Length is not a number")),
    }
}

/// The whole body, within the limits of size and time.
async fn read(server: &Server, headers: &HeaderMap, body: Body) -> Result<Bytes, Error> {
    let limit = server.max_request_bytes;
    // Said in advance, it is refused before a byte is kept.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Error::too_large(limit));
    }
    let whole = tokio::time::timeout(server.request_timeout, Limited::new(body, limit).collect());
    match whole.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(Error::too_large(limit)),
        Ok(Err(_)) => Err(Error::invalid("the body ended early")),
        Err(_) => Err(Error::new(Kind::SlowRequest, "the body did not arrive in time")),
    }
}
