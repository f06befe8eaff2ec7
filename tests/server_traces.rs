//! Traces and the access log of a real server; the collector speaks the real OTLP service.
#![cfg(feature = "server")]

mod server_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use modelwright::protocol::grpc::proto::model_infer_request::InferInputTensor;
use modelwright::protocol::grpc::proto::{InferTensorContents, ModelInferRequest};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use server_support::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Its port.
    async fn start(&self) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = tonic::service::Routes::new(TraceServiceServer::new(self.clone())).into_axum_router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    /// So far.
    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).cloned().collect()
    }

    fn resource(&self) -> BTreeMap<String, String> {
        let requests = self.0.lock().unwrap();
        attributes(&requests[0].resource_spans[0].resource.as_ref().unwrap().attributes)
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<Any>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(AnyValue::StringValue(text)) => text.clone(),
        Some(AnyValue::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    all.iter().map(|a| (a.key.clone(), text(&a.value))).collect()
}

fn traced(port: u16) -> Command {
    let mut command = command();
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"));
    command.env("OTEL_BSP_SCHEDULE_DELAY", "20");
    command
}

/// y = -x, of rows that may share a run.
fn negation(folder: &std::path::Path) -> std::path::PathBuf {
    use onnx::{Message, model, node, types};
    let value = |name: &str| {
        let dims = ["batch", "n"].map(|dim| Message::default().text(2, dim));
        let tensor = Message::default().int(1, types::FLOAT).message(2, Message::default().all(1, dims));
        Message::default().text(1, name).message(2, Message::default().message(1, tensor))
    };
    let bytes = model(17, vec![node("Neg", "", &["x"], &["y"])], vec![value("x")], vec![value("y")]);
    let path = folder.join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    path
}

async fn ask(port: u16, path: &str, headers: &[(&str, String)]) -> u16 {
    let body = json!({ "id": "seven", "inputs": [fp32("x", &[1, 2], json!([1, 2]))] });
    post(port, path, headers, body.to_string()).await.status().as_u16()
}

async fn ask_by_grpc(port: u16, traceparent: &str) {
    let mut request = tonic::Request::new(ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2],
            contents: Some(InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() }),
            ..Default::default()
        }],
        ..Default::default()
    });
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    grpc::connect(port).await.model_infer(request).await.unwrap();
}

fn sampled(trace: &str) -> Vec<(&'static str, String)> {
    vec![("traceparent", format!("00-{trace}-{CALLER}-01")), ("tracestate", "vendor=value".into())]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn requests_on_both_protocols_become_spans_of_their_callers_traces() {
    let collector = Collector::default();
    let mut command = traced(collector.start().await);
    command.env("OTEL_SERVICE_NAME", "fraud").env("OTEL_RESOURCE_ATTRIBUTES", "team=risk,zone=a");
    let folder = tempfile::tempdir().unwrap();
    let server = serve_by(command, &negation(folder.path()), &[]).await;
    assert_eq!(ask(server.port, "/v2/models/m/infer", &sampled(TRACE)).await, 200);
    ask_by_grpc(server.port, &format!("00-{TRACE}-{CALLER}-01")).await;
    // Probes and metadata are no part of anybody's trace.
    get(server.port, "/v2/models/m").await.unwrap();

    let spans = until("eight spans have come", async || {
        let spans = collector.spans();
        (spans.len() >= 8).then_some(spans)
    })
    .await;
    assert_eq!(spans.len(), 8, "{spans:?}");
    let resource = collector.resource();
    let told = ["service.name", "team", "zone"].map(|key| resource.get(key).map(String::as_str));
    assert_eq!(told, [Some("fraud"), Some("risk"), Some("a")]);

    let rest = "POST /v2/models/{name}/infer";
    let grpc = "inference.GRPCInferenceService/ModelInfer";
    for (name, wanted) in [
        (rest, [("http.response.status_code", "200"), ("modelwright.request.id", "seven")]),
        (grpc, [("rpc.response.status_code", "OK"), ("rpc.system.name", "grpc")]),
    ] {
        let server = spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{spans:?}"));
        assert_eq!(server.kind(), SpanKind::Server);
        assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.into(), CALLER.into()));
        assert_eq!(server.trace_state, if name == rest { "vendor=value" } else { "" });
        let told = attributes(&server.attributes);
        for (key, value) in wanted {
            assert_eq!(told.get(key).map(String::as_str), Some(value), "{key} of {name}");
        }
        let mut before = server.start_time_unix_nano;
        for step in ["queue", "batch", "compute"] {
            let mut children = spans.iter().filter(|span| span.parent_span_id == server.span_id);
            let child = children.find(|span| span.name == step).unwrap_or_else(|| panic!("{spans:?}"));
            assert_eq!(child.trace_id, server.trace_id);
            assert!(before <= child.start_time_unix_nano, "{step} begins after what comes before");
            assert!(child.start_time_unix_nano <= child.end_time_unix_nano);
            before = child.end_time_unix_nano;
        }
        assert!(before <= server.end_time_unix_nano);
    }
}

