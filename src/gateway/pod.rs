//! A serving pod: what is in flight to it, and the connections to it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use h2::PingPong;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::metrics::ArmMetrics;
use super::outgoing::Outgoing;

/// Within a cluster: a node that is gone answers nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Sent, and not acknowledged by the pod's machine: it is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// Servers close their end after 90 s.
const IDLE: Duration = Duration::from_secs(60);
/// A pod may be busy.
const PONG: Duration = Duration::from_secs(10);
const HTTP2_WINDOW: u32 = 4 << 20;
/// How long a pod that broke a connection gets no requests: from the first time to many in a row.
const SUSPECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Time since the process began to look: fits an atomic.
pub fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[derive(Debug)]
pub struct Pod {
    pub uid: String,
    pub revision: i64,
    pub address: SocketAddr,
    in_flight: AtomicUsize,
    /// Requests that wait in the server, as its last answer said: other gateways send to it too.
    queue: AtomicUsize,
    /// Milliseconds of `now()`.
    suspect_until: AtomicU64,
    failures: AtomicU32,
    closed: AtomicBool,
    #[allow(clippy::vec_box)] // they come and go in their boxes
    idle: Mutex<Vec<Box<Rest>>>,
    grpc: Mutex<Option<h2::client::SendRequest<Outgoing>>>,
    /// Held by who dials for gRPC; when that last failed.
    dialing: tokio::sync::Mutex<Option<Instant>>,
}

/// An HTTP/1 connection, driven by whoever uses it: a task of its own would cost two switches a request.
#[derive(Debug)]
pub struct Rest {
    pub sender: http1::SendRequest<Outgoing>,
    pub connection: Driven,
    /// It has answered before: the pod may have closed it since.
    pub used: bool,
    since: Instant,
}

#[derive(Debug)]
pub struct Driven(Option<http1::Connection<TokioIo<TcpStream>, Outgoing>>);

impl Driven {
    /// Drives it. True: it has ended.
    pub fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let ended = self.0.as_mut().is_none_or(|connection| Pin::new(connection).poll(context).is_ready());
        if ended {
            // Or a request that it has not yet taken would wait for it for ever.
            self.0 = None;
        }
        ended
    }
}

/// One request to a pod, until it is dropped.
#[derive(Debug)]
pub struct Flight {
    pub pod: Arc<Pod>,
    metrics: Option<Arc<ArmMetrics>>,
}

impl Flight {
    /// `metrics`: None for a request that no client sent.
    pub fn begin(pod: &Arc<Pod>, metrics: Option<&Arc<ArmMetrics>>) -> Self {
        pod.in_flight.fetch_add(1, Ordering::Relaxed);
        if let Some(metrics) = metrics {
            metrics.began();
        }
        Self { pod: pod.clone(), metrics: metrics.cloned() }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.ended();
        }
        if self.pod.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Nothing will tell us when it has become shorter.
            self.pod.queue.store(0, Ordering::Relaxed);
        }
    }
}

impl Pod {
    pub fn new(uid: String, revision: i64, address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            uid,
            revision,
            address,
            in_flight: AtomicUsize::new(0),
            queue: AtomicUsize::new(0),
            suspect_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            idle: Mutex::default(),
            grpc: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
        })
    }

    /// None: it is not to be chosen now.
    pub fn load(&self, now: Duration) -> Option<usize> {
        let suspect = self.suspect_until.load(Ordering::Relaxed) > now.as_millis() as u64;
        (!suspect).then(|| self.in_flight() + self.queue.load(Ordering::Relaxed))
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub fn tell_queue(&self, depth: usize) {
        self.queue.store(depth, Ordering::Relaxed);
    }

    pub fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// It failed. Some: how long it gets no requests, if that has just begun.
    pub fn suspect(&self, now: Duration) -> Option<Duration> {
        self.load(now)?;
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(10);
        let pause = (SUSPECT.0 * (1 << failures)).min(SUSPECT.1);
        self.suspect_until.store((now + pause).as_millis() as u64, Ordering::Relaxed);
        self.forget_connections();
        Some(pause)
    }

    /// The pod is gone, or other than it was: requests in flight finish.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.forget_connections();
    }

    pub fn forget_connections(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        let grpc = self.grpc.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop((idle, grpc));
    }

    /// Closes what nobody has used for long.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|rest| rest.since.elapsed() < IDLE);
        idle.shrink_to_fit();
    }

    /// A connection that nobody uses, if there is one.
    pub async fn idle_rest(&self) -> Option<Box<Rest>> {
        loop {
            let mut rest = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            let ended = std::future::poll_fn(|context| Poll::Ready(rest.connection.poll(context))).await;
            if !ended && rest.sender.is_ready() {
                return Some(rest);
            }
        }
    }

    /// # Errors
    /// The pod can't be reached: nothing was sent.
    pub async fn dial_rest(&self) -> std::io::Result<Box<Rest>> {
        let stream = self.dial().await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        let connection = Driven(Some(connection));
        Ok(Box::new(Rest { sender, connection, used: false, since: Instant::now() }))
    }

    /// After an answer's end.
    pub fn give_back(&self, mut rest: Box<Rest>) {
        let ended = rest.connection.poll(&mut Context::from_waker(Waker::noop()));
        if ended || rest.sender.is_closed() || self.closed.load(Ordering::Relaxed) {
            return;
        }
        rest.used = true;
        rest.since = Instant::now();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(rest);
    }

    /// The connection, if there is one that takes requests.
    pub async fn open_grpc(&self) -> Option<h2::client::SendRequest<Outgoing>> {
        let sender = self.grpc.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        sender.ready().await.ok()
    }

    /// One dials for all who ask meanwhile, also where it fails: a second each would add up.
    ///
    /// # Errors
    /// The pod can't be reached: nothing was sent.
    pub async fn dial_grpc(&self) -> std::io::Result<h2::client::SendRequest<Outgoing>> {
        let asked = Instant::now();
        let mut failed = self.dialing.lock().await;
        if let Some(sender) = self.open_grpc().await {
            return Ok(sender);
        }
        if failed.is_some_and(|at| at >= asked) {
            return Err(std::io::Error::other("another could not reach it either"));
        }
        let dialed = self.new_grpc().await;
        if dialed.is_err() {
            *failed = Some(Instant::now());
        }
        dialed
    }

    async fn new_grpc(&self) -> std::io::Result<h2::client::SendRequest<Outgoing>> {
        let stream = self.dial().await?;
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(HTTP2_WINDOW)
            .initial_connection_window_size(2 * HTTP2_WINDOW)
            .handshake(stream)
            .await
            .map_err(std::io::Error::other)?;
        let pings = connection.ping_pong();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to a pod ended");
                    }
                }
                () = unanswered(pings) => tracing::debug!("a pod does not answer pings"),
            }
        });
        if !self.closed.load(Ordering::Relaxed) {
            *self.grpc.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        }
        sender.ready().await.map_err(std::io::Error::other)
    }

    async fn dial(&self) -> std::io::Result<TcpStream> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await??;
        stream.set_nodelay(true)?;
        rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED.as_millis() as u32)?;
        rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
        rustix::net::sockopt::set_tcp_keepidle(&stream, UNACKNOWLEDGED)?;
        rustix::net::sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(1))?;
        Ok(stream)
    }
}

/// Returns when the pod has left a ping without an answer.
async fn unanswered(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(UNACKNOWLEDGED).await;
        match tokio::time::timeout(PONG, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            _ => return,
        }
    }
}
