//! The admin port: probes, state, metrics.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{View, metrics};
use crate::formats::RevisionPhase;
use crate::server::metrics::CONTENT_TYPE;

/// The loop goes round five times a second.
const STALE: Duration = Duration::from_secs(10);

type Views = watch::Receiver<View>;

pub(super) fn router(views: Views) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/modelwright/v1/state", get(state))
        .route("/metrics", get(worker_metrics))
        .with_state(views)
}

/// Never fails for load, nor for a model that can't be loaded: restarting the pod would not help.
async fn healthz(State(views): State<Views>) -> (StatusCode, &'static str) {
    match views.borrow().seen.elapsed() < STALE {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the supervisor's loop has stopped\n"),
    }
}

/// The body says what is waited for: the kubelet puts it into the pod's events.
async fn readyz(State(views): State<Views>) -> (StatusCode, String) {
    let view = views.borrow();
    if view.state.ready {
        return (StatusCode::OK, "ok\n".into());
    }
    let mut waits = String::new();
    for revision in view.state.revisions.iter().filter(|r| r.phase != RevisionPhase::Proven) {
        let because = match (&revision.reason, &revision.message) {
            (Some(reason), Some(message)) => format!(": {reason}: {message}"),
            _ => String::new(),
        };
        waits.push_str(&format!("{} is {:?}{because}\n", revision.revision, revision.phase));
    }
    if waits.is_empty() {
        waits.push_str("nothing is assigned\n");
    }
    (StatusCode::SERVICE_UNAVAILABLE, waits)
}

async fn state(State(views): State<Views>) -> Response {
    axum::Json(&views.borrow().state).into_response()
}

async fn worker_metrics(State(views): State<Views>) -> Response {
    let ports = views.borrow().metric_ports.clone();
    let mut fetches: JoinSet<Option<String>> = ports.into_iter().map(metrics::fetch).collect();
    let mut texts = Vec::new();
    while let Some(text) = fetches.join_next().await {
        texts.extend(text.ok().flatten());
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics::merge(&texts)).into_response()
}