#[tokio::test]
async fn requests_that_share_a_run_say_so_and_unsampled_ones_say_nothing() {
    let collector = Collector::default();
    let command = traced(collector.start().await);
    let folder = tempfile::tempdir().unwrap();
    // An idle thread waits for three.
    let flags = ["--max-batch-size=3", "--max-queue-delay-microseconds=1000000"];
    let server = serve_by(command, &negation(folder.path()), &flags).await;
    let path = "/v2/models/m/infer";
    let unsampled = [("traceparent", format!("00-{TRACE}-{CALLER}-00"))];
    let (first, second) =
        (sampled("1af7651916cd43dd8448eb211c80319c"), sampled("2af7651916cd43dd8448eb211c80319c"));
    let port = server.port;
    // On a busy machine they may not come within that second: not every time.
    for round in 0..20 {
        let statuses =
            tokio::join!(ask(port, path, &first), ask(port, path, &unsampled), ask(port, path, &second));
        assert_eq!(statuses, (200, 200, 200));
        let spans = until("the sampled requests' spans have come", async || {
            let spans = collector.spans();
            (spans.len() >= 8 * (round + 1)).then_some(spans)
        })
        .await;
        assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE), "{spans:?}");
        let runs = spans[8 * round..].iter().filter(|span| span.name == "compute");
        let said: Vec<_> =
            runs.map(|run| attributes(&run.attributes)["modelwright.batch.requests"].clone()).collect();
        if said == ["3", "3"] {
            return;
        }
    }
    panic!("no run of three requests");
}

#[tokio::test]
async fn a_collector_that_is_gone_costs_no_request_and_holds_up_no_stop() {
    let mut command = traced(free_port());
    command.env("OTEL_BSP_MAX_QUEUE_SIZE", "8").env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4");
    let folder = tempfile::tempdir().unwrap();
    let mut server = serve_by(command, &negation(folder.path()), &[]).await;
    for _ in 0..50 {
        assert_eq!(ask(server.port, "/v2/models/m/infer", &sampled(TRACE)).await, 200);
    }
    server.signal("TERM");
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn what_waits_at_a_stop_is_still_exported() {
    // The server waits for it a second at most. On a busy machine that may be too little: not every time.
    for _ in 0..5 {
        let collector = Collector::default();
        let mut command = traced(collector.start().await);
        command.env("OTEL_BSP_SCHEDULE_DELAY", "600000");
        let folder = tempfile::tempdir().unwrap();
        let mut server = serve_by(command, &negation(folder.path()), &[]).await;
        assert_eq!(ask(server.port, "/v2/models/m/infer", &sampled(TRACE)).await, 200);
        server.signal("TERM");
        assert_eq!(server.ended().await, Some(0));
        if collector.spans().len() == 4 {
            return;
        }
    }
    panic!("no stop exported what waited");
}

#[tokio::test]
async fn the_access_log_has_a_line_a_request_on_both_protocols_and_no_secrets() {
    let mut command = command();
    command.stdout(Stdio::piped());
    let folder = tempfile::tempdir().unwrap();
    let mut server = serve_by(command, &negation(folder.path()), &["--access-log"]).await;
    let secret =
        [("traceparent", format!("00-{TRACE}-{CALLER}-01")), ("authorization", "Bearer secret".into())];
    assert_eq!(ask(server.port, "/v2/models/m/infer?key=secret", &secret).await, 200);
    ask_by_grpc(server.port, &format!("00-{TRACE}-{CALLER}-00")).await;
    assert_eq!(ask(server.port, "/v2/models/other/infer", &[]).await, 404);
    server.signal("TERM");
    assert_eq!(server.ended().await, Some(0));

    let lines = BufReader::new(server.child.stdout.take().unwrap()).lines();
    let lines: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(lines.iter().all(|line| !line.contains("secret")), "{lines:?}");
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().filter(|line| line["method"] == "POST").collect();
    let [rest, grpc, refused] = told[..] else { panic!("{lines:?}") };
    let wanted = |protocol: &str, path: &str, status: i32| json!([protocol, "POST", path, "m", status]);
    let of =
        |line: &Value| json!([line["protocol"], line["method"], line["path"], line["model"], line["status"]]);
    assert_eq!(of(rest), wanted("rest", "/v2/models/m/infer", 200));
    assert_eq!(of(grpc), wanted("grpc", "/inference.GRPCInferenceService/ModelInfer", 0));
    assert_eq!(of(refused), wanted("rest", "/v2/models/other/infer", 404));
    assert_eq!((rest["request_id"].as_str(), rest["trace_id"].as_str()), (Some("seven"), Some(TRACE)));
    assert_eq!(grpc["trace_id"], TRACE);
    for line in [rest, grpc] {
        assert!(line["ms"].as_f64() > Some(0.0) && line["bytes_in"].as_u64() > Some(20), "{line}");
        assert!(line["bytes_out"].as_u64() > Some(20) && line["time"].is_string(), "{line}");
    }
}
