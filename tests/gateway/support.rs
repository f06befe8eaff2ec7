//! A gateway and pods in this process, and clients of both protocols.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, Response, Version};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use modelwright::api::{Backend, RouteLimits, RouteMode};
use modelwright::formats::GatewayReport;
use modelwright::gateway::{PodView, Proxy, RouteView, Table, admin};
use modelwright::listen::{App, Patience, Phase, serve};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Of whatever a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(300);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

type Hook = Arc<dyn Fn(&Seen) -> Option<Response<BoxBody<Bytes, Infallible>>> + Send + Sync>;

/// What a pod got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub grpc: bool,
}

/// A serving pod.
#[derive(Clone)]
pub struct Pod {
    pub state: Arc<State>,
    pub view: PodView,
}

pub struct State {
    revision: i64,
    pub seen: Mutex<Vec<Seen>>,
    pub arrived: AtomicUsize,
    /// Answers wait for it to be open.
    pub open: watch::Sender<bool>,
    pub phase: watch::Sender<Phase>,
    /// Answers instead.
    pub hook: Mutex<Option<Hook>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Fake(Arc<State>);

pub fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes.into()).boxed()
}

/// The message and its status.
pub fn grpc_body(message: &[u8]) -> BoxBody<Bytes, Infallible> {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let frames = [Ok(Frame::data(framed(message))), Ok(Frame::trailers(trailers))];
    StreamBody::new(futures::stream::iter(frames)).boxed()
}

pub fn framed(message: &[u8]) -> Bytes {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat().into()
}

impl App for Fake {
    type Body = BoxBody<Bytes, Infallible>;

    async fn answer(&self, request: Request<Incoming>) -> Response<Self::Body> {
        let (head, body) = request.into_parts();
        let grpc = head.version == Version::HTTP_2;
        self.0.arrived.fetch_add(1, Ordering::SeqCst);
        let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let seen = Seen { headers: head.headers, body, grpc };
        self.0.seen.lock().unwrap().push(seen.clone());
        let hook = self.0.hook.lock().unwrap().clone();
        if let Some(answer) = hook.and_then(|hook| hook(&seen)) {
            return answer;
        }
        let _ = self.0.open.subscribe().wait_for(|open| *open).await;
        let name = format!("r{}", self.0.revision);
        let mut response = Response::new(if grpc { grpc_body(name.as_bytes()) } else { full(name.clone()) });
        response.headers_mut().insert("modelwright-revision", name.parse().unwrap());
        if grpc {
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        }
        response
    }
}

impl Pod {
    pub async fn start(deployment: &str, revision: i64) -> Self {
        Self::start_at(deployment, revision, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(deployment: &str, revision: i64, address: SocketAddr) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (phase, phases) = watch::channel(Phase::Serving);
        let state = Arc::new(State {
            revision,
            seen: Mutex::default(),
            arrived: AtomicUsize::new(0),
            open: watch::Sender::new(true),
            phase,
            hook: Mutex::default(),
            task: Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, Fake(state.clone()), phases, Patience::default()));
        *state.task.lock().unwrap() = Some(task);
        let view = PodView {
            deployment: deployment.into(),
            name: format!("{deployment}-{number}"),
            uid: format!("uid-{number}"),
            slots: vec![(revision, address)],
            ready: true,
            starting: None,
        };
        Self { state, view }
    }

    pub fn answer(
        &self,
        hook: impl Fn(&Seen) -> Option<Response<BoxBody<Bytes, Infallible>>> + Send + Sync + 'static,
    ) {
        *self.state.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn arrived(&self) -> usize {
        self.state.arrived.load(Ordering::SeqCst)
    }

    pub fn shut(&self) {
        self.state.open.send_replace(false);
    }

    pub fn open(&self) {
        self.state.open.send_replace(true);
    }

    pub fn not_ready(&self) -> PodView {
        PodView { ready: false, ..self.view.clone() }
    }

    /// As SIGKILL: every connection breaks.
    pub async fn kill(&self) {
        let task = self.state.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// As SIGTERM, to the end.
    pub async fn stop(&self, accepting: Duration) {
        let _ = self.state.phase.send(Phase::Draining);
        tokio::time::sleep(accepting).await;
        let _ = self.state.phase.send(Phase::Closing);
        let task = self.state.task.lock().unwrap().take();
        if let Some(task) = task {
            within("the pod drains", task).await.unwrap();
        }
    }
}

/// A ready pod whose machine is gone: the kernel drops each SYN, since nobody accepts what its queue has room for.
pub struct Deaf {
    pub view: PodView,
    _listener: TcpListener,
    _accepted: TcpStream,
}

impl Deaf {
    pub async fn start(deployment: &str, revision: i64) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = TcpStream::connect(address).await.unwrap();
        let view = PodView {
            deployment: deployment.into(),
            name: format!("deaf-{}", address.port()),
            uid: format!("uid-deaf-{}", address.port()),
            slots: vec![(revision, address)],
            ready: true,
            starting: None,
        };
        Self { view, _listener: listener, _accepted: accepted }
    }
}

pub struct Gateway {
    pub table: Arc<Table>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub phase: watch::Sender<Phase>,
    pub serving: JoinHandle<()>,
}

pub async fn gateway() -> Gateway {
    gateway_with(1 << 30, Patience::default()).await
}

pub async fn gateway_with(body_bytes: usize, patience: Patience) -> Gateway {
    let table = Table::new(body_bytes);
    let settling = table.clone();
    tokio::spawn(async move { settling.settle().await });
    let (phase, phases) = watch::channel(Phase::Serving);
    let router = admin(table.clone(), watch::channel(true).1, phases.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = listener.local_addr().unwrap();
    let (always, serving) = watch::channel(Phase::Serving);
    tokio::spawn(async move {
        serve(listener, router, serving, Patience::default()).await;
        drop(always);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(listener, Proxy(table.clone()), phases, patience));
    Gateway { table, address, admin, phase, serving }
}

pub fn route(name: &str, generation: i64, backends: &[(i64, i32)]) -> RouteView {
    RouteView {
        name: name.into(),
        uid: format!("route-{name}"),
        generation,
        mode: RouteMode::Forward,
        backends: backends
            .iter()
            .map(|(revision, weight)| Backend { revision: *revision, weight: *weight })
            .collect(),
        limits: RouteLimits::default(),
        sole: None,
        shadow: None,
        drained: None,
        trial: None,
    }
}

/// A Secret as the kubelet mounts it.
pub struct Mounted {
    pub folder: tempfile::TempDir,
    versions: AtomicUsize,
}

impl Mounted {
    /// Of an optional Secret that is not there.
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), versions: AtomicUsize::new(0) }
    }

    /// All files at once, by the link `..data`.
    pub fn exchange(&self, entries: &[(&str, &str)]) {
        let folder = self.folder.path();
        let version = format!("..{}", self.versions.fetch_add(1, Ordering::Relaxed));
        std::fs::create_dir(folder.join(&version)).unwrap();
        for (name, content) in entries {
            std::fs::write(folder.join(&version).join(name), content).unwrap();
        }
        std::os::unix::fs::symlink(&version, folder.join("..new")).unwrap();
        std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
        for (name, _) in entries {
            // The kubelet makes each once.
            let _ = std::os::unix::fs::symlink(format!("..data/{name}"), folder.join(name));
        }
    }
}

/// What a client got.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Got {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn grpc_status(&self) -> String {
        let status = self.trailers.get("grpc-status").or(self.headers.get("grpc-status"));
        status.map(|v| v.to_str().unwrap().to_string()).unwrap_or_default()
    }
}

