//! Sockets, and the way out without losing a request. HTTP/1 and HTTP/2, so REST and gRPC, share a port.
//!
//! ```text
//! Serving ── SIGTERM ──> Draining ── endpoints have forgotten us ──> Closing ── last answer ──> exit
//!                        still accepts; HTTP/1 answers say            accepts no more; idle
//!                        `Connection: close`, HTTP/2 gets GOAWAY      connections are closed
//! ```
//! An idle HTTP/1 connection is not closed while `Draining`: its client may be about to send.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Request, Response, Version, header};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tower::ServiceExt;

mod unsent;

use unsent::{Pieces, Unsent};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    Draining,
    Closing,
}

/// More wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// From the opening of a connection, or the end of its last request, to the end of the next request's headers: clients'
/// pools keep connections for about a minute.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// A client whose machine takes nothing more of an answer for this long is gone; so is one that keeps the window of
/// HTTP/2 shut.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const FOREVER: Duration = Duration::from_secs(1 << 30);
/// HTTP/2's 64 KiB would let a stream carry one window a round trip.
const HTTP2_WINDOW: u32 = 4 << 20;
const HTTP2_STREAMS: u32 = 1024;

/// Listens on every address, IPv6 and IPv4.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        // A kernel without IPv6.
        Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

/// What answers requests.
pub trait App: Clone + Send + 'static {
    type Body: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send;
}

impl App for Router {
    type Body = Body;

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match self.clone().oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What a connection goes through before requests come over it.
pub trait Secure: Clone + Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn secure(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Nothing.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Secure for Plain {
    type Stream = TcpStream;

    async fn secure(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// How long a connection may do nothing, and how long it may live.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub headers: Duration,
    pub stall: Duration,
    /// A connection this old is asked to end, so that clients find pods that have come since. A tenth more or less, or
    /// all would come back at once.
    pub age: Option<Duration>,
    /// At a time.
    pub connections: usize,
    /// Without it, HTTP/1 only.
    pub http2: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            headers: HEADER_TIMEOUT,
            stall: STALL_TIMEOUT,
            age: None,
            connections: MAX_CONNECTIONS,
            http2: true,
        }
    }
}

/// Accepts and answers until `Closing`, then finishes what runs. Drop it to end at once.
pub async fn serve(listener: TcpListener, app: impl App, phase: watch::Receiver<Phase>, patience: Patience) {
    serve_over(listener, Plain, app, phase, patience).await;
}

/// As `serve`, over what `secure` makes of a connection.
pub async fn serve_over(
    listener: TcpListener,
    secure: impl Secure,
    app: impl App,
    mut phase: watch::Receiver<Phase>,
    patience: Patience,
) {
    let slots = Arc::new(Semaphore::new(patience.connections));
    let mut connections = JoinSet::new();
    let mut closing = pin!({
        let mut phase = phase.clone();
        async move {
            // A sender that is gone has nothing more to serve.
            let _ = phase.wait_for(|p| *p == Phase::Closing).await;
        }
    });
    loop {
        let slot = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        tokio::select! {
            () = &mut closing => break,
            Some(_) = connections.join_next() => {}
            (slot, accepted) = slot => match accepted {
                Ok((stream, _)) => {
                    phase.mark_unchanged();
                    let (secure, app, phase) = (secure.clone(), app.clone(), phase.clone());
                    connections.spawn(async move {
                        if let Some(stream) = opened(stream, secure, phase.clone(), patience).await {
                            connection(stream, app, phase, patience).await;
                        }
                        drop(slot);
                    });
                }
                // Out of file descriptors, usually: busy retries would not help.
                Err(e) => {
                    tracing::warn!(error = %e, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn jittered(age: Duration) -> Duration {
    // Nothing that needs a better source of randomness.
    let random = RandomState::new().hash_one(0) as u32;
    age.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
}

/// None: it is not what it should be, or takes too long.
async fn opened<S: Secure>(
    stream: TcpStream,
    secure: S,
    mut phase: watch::Receiver<Phase>,
    patience: Patience,
) -> Option<S::Stream> {
    // Answers are written whole.
    let _ = stream.set_nodelay(true);
    let stall = u32::try_from(patience.stall.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall);
    tokio::select! {
        biased;
        opened = tokio::time::timeout(patience.headers, secure.secure(stream)) => match opened.ok()? {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::debug!(%error, "connection not opened");
                None
            }
        },
        _ = phase.wait_for(|p| *p == Phase::Closing) => None,
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: impl App,
    mut phase: watch::Receiver<Phase>,
    patience: Patience,
) {
    let has_asked = Arc::new(AtomicBool::new(false));
    let is_http2 = Arc::new(AtomicBool::new(false));
    let is_old = Arc::new(AtomicBool::new(false));
    let unsent = Arc::new(Unsent::default());
    let service = {
        let unsent = unsent.clone();
        let (is_http2, has_asked, phase) = (is_http2.clone(), has_asked.clone(), phase.clone());
        let is_old = is_old.clone();
        service_fn(move |request: Request<Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            let http2 = request.version() == Version::HTTP_2;
            is_http2.store(http2, Ordering::Relaxed);
            let (app, phase, is_old) = (app.clone(), phase.clone(), is_old.clone());
            let unsent = http2.then(|| unsent.clone());
            async move {
                let mut response = app.answer(request).await;
                if !http2 && (is_old.load(Ordering::Relaxed) || *phase.borrow() > Phase::Serving) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|body| Pieces::new(body, unsent)))
            }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if !patience.http2 {
        builder = builder.http1_only();
    }
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(2 * HTTP2_WINDOW)
        .max_concurrent_streams(HTTP2_STREAMS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut first_request = pin!(tokio::time::sleep(patience.headers));
    let mut age = pin!(tokio::time::sleep(patience.age.map_or(FOREVER, jittered)));
    let mut turns = tokio::time::interval(patience.stall);
    // A process that was frozen must not take its own sleep for its clients'.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            // hyper's timer of headers begins only when it knows which HTTP a connection speaks.
            () = first_request.as_mut(), if !first_request.is_elapsed() => {
                if !has_asked.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = age.as_mut(), if !age.is_elapsed() => {
                // Which HTTP it speaks shows in its first request: until then its age counts anew.
                if let Some(again) = patience.age.filter(|_| !has_asked.load(Ordering::Relaxed)) {
                    age.as_mut().reset(Instant::now() + again);
                    continue;
                }
                is_old.store(true, Ordering::Relaxed);
                if is_http2.load(Ordering::Relaxed) {
                    connection.as_mut().graceful_shutdown();
                }
            }
            _ = turns.tick() => {
                if unsent.turn() {
                    // One stuck answer is no reason to break off the others.
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(patience.stall, connection).await;
                    return;
                }
            }
            changed = phase.changed() => {
                let now = *phase.borrow_and_update();
                let leave = match now {
                    Phase::Serving => false,
                    Phase::Draining => is_http2.load(Ordering::Relaxed),
                    Phase::Closing => true,
                };
                if leave || changed.is_err() {
                    connection.as_mut().graceful_shutdown();
                }
                if changed.is_err() || now == Phase::Closing {
                    break;
                }
            }
        }
    }
    let _ = connection.await;
}

#[cfg(test)]
mod tests;
