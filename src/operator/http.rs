//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use kube::runtime::reflector::Store;
use tokio::net::TcpListener;

use super::{Lease, Metrics};
use crate::api::ModelDeployment;
use crate::observe::Shelves;

pub(super) async fn serve(
    listener: TcpListener,
    shelves: Arc<Shelves>,
    metrics: Arc<Metrics>,
    lease: Arc<Lease>,
    deployments: Store<ModelDeployment>,
) {
    let counting = lease.clone();
    // A standby is as ready as the leader: it has the caches, and waits.
    let ready = move || async move {
        match (shelves.synced(), lease.held()) {
            (true, true) => (StatusCode::OK, "leading\n"),
            (true, false) => (StatusCode::OK, "standing by\n"),
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the caches are being filled\n"),
        }
    };
    let text = move || async move {
        // One replica counts: sums over both would be twice as many.
        let all = if counting.held() { deployments.state() } else { Vec::new() };
        metrics.count(all.iter().map(|deployment| &**deployment));
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], metrics.render()).into_response()
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(text));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the health endpoint failed");
    }
}
