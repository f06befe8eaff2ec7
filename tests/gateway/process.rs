//! The binary, against an API server in this process.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get as on_get;
use futures::StreamExt;
use modelwright::formats::Announcement;
use modelwright::listen::{Patience, Phase, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use crate::support::*;
use ports::free_port;

#[path = "../common/ports.rs"]
mod ports;

/// As much of an API server as a watch needs.
struct Api {
    /// Lists of pods wait for it.
    pods: watch::Sender<bool>,
    routes: broadcast::Sender<Value>,
    /// The only one.
    pod: Value,
}

fn object(name: &str, generation: i64) -> Value {
    json!({
        "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelRoute",
        "metadata": {"name": name, "namespace": "ns", "uid": "u", "generation": generation,
            "resourceVersion": generation.to_string()},
        "spec": {"mode": "Forward", "backends": [{"revision": 1, "weight": 100}], "rollout": {"stable": 1}}
    })
}

/// As the API server shows one whose containers it knows nothing of.
fn starting(pod: &Pod) -> Value {
    let (revision, address) = pod.view.slots[0];
    let assigned = json!({"assignments": [{"modelVersion": revision.to_string(), "port": address.port()}]});
    json!({
        "metadata": {"name": pod.view.name, "namespace": "ns", "uid": pod.view.uid, "resourceVersion": "3",
            "labels": {"modelwright.dev/deployment": "m", "modelwright.dev/role": "serve"},
            "annotations": {"modelwright.dev/assignment": assigned.to_string()}},
    })
}

async fn list(State(api): State<Arc<Api>>, uri: axum::http::Uri) -> Response {
    let query = uri.query().unwrap_or_default().replace("%2F", "/").replace("%3D", "=");
    let asked = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let routes = uri.path().ends_with("modelroutes");
    if asked("watch").is_some() {
        let events = futures::stream::unfold(api.routes.subscribe(), move |mut events| async move {
            match events.recv().await {
                Ok(event) if routes => Some((Ok::<_, std::io::Error>(format!("{event}\n")), events)),
                _ => std::future::pending().await,
            }
        });
        return Body::from_stream(events.boxed()).into_response();
    }
    // Not what a cache may have had some time ago.
    assert_eq!(asked("resourceVersion"), None, "{query:?}");
    if !routes {
        assert!(asked("labelSelector").unwrap().contains("modelwright.dev/role=serve"), "{query:?}");
        let _ = api.pods.subscribe().wait_for(|open| *open).await;
    }
    let items = if routes { vec![object("m", 3)] } else { vec![api.pod.clone()] };
    let kind = if routes { "ModelRouteList" } else { "PodList" };
    axum::Json(
        json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "3"}, "items": items}),
    )
    .into_response()
}

async fn status(port: u16, path: &str) -> Option<u16> {
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    Some(get(([127, 0, 0, 1], port).into(), "g", path).await.status)
}

/// Serves until its phase is gone.
async fn serve_api(pod: &Pod) -> (Arc<Api>, String, watch::Sender<Phase>, JoinHandle<()>) {
    let api = Api { pods: watch::Sender::new(false), routes: broadcast::channel(8).0, pod: starting(pod) };
    let api = Arc::new(api);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/apis/modelwright.dev/v1alpha1/namespaces/ns/modelroutes", on_get(list))
        .route("/api/v1/namespaces/ns/pods", on_get(list))
        .with_state(api.clone());
    let (phase, phases) = watch::channel(Phase::Serving);
    let serving = tokio::spawn(serve(listener, router, phases, Patience::default()));
    (api, server, phase, serving)
}

