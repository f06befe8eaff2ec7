//! What became of a request, told once it is over: a line of the access log, a trace.
//!
//! ```text
//! request ──> follow ──> skins ──> queue (queued, ran) ──> answer's last byte ──> access log, spans
//!             Trail: when it came, what it asked       Notes                      in the background
//! ```
//! Both are off by default; then none of this is in a request's way. A trace is made from the times that the queue
//! takes anyway, after the fact.

mod access_log;
mod body;
mod spans;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use self::access_log::AccessLog;
use self::body::{Counted, Followed};
use self::spans::Tracer;
use super::grpc::is_grpc;
use super::metrics::Protocol;
use super::model::Identity;

/// Where what became of requests is told.
pub struct Observer {
    identity: Identity,
    access_log: Option<AccessLog>,
    tracer: Option<Tracer>,
    propagator: TraceContextPropagator,
}

/// What the inner parts know of a request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Notes {
    /// The protocol's own, which the answer repeats.
    request_id: String,
    queued: Option<Instant>,
    run: Option<Run>,
}

tokio::task_local! {
    static NOTES: Arc<Mutex<Notes>>;
}

fn note(write: impl FnOnce(&mut Notes)) {
    // Nobody follows this request, as a rule.
    let _ = NOTES.try_with(|notes| write(&mut notes.lock().unwrap_or_else(PoisonError::into_inner)));
}

pub fn names(request_id: &str) {
    note(|notes| notes.request_id = request_id.into());
}

pub fn queued() {
    note(|notes| notes.queued = Some(Instant::now()));
}

/// One run of the model, as each of its requests saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Out of the queue.
    pub taken: Instant,
    /// In ONNX Runtime.
    pub computed: Range<Instant>,
    pub requests: usize,
    pub rows: usize,
}

pub fn ran(run: Run) {
    note(|notes| notes.run = Some(run));
}

impl Observer {
    /// As the flag and OpenTelemetry's environment variables say; None: nothing is to be told. Needs the runtime.
    pub fn start(identity: Identity, access_log: bool) -> Option<Arc<Self>> {
        // Models are served without traces rather than not at all.
        let tracer = Tracer::from_environment().unwrap_or_else(|why| {
            tracing::warn!("no traces are exported: {why}");
            None
        });
        let access_log = match access_log.then(AccessLog::to_standard_output).transpose() {
            Ok(log) => log,
            Err(error) => {
                tracing::warn!(%error, "there is no access log: its thread can't be started");
                None
            }
        };
        let nothing = tracer.is_none() && access_log.is_none();
        (!nothing).then(|| {
            Arc::new(Self { identity, access_log, tracer, propagator: TraceContextPropagator::new() })
        })
    }

    /// Middleware around everything else.
    pub async fn follow(self: Arc<Self>, request: Request, next: Next) -> Response {
        let mut trail = Trail::of(self, &request);
        let received = trail.received.clone();
        let request = request.map(|body| Body::new(Counted::new(body, received)));
        let response = NOTES.scope(trail.notes.clone(), next.run(request)).await;
        trail.answered(&response);
        response.map(|body| Body::new(Followed::new(body, trail)))
    }

    /// Exports what waits, within a second.
    pub async fn end(&self) {
        const DEADLINE: Duration = Duration::from_secs(1);
        if let Some(tracer) = self.tracer.clone() {
            let ended = tokio::task::spawn_blocking(move || tracer.end(DEADLINE));
            let _ = tokio::time::timeout(DEADLINE, ended).await;
        }
        if let Some(log) = &self.access_log {
            log.flush(DEADLINE);
        }
    }
}

/// A request, from its arrival to the last byte of its answer. Told when dropped, so once, whatever happens.
struct Trail {
    observer: Arc<Observer>,
    started: Instant,
    protocol: Protocol,
    method: Method,
    version: Version,
    path: String,
    /// The path's form, with `{name}` for what varies.
    route: Option<MatchedPath>,
    /// The caller's span, if it sent one.
    parent: Context,
    notes: Arc<Mutex<Notes>>,
    received: Arc<AtomicU64>,
    sent: u64,
    /// None: the client went before there was an answer.
    status: Option<StatusCode>,
    grpc_status: Option<i32>,
}

impl Trail {
    fn of(observer: Arc<Observer>, request: &Request) -> Self {
        let headers = request.headers();
        let parent = observer.propagator.extract_with_context(&Context::new(), &Headers(headers));
        Self {
            parent,
            observer,
            started: Instant::now(),
            protocol: if is_grpc(headers) { Protocol::Grpc } else { Protocol::Rest },
            method: request.method().clone(),
            version: request.version(),
            path: request.uri().path().into(),
            route: request.extensions().get::<MatchedPath>().cloned(),
            notes: Arc::default(),
            received: Arc::default(),
            sent: 0,
            status: None,
            grpc_status: None,
        }
    }

    fn answered(&mut self, response: &Response) {
        self.status = Some(response.status());
        self.grpc_status = grpc_status(response.headers());
    }

    /// gRPC's comes last, behind the message.
    fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
    }

    fn is_inference(&self) -> bool {
        match self.protocol {
            Protocol::Rest => self.method == Method::POST && self.path.ends_with("/infer"),
            Protocol::Grpc => self.path.ends_with("/ModelInfer"),
        }
    }

    /// As each protocol counts: HTTP's, where 499 says that the client has gone, as nginx does; gRPC's.
    fn code(&self) -> i32 {
        const CLIENT_CLOSED_REQUEST: i32 = 499;
        match self.protocol {
            Protocol::Rest => self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16().into()),
            Protocol::Grpc => self.grpc_status.unwrap_or(tonic::Code::Cancelled as i32),
        }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = Instant::now();
        let observer = self.observer.clone();
        let caller = self.parent.span().span_context().trace_id();
        let mut trace_id = (caller != TraceId::INVALID).then_some(caller);
        if let Some(tracer) = observer.tracer.as_ref().filter(|_| self.is_inference()) {
            let clock = Clock { now: SystemTime::now(), at: ended };
            trace_id = tracer.tell(self, &notes, clock).or(trace_id);
        }
        if let Some(log) = &observer.access_log {
            log.tell(self, &notes, ended, trace_id);
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The wall clock's time of an `Instant`.
#[derive(Clone, Copy)]
struct Clock {
    now: SystemTime,
    at: Instant,
}

impl Clock {
    fn time(self, instant: Instant) -> SystemTime {
        self.now - self.at.saturating_duration_since(instant)
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests;
