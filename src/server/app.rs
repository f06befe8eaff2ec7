//! What a worker answers: both skins behind one router, and the headers that every answer bears.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::model::{Identity, Server};
use super::trail::Observer;
use super::{grpc, rest};
use crate::listen::Phase;
use crate::protocol::{Error, Kind, refusal};

/// Requests that wait for a thread.
const QUEUE: HeaderName = HeaderName::from_static("modelwright-queue");

pub fn router(server: Arc<Server>, phase: watch::Receiver<Phase>, observer: Option<Arc<Observer>>) -> Router {
    let headers = identity_headers(&server.identity);
    let timeout = server.request_timeout;
    // Later than the queue's own deadline, whose answer says more.
    let patience = timeout + Duration::from_millis(100);
    let answering = server.clone();
    let finish = move |mut request: axum::extract::Request, next: Next| {
        let (headers, server) = (headers.clone(), answering.clone());
        async move {
            let is_grpc = grpc::is_grpc(request.headers());
            let packed = is_grpc && request.headers().contains_key("grpc-encoding");
            if is_grpc {
                grpc::compress_like_the_request(request.headers_mut());
            }
            let mut response = match is_grpc {
                // REST has its deadlines inside; tonic reads the message before our code is called.
                false => next.run(request).await,
                true => match tokio::time::timeout(patience, call(&server, request, next)).await {
                    Ok(response) => response,
                    Err(_) => grpc::failure(Error::timed_out(timeout)),
                },
            };
            if is_grpc && let Some(better) = grpc::reworded(response.headers_mut(), packed) {
                response = better;
            }
            response.headers_mut().extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
            // Gateways choose the less busy pod by it.
            let waiting = server.metrics.queue_depth.get().unsigned_abs();
            response.headers_mut().insert(QUEUE, waiting.into());
            response
        }
    };
    let router = rest::router(server.clone())
        .merge(grpc::router(server, phase))
        .fallback(unknown_path)
        .layer(axum::middleware::from_fn(finish));
    match observer {
        None => router,
        Some(observer) => router
            .layer(axum::middleware::from_fn(move |request, next| observer.clone().follow(request, next))),
    }
}

/// A gRPC request, once its message has come.
async fn call(server: &Server, request: axum::extract::Request, next: Next) -> Response {
    if !grpc::is_unary(request.uri().path()) {
        return next.run(request).await;
    }
    let mut share = server.bodies.share();
    match grpc::whole(request, server.max_request_bytes, &mut share).await {
        Ok(request) => next.run(request).await,
        Err(error) => grpc::failure(error),
    }
}

fn identity_headers(identity: &Identity) -> Vec<(HeaderName, HeaderValue)> {
    let header = |name, value: &Option<String>| {
        Some((HeaderName::from_static(name), HeaderValue::from_str(value.as_deref()?).ok()?))
    };
    [header("modelwright-revision", &identity.revision), header("modelwright-digest", &identity.digest)]
        .into_iter()
        .flatten()
        .collect()
}

async fn unknown_path(request: Request<Body>) -> Response {
    match grpc::is_grpc(request.headers()) {
        true => grpc::failure(Error::new(Kind::MethodNotAllowed, "this server does not have this method")),
        false => {
            let known = refusal::of_path(request.uri().path());
            let message = known.unwrap_or("unknown path: GET /v2/openapi.json lists them");
            rest::Failure(Error::not_found(message)).into_response()
        }
    }
}
