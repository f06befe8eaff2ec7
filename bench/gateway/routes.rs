//! How soon a changed route is in force: `make bench ONLY=gateway`, after its other figures.
//!
//! A real API server with a ModelRoute for each of 500 deployments; the gateway's own word, on the stream that the
//! operator reads, is that no new request goes by the former route any more.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../report.rs"]
mod report;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::{Cluster, wait};
use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use modelwright::api::ModelRoute;
use modelwright::formats::GatewayReport;
use report::{Goal, figure, number};
use serde_json::json;
use tokio::net::TcpStream;

const NAMESPACE: &str = "bench-routes";
const ROUTES: usize = 500;
const PATIENCE: Duration = Duration::from_secs(30);

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
    let api: Api<ModelRoute> = cluster.api(NAMESPACE);
    futures::stream::iter((0..ROUTES).map(route))
        .for_each_concurrent(8, async |route| {
            api.create(&PostParams::default(), &route).await.expect("a ModelRoute");
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
    let mut stream = Stream {
        body: get(admin, "/modelwright/v1/stream").await.expect("a stream").into_body(),
        rest: Vec::new(),
    };

    let mut times = Vec::new();
    for change in 0..number("CHANGES", 1000) {
        let name = format!("m-{}", change * 7 % ROUTES);
        let mode = if (change / ROUTES).is_multiple_of(2) { "Hold" } else { "Forward" };
        let patch = json!({ "spec": { "mode": mode } });
        let began = Instant::now();
        let written =
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a write");
        let generation = written.metadata.generation.expect("a generation");
        let applied = tokio::time::timeout(PATIENCE, stream.applied(&name, generation)).await;
        applied
            .unwrap_or_else(|_| panic!("{name}: generation {generation} is not applied after {PATIENCE:?}"));
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at =
        |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    let how = format!(
        "from before the write of a ModelRoute until the gateway has applied it, the API server's time included; {} \
         changes one after the other, p50 {:.1} ms",
        times.len(),
        at(50)
    );
    figure("gateway.route_p99_ms.500", at(99), "ms", Some(Goal::AtMost(100.0)), &how);
}

fn route(number: usize) -> ModelRoute {
    serde_json::from_value(json!({
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelRoute",
        "metadata": { "name": format!("m-{number}") },
        "spec": { "mode": "Forward", "backends": [{ "revision": 1, "weight": 100 }] },
    }))
    .expect("a ModelRoute")
}

async fn get(port: u16, path: &str) -> Result<Response<Incoming>, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let request =
        Request::get(path).header("host", "gateway").body(Empty::<Bytes>::new()).expect("a request");
    sender.send_request(request).await.map_err(|e| e.to_string())
}

/// The gateway's reports, a line each.
struct Stream {
    body: Incoming,
    rest: Vec<u8>,
}

impl Stream {
    async fn applied(&mut self, name: &str, generation: i64) {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let report: GatewayReport = serde_json::from_slice(&line).expect("a report");
                if report.routes.get(name).is_some_and(|route| route.generation >= generation) {
                    return;
                }
            }
            let frame = self.body.frame().await.expect("the stream goes on").expect("the stream goes on");
            self.rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
    }
}
