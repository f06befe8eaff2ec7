//! The admin port: health, metrics, and the stream to the operator.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::{Semaphore, watch};

use super::stream;
use super::table::Table;
use crate::listen::Phase;

/// Operators: two replicas, and some that are being replaced.
const READERS: usize = 16;

/// `ready`: both lists were read.
pub fn router(table: Arc<Table>, ready: watch::Receiver<bool>, phase: watch::Receiver<Phase>) -> Router {
    let slots = Arc::new(Semaphore::new(READERS));
    let metered = table.clone();
    let is_ready = move || async move {
        match (*ready.borrow(), *phase.borrow()) {
            (true, Phase::Serving) => (StatusCode::OK, "ok\n"),
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "routes and pods are being read\n"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        }
    };
    let metrics = move || async move {
        let table = metered;
        for deployment in table.all().values() {
            table.metrics.held(&deployment.name, deployment.held(), deployment.present());
        }
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], table.metrics.render())
    };
    let reports = move || async move {
        match slots.try_acquire_owned() {
            Ok(slot) => {
                let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
                (kind, stream::body(table, slot)).into_response()
            }
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many readers\n").into_response(),
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(is_ready))
        .route("/metrics", get(metrics))
        .route("/modelwright/v1/stream", get(reports))
}
