//! How soon a changed route reaches traffic: `make bench ONLY=gateway`, after its other figures.
//!
//! A real API server with a ModelRoute and a pod of two revisions for each of 500 deployments. A route's whole weight goes
//! to the other revision, and requests come one after the other until that one answers.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../report.rs"]
mod report;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use axum::Router;
use common::{Cluster, wait};
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use modelwright::api::ModelRoute;
use modelwright::listen::{Patience, Phase, serve};
use report::{Goal, figure, number};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const NAMESPACE: &str = "bench-routes";
const ROUTES: usize = 500;
const PATIENCE: Duration = Duration::from_secs(30);
/// Between a request's answer and the next: most of the processor is the API server's and the gateway's.
const PAUSE: Duration = Duration::from_micros(500);

/// Does not outlive the bench.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main(worker_threads = 1)]
async fn main() {
    let cluster = Cluster::open().await;
    cluster.create_namespace(NAMESPACE).await;
    let (routes, pods): (Api<ModelRoute>, Api<Pod>) = (cluster.api(NAMESPACE), cluster.api(NAMESPACE));
    let workers = [worker(1).await, worker(2).await];
    futures::stream::iter(0..ROUTES)
        .for_each_concurrent(8, async |number| {
            routes.create(&PostParams::default(), &route(number)).await.expect("a ModelRoute");
            pods.create(&PostParams::default(), &pod(number, workers)).await.expect("a Pod");
            let patch = Patch::Merge(ready());
            pods.patch_status(&name(number), &PatchParams::default(), &patch).await.expect("its status");
        })
        .await;

    let port =
        || std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let (data, admin) = (port(), port());
    let gateway = Command::new(env!("CARGO_BIN_EXE_modelwright-gateway"))
        .args(["--namespace", NAMESPACE, "--port", &data.to_string(), "--admin-port", &admin.to_string()])
        .args(["--announce-port", &port().to_string()])
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("RUST_LOG", "warn")
        .spawn();
    let _gateway = Gateway(gateway.expect("the gateway starts"));
    wait("ready gateway", async || {
        let response = get(admin, "/readyz").await?;
        (response.status() == 200).then_some(()).ok_or(response.status().to_string())
    })
    .await;
    let mut client = connect(data).await.expect("a connection");
    let mut times = Vec::new();
    for change in 0..number("CHANGES", 1000) {
        let name = name(change * 7 % ROUTES);
        let next = if (change / ROUTES).is_multiple_of(2) { 2 } else { 1 };
        assert_eq!(ask(&mut client, &name).await, (3 - next).to_string(), "before the change");
        let patch = json!({ "spec": { "backends": backends(next) } });
        let began = Instant::now();
        routes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a write");
        while ask(&mut client, &name).await != next.to_string() {
            assert!(began.elapsed() < PATIENCE, "{name}: revision {next} does not answer");
            tokio::time::sleep(PAUSE).await;
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at =
        |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    let how = format!(
        "from before the write of a ModelRoute until the other revision answers, the API server's time included; {} \
         changes one after the other, p50 {:.1} ms",
        times.len(),
        at(50)
    );
    figure("gateway.route_p99_ms.500", at(99), "ms", Some(Goal::AtMost(100.0)), &how);
}

fn name(number: usize) -> String {
    format!("m-{number}")
}

fn parse<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

fn backends(revision: i64) -> Value {
    json!([{ "revision": 1, "weight": if revision == 1 { 100 } else { 0 } },
           { "revision": 2, "weight": if revision == 2 { 100 } else { 0 } }])
}

fn route(number: usize) -> ModelRoute {
    parse(json!({
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelRoute",
        "metadata": { "name": name(number) },
        "spec": { "mode": "Forward", "backends": backends(1) },
    }))
}

/// No kubelet takes it: it is on this machine, as its status will say.
fn pod(number: usize, ports: [u16; 2]) -> Pod {
    let slot = |revision: usize| json!({ "modelVersion": revision.to_string(), "port": ports[revision - 1] });
    let assignment = json!({ "assignments": [slot(1), slot(2)] }).to_string();
    parse(json!({
        "metadata": {
            "name": name(number),
            "labels": {
                "modelwright.dev/deployment": name(number), "modelwright.dev/role": "serve",
                "modelwright.dev/set": "r1", "modelwright.dev/serves": "r1.r2",
            },
            "annotations": { "modelwright.dev/assignment": assignment },
        },
        "spec": { "schedulerName": "none", "containers": [{ "name": "server", "image": "none" }] },
    }))
}

fn ready() -> Value {
    json!({ "status": {
        "phase": "Running", "podIP": "127.0.0.1", "podIPs": [{ "ip": "127.0.0.1" }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    } })
}

/// Answers with its revision. Its port.
async fn worker(revision: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let router = Router::new().fallback(move || async move { revision.to_string() });
    tokio::spawn(async move {
        let (_serving, phases) = watch::channel(Phase::Serving);
        serve(listener, router, phases, Patience::default()).await;
    });
    port
}

type Client = http1::SendRequest<Full<Bytes>>;

async fn connect(port: u16) -> Result<Client, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The body of the answer.
async fn ask(client: &mut Client, name: &str) -> String {
    let request = Request::post(format!("/v2/models/{name}/infer")).header("host", "gateway");
    let request = request.body(Full::from("{}")).expect("a request");
    client.ready().await.expect("the connection");
    let answer = client.send_request(request).await.expect("an answer");
    let (status, body) = (answer.status(), answer.into_body().collect().await.expect("a body").to_bytes());
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(status.is_success(), "{name}: {status} {text}");
    text
}

async fn get(port: u16, path: &str) -> Result<Response<Incoming>, String> {
    let request = Request::get(path).header("host", "gateway").body(Full::default()).expect("a request");
    connect(port).await?.send_request(request).await.map_err(|e| e.to_string())
}
