//! A request as a trace: a server span, and below it the queue, putting the batch together, and the run.

use std::env;
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    Span, SpanBuilder, SpanKind, Status, TraceContextExt, TraceId, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, Key, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use opentelemetry_semantic_conventions::{SCHEMA_URL, attribute, resource};

use super::{Clock, Notes, Protocol, Trail};

#[derive(Clone)]
pub(super) struct Tracer {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A variable's value, where it has one.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

impl Tracer {
    /// By OpenTelemetry's variables; the endpoint switches it on. Sampler, headers, timeouts, limits and the queue's
    /// size are read by the SDK itself.
    pub fn from_environment() -> Result<Option<Self>, String> {
        let of = |name: &str| {
            let for_traces = variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
            for_traces.or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let off = variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|v| v == "none");
        let Some(endpoint) = of("ENDPOINT").filter(|_| !off) else { return Ok(None) };
        if let Some(protocol) = of("PROTOCOL").filter(|protocol| protocol != "grpc") {
            return Err(format!("OTLP over {protocol} is not spoken: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"));
        }
        if endpoint.starts_with("https:") {
            return Err(format!("{endpoint} wants TLS: send to a collector in the cluster by http://"));
        }
        let exporter = SpanExporter::builder().with_tonic().build().map_err(|e| e.to_string())?;
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(process()).build();
        Ok(Some(Self::new(provider)))
    }

    pub fn new(provider: SdkTracerProvider) -> Self {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(SCHEMA_URL);
        Self { tracer: provider.tracer_with_scope(scope.build()), provider }
    }

    /// Exports what waits, as far as that is possible until the deadline.
    pub fn end(&self, deadline: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(deadline) {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }

    /// Makes the spans, if the request is sampled; the trace's id.
    pub fn tell(&self, trail: &Trail, notes: &Notes, clock: Clock) -> Option<TraceId> {
        let builder = SpanBuilder::from_name(name(trail))
            .with_kind(SpanKind::Server)
            .with_start_time(clock.time(trail.started));
        let mut server = self.tracer.build_with_context(builder, &trail.parent);
        if !server.is_recording() {
            return None;
        }
        server.set_attributes(attributes(trail, notes));
        if let Some(error) = error(trail) {
            server.set_attribute(KeyValue::new(attribute::ERROR_TYPE, error));
            server.set_status(Status::error(""));
        }
        let trace_id = server.span_context().trace_id();
        let parent = trail.parent.with_remote_span_context(server.span_context().clone());
        self.children(notes, clock, &parent);
        server.end_with_timestamp(clock.now);
        Some(trace_id)
    }

    fn children(&self, notes: &Notes, clock: Clock, parent: &Context) {
        let Some(queued) = notes.queued else { return };
        let child = |name: &'static str, begin: Instant, end: Instant, attributes: Vec<KeyValue>| {
            let builder = SpanBuilder::from_name(name).with_start_time(clock.time(begin));
            let mut span = self.tracer.build_with_context(builder.with_attributes(attributes), parent);
            span.end_with_timestamp(clock.time(end));
        };
        let Some(run) = &notes.run else {
            // It was given up: the client went, or the deadline passed.
            return child("queue", queued, clock.at, Vec::new());
        };
        let size = || {
            vec![
                KeyValue::new("modelwright.batch.requests", run.requests as i64),
                KeyValue::new("modelwright.batch.rows", run.rows as i64),
            ]
        };
        child("queue", queued, run.taken, Vec::new());
        child("batch", run.taken, run.computed.start, size());
        child("compute", run.computed.start, run.computed.end, size());
    }
}

/// What is said of the process: what the environment says, and a name where it has none.
fn process() -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || EnvResourceDetector::new().detect().get(&Key::new(resource::SERVICE_NAME)).is_some();
    let builder = Resource::builder();
    if named { builder } else { builder.with_service_name("modelwright-server") }.build()
}

/// `POST /v2/models/{name}/infer`, `inference.GRPCInferenceService/ModelInfer`
fn name(trail: &Trail) -> String {
    match (trail.protocol, &trail.route) {
        (Protocol::Grpc, _) => trail.path.trim_start_matches('/').into(),
        (Protocol::Rest, Some(route)) => format!("{} {}", trail.method, route.as_str()),
        (Protocol::Rest, None) => trail.method.to_string(),
    }
}

fn attributes(trail: &Trail, notes: &Notes) -> Vec<KeyValue> {
    let identity = &trail.observer.identity;
    let mut all = vec![
        KeyValue::new("modelwright.model.name", identity.name.clone()),
        KeyValue::new("modelwright.model.version", identity.version.clone()),
    ];
    all.extend(identity.revision.clone().map(|name| KeyValue::new("modelwright.revision", name)));
    if !notes.request_id.is_empty() {
        all.push(KeyValue::new("modelwright.request.id", notes.request_id.clone()));
    }
    match trail.protocol {
        Protocol::Rest => {
            all.extend([
                KeyValue::new(attribute::HTTP_REQUEST_METHOD, trail.method.to_string()),
                KeyValue::new(attribute::HTTP_REQUEST_BODY_SIZE, trail.received() as i64),
                KeyValue::new(attribute::HTTP_RESPONSE_BODY_SIZE, trail.sent as i64),
                KeyValue::new(attribute::NETWORK_PROTOCOL_VERSION, version(trail)),
                KeyValue::new(attribute::URL_PATH, trail.path.clone()),
                KeyValue::new(attribute::URL_SCHEME, "http"),
            ]);
            let status = trail.status.map(|status| i64::from(status.as_u16()));
            all.extend(status.map(|status| KeyValue::new(attribute::HTTP_RESPONSE_STATUS_CODE, status)));
            let route = trail.route.as_ref().map(|route| route.as_str().to_string());
            all.extend(route.map(|route| KeyValue::new(attribute::HTTP_ROUTE, route)));
        }
        Protocol::Grpc => all.extend([
            KeyValue::new(attribute::RPC_SYSTEM_NAME, "grpc"),
            KeyValue::new(attribute::RPC_METHOD, name(trail)),
            KeyValue::new(attribute::RPC_RESPONSE_STATUS_CODE, code_name(trail.code())),
        ]),
    }
    all
}

fn version(trail: &Trail) -> &'static str {
    match trail.version {
        axum::http::Version::HTTP_2 => "2",
        axum::http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// What went wrong on this side, as a server's span counts it: a client's mistake is no error here.
fn error(trail: &Trail) -> Option<String> {
    use tonic::Code;
    let code = trail.code();
    match trail.protocol {
        Protocol::Rest => trail.status.filter(|status| status.is_server_error()).map(|_| code.to_string()),
        Protocol::Grpc => match Code::from_i32(code) {
            Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Some(code_name(code)),
            _ => None,
        },
    }
}

/// `DEADLINE_EXCEEDED`, as gRPC writes it.
fn code_name(code: i32) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", tonic::Code::from_i32(code)).chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests;
