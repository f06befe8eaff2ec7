//! The gateway's process, and as much of an API server as it needs.

use std::process::{Child, Command};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use modelwright::listen::{Patience, Phase, serve};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

const NAMESPACE: &str = "bench";

pub struct Gateway {
    child: Child,
    pub port: u16,
    _config: TempDir,
    _api: tokio::runtime::Runtime,
}

impl Gateway {
    /// With so many routes, each to the one pod on this machine; the first is `m`.
    pub fn start(port: u16, routes: usize) -> Self {
        let api = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let api = api.expect("a runtime");
        let listener = api.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new()
            .route("/apis/modelwright.dev/v1alpha1/namespaces/bench/modelroutes", get(answer))
            .route("/api/v1/namespaces/bench/pods", get(answer))
            .with_state(Arc::new(Objects::new(routes)));
        api.spawn(async move {
            let (_serving, phases) = watch::channel(Phase::Serving);
            serve(listener, router, phases, Patience::default()).await;
        });
        let config = TempDir::new().expect("a folder");
        let path = config.path().join("config");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        std::fs::write(&path, text.to_string()).expect("write");
        let child = Command::new(env!("CARGO_BIN_EXE_modelwright-gateway"))
            .args(["--namespace", NAMESPACE, "--port", &port.to_string()])
            .args(["--admin-port", &crate::process::free_port().to_string(), "--drain-seconds=0"])
            .args(["--announce-port", &crate::process::free_port().to_string()])
            .env("KUBECONFIG", &path)
            .env("RUST_LOG", "warn")
            .spawn()
            .expect("the gateway starts");
        Self { child, port, _config: config, _api: api }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Objects {
    routes: Value,
    pods: Value,
}

impl Objects {
    fn new(count: usize) -> Self {
        let names = (0..count).map(|i| if i == 0 { "m".to_string() } else { format!("m-{i}") });
        let (mut routes, mut pods) = (Vec::new(), Vec::new());
        for name in names {
            let metadata = json!({
                "name": name, "namespace": NAMESPACE, "uid": name, "generation": 1, "resourceVersion": "1",
                "labels": {
                    "modelwright.dev/deployment": name, "modelwright.dev/set": "r1", "modelwright.dev/role": "serve",
                },
            });
            routes.push(json!({
                "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelRoute", "metadata": metadata,
                "spec": { "mode": "Forward", "backends": [{ "revision": 1, "weight": 100 }] },
            }));
            pods.push(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "status": { "podIP": "127.0.0.1", "conditions": [{ "type": "Ready", "status": "True" }] },
            }));
        }
        let list = |kind: &str, items: Vec<Value>| json!({ "kind": kind, "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items });
        Self { routes: list("ModelRouteList", routes), pods: list("PodList", pods) }
    }
}

async fn answer(State(objects): State<Arc<Objects>>, uri: Uri) -> Response {
    if uri.query().is_some_and(|query| query.contains("watch=")) {
        // Nothing ever changes.
        return Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>())
            .into_response();
    }
    let items = if uri.path().ends_with("modelroutes") { &objects.routes } else { &objects.pods };
    Json(items).into_response()
}
