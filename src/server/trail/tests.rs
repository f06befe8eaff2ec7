use axum::Router;
use axum::http::HeaderValue;
use axum::routing::post;
use http_body_util::BodyExt;
use opentelemetry::trace::{SpanId, SpanKind};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use tower::ServiceExt;

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn observer(sampler: Sampler) -> (Arc<Observer>, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let provider =
        SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).with_sampler(sampler).build();
    let identity = Identity { name: "m".into(), version: "1".into(), revision: None, digest: None };
    let propagator = TraceContextPropagator::new();
    let observer = Observer { identity, access_log: None, tracer: Some(Tracer::new(provider)), propagator };
    (Arc::new(observer), exporter)
}

fn router(observer: Arc<Observer>) -> Router {
    let infer = || async {
        names("7");
        queued();
        let now = Instant::now();
        let run = Run { taken: now, computed: now..Instant::now(), requests: 2, rows: 5 };
        ran(run);
        "answer"
    };
    let fail = || async { StatusCode::SERVICE_UNAVAILABLE };
    let router =
        Router::new().route("/v2/models/{name}/infer", post(infer)).route("/v2/fail/infer", post(fail));
    router.layer(axum::middleware::from_fn(move |request, next| observer.clone().follow(request, next)))
}

fn request(path: &str, parent: &'static str) -> Request {
    let mut request = Request::post(path).body(Body::from("question")).unwrap();
    request.headers_mut().insert("traceparent", HeaderValue::from_static(parent));
    request
}

fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} in {spans:?}"))
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|a| a.key.as_str() == key).map(|a| a.value.to_string())
}

#[tokio::test]
async fn a_request_is_a_span_of_its_caller_with_its_steps_below() {
    let (observer, exporter) = observer(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
    let response = router(observer.clone()).oneshot(request("/v2/models/m/infer", PARENT)).await.unwrap();
    assert!(exporter.get_finished_spans().unwrap().is_empty(), "the answer is not read yet");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "answer");

    let spans = exporter.get_finished_spans().unwrap();
    let server = named(&spans, "POST /v2/models/{name}/infer");
    assert_eq!(server.span_kind, SpanKind::Server);
    assert_eq!(server.parent_span_id, SpanId::from_hex("b7ad6b7169203331").unwrap());
    assert!(server.parent_span_is_remote);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/v2/models/{name}/infer"),
        ("http.response.body.size", "6"),
        ("url.path", "/v2/models/m/infer"),
        ("modelwright.model.name", "m"),
        ("modelwright.request.id", "7"),
    ] {
        assert_eq!(attribute(server, key).as_deref(), Some(value), "{key}");
    }
    let steps = ["queue", "batch", "compute"].map(|name| named(&spans, name));
    assert_eq!(spans.len(), 4);
    for step in steps {
        assert_eq!(step.parent_span_id, server.span_context.span_id());
        assert_eq!(step.span_context.trace_id(), server.span_context.trace_id());
        assert!(server.start_time <= step.start_time && step.start_time <= step.end_time);
        assert!(step.end_time <= server.end_time);
    }
    assert_eq!(attribute(steps[2], "modelwright.batch.requests").as_deref(), Some("2"));
    assert_eq!(attribute(steps[2], "modelwright.batch.rows").as_deref(), Some("5"));
}

#[tokio::test]
async fn a_request_whose_caller_is_not_sampled_makes_no_span() {
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let (observer, exporter) = observer(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
    let response = router(observer.clone()).oneshot(request("/v2/models/m/infer", UNSAMPLED)).await.unwrap();
    drop(response);
    assert!(exporter.get_finished_spans().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_traceparent_begins_a_trace_and_an_error_is_one() {
    let (observer, exporter) = observer(Sampler::AlwaysOn);
    drop(router(observer.clone()).oneshot(request("/v2/fail/infer", "00-nonsense")).await.unwrap());
    let spans = exporter.get_finished_spans().unwrap();
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(span.parent_span_id, SpanId::INVALID);
    assert_eq!(attribute(span, "error.type").as_deref(), Some("503"));
    assert_eq!(span.status, opentelemetry::trace::Status::error(""));
}

#[tokio::test]
async fn a_client_that_goes_before_its_answer_is_told_as_such() {
    let (observer, _exporter) = observer(Sampler::AlwaysOn);
    let trail = Trail::of(observer, &request("/v2/models/m/infer", PARENT));
    assert_eq!(trail.code(), 499);
}