async fn got(response: Response<Incoming>) -> Result<Got, hyper::Error> {
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok(Got { status: head.status.as_u16(), headers: head.headers, body: collected.to_bytes(), trailers })
}

pub struct Rest(http1::SendRequest<Full<Bytes>>);

impl Rest {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Got, hyper::Error> {
        self.0.ready().await?;
        got(self.0.send_request(request).await?).await
    }

    pub async fn post(&mut self, host: &str, path: &str, body: &[u8]) -> Result<Got, hyper::Error> {
        self.send(post(host, path, body)).await
    }
}

pub fn post(host: &str, path: &str, body: &[u8]) -> Request<Full<Bytes>> {
    Request::post(path).header("host", host).body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

/// On a connection of its own.
pub async fn rest(address: SocketAddr, host: &str, path: &str, body: &[u8]) -> Got {
    let mut client = Rest::connect(address).await;
    within(path, client.post(host, path, body)).await.unwrap()
}

pub async fn get(address: SocketAddr, host: &str, path: &str) -> Got {
    let request = Request::get(path).header("host", host).body(Full::default()).unwrap();
    within(path, Rest::connect(address).await.send(request)).await.unwrap()
}

#[derive(Clone)]
pub struct Grpc(http2::SendRequest<Full<Bytes>>);

impl Grpc {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Got, hyper::Error> {
        self.0.ready().await?;
        got(self.0.send_request(request).await?).await
    }

    pub async fn call(&mut self, host: &str, method: &str, message: &[u8]) -> Got {
        within(method, self.send(call(host, method, framed(message)))).await.unwrap()
    }
}

pub fn call(host: &str, method: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::post(format!("http://{host}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))
        .unwrap()
}

pub const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// A ModelInferRequest with a name, a version and some bytes that are in no field of these.
pub fn infer(name: &str, version: &str) -> Vec<u8> {
    // Tensors may come before the name.
    let mut message = vec![0x3a, 3, 1, 2, 3];
    message.extend([&[0x0a, name.len() as u8], name.as_bytes()].concat());
    if !version.is_empty() {
        message.extend([&[0x12, version.len() as u8], version.as_bytes()].concat());
    }
    message
}

/// What an operator reads.
pub struct Reports {
    body: Incoming,
    rest: Vec<u8>,
}

impl Reports {
    pub async fn open(admin: SocketAddr) -> Self {
        let stream = TcpStream::connect(admin).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            Request::get("/modelwright/v1/stream").header("host", "g").body(Full::<Bytes>::default());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), rest: Vec::new() }
    }

    pub async fn next(&mut self) -> GatewayReport {
        within("a line", async {
            loop {
                if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.rest.drain(..=end).collect();
                    return serde_json::from_slice(&line).unwrap();
                }
                let frame = self.body.frame().await.unwrap().unwrap();
                self.rest.extend_from_slice(frame.data_ref().unwrap());
            }
        })
        .await
    }

    pub async fn applied(&mut self, name: &str, generation: i64) {
        within("a generation is applied", async {
            while self.next().await.routes.get(name).is_none_or(|route| route.generation < generation) {}
        })
        .await;
    }
}
