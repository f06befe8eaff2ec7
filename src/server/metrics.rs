//! What a worker counts. Names and labels are fixed, and listed in docs/metrics.md: dashboards depend on them.
//!
//! A request is counted a few times on its way, so what it touches is looked up here, once.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::statistics::Statistics;

/// The format `/metrics` answers in.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Rest,
    Grpc,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Rest => "rest",
            Protocol::Grpc => "grpc",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    protocol: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ScopeLabels {
    scope: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// Cheap to clone: all clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    /// Of `requests`, what is counted most: with outcome ok, REST and gRPC.
    answered: [Counter; 2],
    in_flight: Gauge,
    request_duration: Histogram,
    pub queue_depth: Gauge,
    queue_bytes: Gauge,
    queue_duration: Histogram,
    input_bytes: Counter,
    output_bytes: Counter,
    compute_duration: Histogram,
    batch_rows: Histogram,
    batch_row_limit: Gauge,
    load: Family<PhaseLabels, Gauge<f64, AtomicU64>>,
    session_memory: Family<ScopeLabels, Gauge>,
    /// The same, as Triton's clients ask for it.
    pub statistics: Arc<Statistics>,
}

impl Metrics {
    /// Every sample bears `revision`, so that one pod's two workers can be told apart.
    pub fn new(revision: &str) -> Self {
        let mut registry =
            Registry::with_labels([("revision".into(), revision.to_string().into())].into_iter());
        let latency = || Histogram::new(LATENCY_BUCKETS.iter().copied());
        let requests = Family::<RequestLabels, Counter>::default();
        let answered = [Protocol::Rest, Protocol::Grpc].map(|protocol| {
            requests.get_or_create(&RequestLabels { protocol: protocol.name(), outcome: OK }).clone()
        });
        let metrics = Self {
            registry: Arc::default(),
            requests,
            answered,
            in_flight: Gauge::default(),
            request_duration: latency(),
            queue_depth: Gauge::default(),
            queue_bytes: Gauge::default(),
            queue_duration: latency(),
            input_bytes: Counter::default(),
            output_bytes: Counter::default(),
            compute_duration: latency(),
            batch_rows: Histogram::new(ROW_BUCKETS.iter().copied()),
            batch_row_limit: Gauge::default(),
            load: Family::default(),
            session_memory: Family::default(),
            statistics: Arc::default(),
        };
        registry.register(
            "modelwright_requests",
            "Inference requests answered, by protocol (rest, grpc) and outcome",
            metrics.requests.clone(),
        );
        registry.register(
            "modelwright_requests_in_flight",
            "Inference requests that are being read, wait or run",
            metrics.in_flight.clone(),
        );
        registry.register(
            "modelwright_request_duration_seconds",
            "From the request's arrival to its answer",
            metrics.request_duration.clone(),
        );
        registry.register(
            "modelwright_input_bytes",
            "Bytes of the tensors that requests brought",
            metrics.input_bytes.clone(),
        );
        registry.register(
            "modelwright_output_bytes",
            "Bytes of the tensors that were answered",
            metrics.output_bytes.clone(),
        );
        registry.register(
            "modelwright_queue_depth",
            "Requests that wait for a thread",
            metrics.queue_depth.clone(),
        );
        registry.register(
            "modelwright_queue_bytes",
            "Bytes of the inputs of requests that wait for a thread",
            metrics.queue_bytes.clone(),
        );
        registry.register(
            "modelwright_queue_duration_seconds",
            "From a request's entry into the queue to the begin of its run",
            metrics.queue_duration.clone(),
        );
        registry.register(
            "modelwright_batch_rows",
            "Rows of a run: of one request, or of several that share it",
            metrics.batch_rows.clone(),
        );
        registry.register(
            "modelwright_batch_row_limit",
            "Rows of a run at most, as measured; 0: requests don't share runs",
            metrics.batch_row_limit.clone(),
        );
        registry.register(
            "modelwright_compute_duration_seconds",
            "Runs of the model in ONNX Runtime",
            metrics.compute_duration.clone(),
        );
        registry.register(
            "modelwright_load_seconds",
            "Time spent before the model served, by phase (load, warmup)",
            metrics.load.clone(),
        );
        registry.register(
            "modelwright_session_memory_bytes",
            "What loading and warming up added: to the process's resident memory, to the container's anonymous memory",
            metrics.session_memory.clone(),
        );
        Self { registry: Arc::new(registry), ..metrics }
    }

    /// Counts a request until it is answered or dropped.
    pub fn begin(&self, protocol: Protocol) -> Flight<'_> {
        self.in_flight.inc();
        Flight { metrics: self, protocol, started: Instant::now(), outcome: CANCELLED }
    }

    pub fn tensors(&self, inputs: usize, outputs: usize) {
        self.input_bytes.inc_by(inputs as u64);
        self.output_bytes.inc_by(outputs as u64);
    }

    pub fn queued(&self, requests: usize, bytes: usize) {
        self.queue_depth.set(requests as i64);
        self.queue_bytes.set(bytes as i64);
    }

    pub fn waited(&self, waited: Duration) {
        self.queue_duration.observe(waited.as_secs_f64());
        self.statistics.queued(waited);
    }

    pub fn computed(&self, rows: usize, took: Duration) {
        self.compute_duration.observe(took.as_secs_f64());
        self.batch_rows.observe(rows as f64);
    }

    pub fn row_limit(&self, rows: usize) {
        self.batch_row_limit.set(rows as i64);
    }

    pub fn loaded(&self, phase: &'static str, seconds: f64) {
        self.load.get_or_create(&PhaseLabels { phase }).set(seconds);
    }

    /// `scope`: process, container.
    pub fn session_memory(&self, scope: &'static str, bytes: u64) {
        self.session_memory.get_or_create(&ScopeLabels { scope }).set(bytes as i64);
    }

    /// OpenMetrics text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The outcome of a request that was answered as it should be.
pub const OK: &str = "ok";
/// Of one whose client has gone.
const CANCELLED: &str = "cancelled";

/// A request that is being answered. One that is dropped before its end was cancelled.
pub struct Flight<'a> {
    metrics: &'a Metrics,
    protocol: Protocol,
    pub started: Instant,
    outcome: &'static str,
}

impl Flight<'_> {
    pub fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let Self { metrics, protocol, started, outcome } = self;
        let took = started.elapsed();
        metrics.in_flight.dec();
        metrics.request_duration.observe(took.as_secs_f64());
        if *outcome == OK {
            metrics.answered[*protocol as usize].inc();
            metrics.statistics.succeeded(took);
            return;
        }
        metrics.requests.get_or_create(&RequestLabels { protocol: protocol.name(), outcome }).inc();
        if *outcome != CANCELLED {
            metrics.statistics.failed(took);
        }
    }
}

/// From a tenth of a millisecond to half a minute, about three a decade.
const LATENCY_BUCKETS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

const ROW_BUCKETS: [f64; 10] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0];

#[cfg(test)]
mod tests;