/// In front of `server`; its configuration is in `folder`.
fn command(server: &str, folder: &Path) -> Command {
    let config = folder.join("config");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
    });
    std::fs::write(&config, text.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelwright-gateway"));
    command.arg("--namespace=ns").env("KUBECONFIG", &config).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// What `pod` says when it is proven.
async fn announce(port: u16, pod: &Pod) {
    let said = Announcement::new(pod.view.name.clone(), pod.view.uid.clone(), [127, 0, 0, 1].into());
    let said = serde_json::to_vec(&said).unwrap();
    let told = rest(([127, 0, 0, 1], port).into(), "g", Announcement::PATH, &said).await;
    assert_eq!(told.status, 204);
}

#[tokio::test]
async fn the_process_is_ready_after_both_lists_follows_changes_and_leaves_in_order() {
    let pod = Pod::start("m", 1).await;
    let (api, server, phase, serving) = serve_api(&pod).await;
    let folder = tempfile::tempdir().unwrap();
    let (port, admin, tls) = (free_port(), free_port(), free_port());
    let announced = free_port();
    let secret = Mounted::empty();
    let mut process = command(&server, folder.path())
        .args(["--drain-seconds=1", "--grace-seconds=30"])
        .args([format!("--port={port}"), format!("--admin-port={admin}")])
        .arg(format!("--announce-port={announced}"))
        .args([format!("--tls-port={tls}"), format!("--tls={}", secret.folder.path().display())])
        .spawn()
        .unwrap();

    within("the admin port", async {
        while status(admin, "/healthz").await != Some(200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(status(admin, "/readyz").await, Some(503), "the pods are not known");
    assert_eq!(status(port, "/healthz").await, None, "nor are connections taken");
    api.pods.send_replace(true);
    within("it is ready", async {
        while status(admin, "/readyz").await != Some(200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(status(port, "/healthz").await, Some(200));
    assert_eq!(status(port, "/v2/models/m/ready").await, Some(503), "known, without a pod");

    // TLS, from when there is a certificate.
    let secured = std::net::SocketAddr::from(([127, 0, 0, 1], tls));
    assert!(tokio::net::TcpStream::connect(secured).await.is_err());
    let pair = crate::tls::Pair::new();
    pair.put(&secret);
    let stream = within("TLS", async {
        loop {
            match pair.connect(secured, "http/1.1").await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    let health = axum::http::Request::get("/healthz").header("host", "g").body(Default::default()).unwrap();
    assert_eq!(Rest::over(stream).await.send(health).await.unwrap().status, 200);

    let mut reports = Reports::open(([127, 0, 0, 1], admin).into()).await;
    assert_eq!(reports.next().await.routes["m"].generation, 3);

    // A pod that says itself that it is proven gets what waits; when it has gone, requests wait again.
    let at = ([127, 0, 0, 1], port).into();
    let waiting = tokio::spawn(async move { rest(at, "m", "/v2/models/m/infer", b"{}").await });
    within("it waits", async { while reports.next().await.held.get("m") != Some(&1) {} }).await;
    announce(announced, &pod).await;
    assert_eq!(within("an answer", waiting).await.unwrap().text(), "r1");
    pod.kill().await;

    // A change reaches the table.
    within("a watch runs", async {
        while api.routes.receiver_count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    api.routes.send(json!({"type": "MODIFIED", "object": object("m", 4)})).unwrap();
    reports.applied("m", 4).await;

    // Without an API server it goes on.
    drop(phase);
    serving.abort();
    let _ = serving.await;
    let held =
        tokio::spawn(
            async move { rest(([127, 0, 0, 1], port).into(), "m", "/v2/models/m/infer", b"{}").await },
        );
    within("it waits", async { while reports.next().await.held.get("m") != Some(&1) {} }).await;

    let pid = rustix::process::Pid::from_raw(process.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    within("it is not ready", async {
        while status(admin, "/readyz").await != Some(503) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    within("it takes no more connections", async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(process.try_wait().unwrap().is_none(), "a request is held");
    held.abort();
    assert!(within("it ends", process.wait()).await.unwrap().success());
}

#[tokio::test]
async fn the_process_asks_connections_to_end_at_the_age_it_is_told() {
    let pod = Pod::start("m", 1).await;
    let (api, server, _phase, _serving) = serve_api(&pod).await;
    api.pods.send_replace(true);
    let folder = tempfile::tempdir().unwrap();
    let (port, admin, announced) = (free_port(), free_port(), free_port());
    let _process = command(&server, folder.path())
        .args([format!("--port={port}"), format!("--admin-port={admin}")])
        .arg(format!("--announce-port={announced}"))
        .arg(format!("--tls-port={}", free_port()))
        .arg("--connection-age-seconds=1")
        .spawn()
        .unwrap();
    within("it is ready", async {
        while status(admin, "/readyz").await != Some(200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let at = ([127, 0, 0, 1], port).into();
    let mut grpc = Grpc::connect(at).await;
    let mut held = grpc.clone();
    let held = tokio::spawn(async move { held.call("m", INFER, &infer("m", "")).await });
    within("GOAWAY", async {
        while grpc.send(call("g", "/inference.GRPCInferenceService/ServerLive", framed(b""))).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // What runs over it is answered all the same.
    assert!(!held.is_finished());
    let mut kept = Rest::connect(at).await;
    within("an answer says so", async {
        loop {
            let request = axum::http::Request::get("/healthz").header("host", "g").body(Default::default());
            let got = kept.send(request.unwrap()).await.unwrap();
            match got.headers.get("connection") {
                Some(said) => return assert_eq!(said, "close"),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    announce(announced, &pod).await;
    assert_eq!(within("an answer", held).await.unwrap().grpc_status(), "0");
}
