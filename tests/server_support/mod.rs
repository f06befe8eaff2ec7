//! Real processes for the server's tests: the binary, ONNX Runtime, small models, an HTTP and a gRPC client.
#![allow(dead_code)] // each test binary uses its part

pub mod grpc;
pub mod onnx;
#[path = "../common/ports.rs"]
mod ports;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use modelwright::formats::{PodState, RevisionPhase};
use tempfile::TempDir;
use tokio::net::TcpStream;

pub use ports::free_port;

/// Generous: two cores may be shared with a compiler.
pub const DEADLINE: Duration = Duration::from_secs(300);

pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name);
    let output =
        Command::new(&path).stderr(Stdio::inherit()).output().unwrap_or_else(|e| panic!("{path:?}: {e}"));
    assert!(output.status.success(), "{path:?} failed");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

pub fn onnxruntime() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| tool("onnxruntime.sh"), PathBuf::from)
    })
}

/// The folder of Magika's `model.onnx`.
pub fn magika() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| tool("magika.sh"))
}

/// A process that does not outlive its test.
pub struct Process {
    pub child: Child,
    pub port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        kill(self.pid(), signal);
    }

    /// The exit code, once it has ended.
    pub async fn ended(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < DEADLINE, "the process did not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelwright-server"));
    command.env("ORT_DYLIB_PATH", onnxruntime());
    command
}

/// `modelwright-server --model`, ready.
pub async fn serve(model: &Path, arguments: &[&str]) -> Process {
    serve_by(command(), model, arguments).await
}

/// With an environment or a standard output of the test's own.
pub async fn serve_by(mut command: Command, model: &Path, arguments: &[&str]) -> Process {
    let port = free_port();
    let child = command
        .args(["--name", "m", "--port", &port.to_string(), "--model"])
        .arg(model)
        .args(arguments)
        .spawn()
        .unwrap();
    let process = Process { child, port };
    until("the model is ready", async || {
        matches!(get(port, "/v2/health/ready").await, Some((200, _))).then_some(())
    })
    .await;
    process
}

/// `modelwright-server --model` and its file.
pub struct Served {
    pub process: Process,
    _folder: TempDir,
}

impl Served {
    pub async fn new(model: &[u8], arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, model).unwrap();
        Self { process: serve(&path, arguments).await, _folder: folder }
    }

    pub async fn at(model: &Path, arguments: &[&str]) -> Self {
        Self { process: serve(model, arguments).await, _folder: TempDir::new().unwrap() }
    }

    pub fn port(&self) -> u16 {
        self.process.port
    }
}

/// Asks again until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// None: no connection.
pub async fn try_send(port: u16, request: Request<Full<Bytes>>) -> Option<Response<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.ok()?;
    let (parts, body) = response.into_parts();
    Some(Response::from_parts(parts, body.collect().await.ok()?.to_bytes()))
}

pub async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let request = Request::get(path).header("host", "localhost").body(Full::default()).unwrap();
    let response = try_send(port, request).await?;
    Some((response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned()))
}

pub async fn post(
    port: u16,
    path: &str,
    headers: &[(&str, String)],
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut request = Request::post(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    try_send(port, request).await.expect("an answer")
}

pub async fn infer(port: u16, request: &serde_json::Value) -> (u16, serde_json::Value) {
    let response = post(port, "/v2/models/m/infer", &[], request.to_string()).await;
    let body = serde_json::from_slice(response.body())
        .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(response.body())));
    (response.status().as_u16(), body)
}

/// An input or output in JSON.
pub fn fp32(name: &str, shape: &[i64], data: serde_json::Value) -> serde_json::Value {
    serde_json::json!({"name": name, "datatype": "FP32", "shape": shape, "data": data})
}

/// The pod's state, once `accept` likes it.
pub async fn state(admin: u16, what: &str, accept: impl Fn(&PodState) -> bool) -> PodState {
    until(what, async || {
        let (_, text) = get(admin, "/modelwright/v1/state").await?;
        let state: PodState = serde_json::from_str(&text).unwrap();
        accept(&state).then_some(state)
    })
    .await
}

pub fn phase(state: &PodState, revision: &str) -> Option<RevisionPhase> {
    state.revisions.iter().find(|r| r.revision == revision).map(|r| r.phase)
}
