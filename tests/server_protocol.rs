//! The Open Inference Protocol against the real binary and the real ONNX Runtime.
#![cfg(feature = "server")]

#[path = "server_support/mod.rs"]
mod support;

use std::fs;

use bytes::Bytes;
use modelwright::protocol::grpc::proto;
use modelwright::protocol::{Datatype, EXTENSIONS, bytes_elements};
use serde_json::{Value, json};
use support::onnx::{Message, add, identity, model, node, types, value};
use support::*;
use tonic::Code;

const ALL: [(Datatype, i64); 14] = [
    (Datatype::Bool, types::BOOL),
    (Datatype::Uint8, types::UINT8),
    (Datatype::Uint16, types::UINT16),
    (Datatype::Uint32, types::UINT32),
    (Datatype::Uint64, types::UINT64),
    (Datatype::Int8, types::INT8),
    (Datatype::Int16, types::INT16),
    (Datatype::Int32, types::INT32),
    (Datatype::Int64, types::INT64),
    (Datatype::Fp16, types::FLOAT16),
    (Datatype::Bf16, types::BFLOAT16),
    (Datatype::Fp32, types::FLOAT),
    (Datatype::Fp64, types::DOUBLE),
    (Datatype::Bytes, types::STRING),
];

/// One input and output of each type: `y_FP32` is `x_FP32`.
fn all_types(types: &[(Datatype, i64)]) -> Vec<u8> {
    let name = |prefix: &str, d: &Datatype| format!("{prefix}_{d}");
    let values = |prefix| types.iter().map(|(d, t)| value(&name(prefix, d), *t, &[-1])).collect();
    let nodes = types.iter().map(|(d, _)| node("Identity", "", &[&name("x", d)], &[&name("y", d)])).collect();
    model(17, nodes, values("x"), values("y"))
}

/// Two elements of a type, in the binary form; not all of them zero, nor UTF-8.
fn two(datatype: Datatype) -> Vec<u8> {
    match datatype {
        Datatype::Bool => vec![1, 0],
        Datatype::Bytes => vec![3, 0, 0, 0, b'a', 0, 0xff, 0, 0, 0, 0],
        _ => (1..=2 * datatype.size().unwrap() as u8).collect(),
    }
}

#[tokio::test]
async fn every_type_passes_unchanged_as_binary_rest_and_as_raw_grpc() {
    let served = Served::new(&all_types(&ALL), &[]).await;
    let inputs: Vec<Value> = ALL
        .iter()
        .map(|(d, _)| {
            json!({"name": format!("x_{d}"), "datatype": d.name(), "shape": [2],
                   "parameters": {"binary_data_size": two(*d).len()}})
        })
        .collect();
    let header = json!({"inputs": inputs, "parameters": {"binary_data_output": true}}).to_string();
    let data: Vec<u8> = ALL.iter().flat_map(|(d, _)| two(*d)).collect();
    let body = [header.as_bytes(), &data].concat();
    let length = [("inference-header-content-length", header.len().to_string())];
    let response = post(served.port(), "/v2/models/m/infer", &length, body).await;
    assert_eq!(response.status(), 200, "{:?}", response.body());
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let split: usize =
        response.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(response.body()[split..], data[..]);
    let answer: Value = serde_json::from_slice(&response.body()[..split]).unwrap();
    assert_eq!(answer["outputs"][13]["parameters"]["binary_data_size"], two(Datatype::Bytes).len());

    let request = proto::ModelInferRequest {
        model_name: "m".into(),
        inputs: ALL
            .iter()
            .map(|(d, _)| proto::model_infer_request::InferInputTensor {
                name: format!("x_{d}"),
                datatype: d.name().into(),
                shape: vec![2],
                ..Default::default()
            })
            .collect(),
        raw_input_contents: ALL.iter().map(|(d, _)| two(*d).into()).collect(),
        ..Default::default()
    };
    let answer = grpc::connect(served.port()).await.model_infer(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, request.raw_input_contents);
}

#[tokio::test]
async fn every_type_with_a_json_form_passes_unchanged() {
    let types: Vec<(Datatype, i64)> = ALL.into_iter().filter(|(d, _)| !d.is_binary_only()).collect();
    let served = Served::new(&all_types(&types), &[]).await;
    let data = |d: &Datatype| match d {
        Datatype::Bool => json!([true, false]),
        Datatype::Bytes => json!(["ü", ""]),
        Datatype::Fp32 | Datatype::Fp64 => json!([1.5, -0.25]),
        Datatype::Int64 => json!([i64::MIN, 7]),
        Datatype::Uint64 => json!([u64::MAX, 7]),
        _ => json!([1, 7]),
    };
    let inputs: Vec<Value> = types
        .iter()
        .map(|(d, _)| json!({"name": format!("x_{d}"), "datatype": d.name(), "shape": [2], "data": data(d)}))
        .collect();
    let (status, answer) = infer(served.port(), &json!({"inputs": inputs})).await;
    assert_eq!(status, 200, "{answer}");
    for ((d, _), output) in types.iter().zip(answer["outputs"].as_array().unwrap()) {
        assert_eq!(
            output,
            &json!({"name": format!("y_{d}"), "datatype": d.name(), "shape": [2], "data": data(d)})
        );
    }
}

#[tokio::test]
async fn strings_with_nul_and_any_bytes_survive_typed_grpc() {
    let served = Served::new(&identity(types::STRING, &[-1]), &[]).await;
    let elements: Vec<Bytes> = bytes_elements(&two(Datatype::Bytes)).map(Bytes::copy_from_slice).collect();
    let request = proto::ModelInferRequest {
        model_name: "m".into(),
        model_version: "1".into(),
        id: "7".into(),
        inputs: vec![proto::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "BYTES".into(),
            shape: vec![2],
            contents: Some(proto::InferTensorContents {
                bytes_contents: elements.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = grpc::connect(served.port()).await.model_infer(request).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().bytes_contents, elements);
    assert_eq!(
        (answer.model_name.as_str(), answer.model_version.as_str(), answer.id.as_str()),
        ("m", "1", "7")
    );
}

#[tokio::test]
async fn dynamic_axes_empty_axes_and_chosen_outputs_work() {
    let served = Served::new(&add(), &[]).await;
    let (a, b) = (fp32("a", &[2, 2], json!([[1, 2], [3, 4]])), fp32("b", &[1, 2], json!([10, 20])));
    let (status, answer) =
        infer(served.port(), &json!({"inputs": [b, a], "outputs": [{"name": "sum"}]})).await;
    assert_eq!(status, 200, "{answer}");
    let sum = fp32("sum", &[2, 2], json!([11.0, 22.0, 13.0, 24.0]));
    assert_eq!(answer["outputs"], json!([sum]));

    let inputs = json!([fp32("a", &[0, 2], json!([])), fp32("b", &[1, 2], json!([1, 2]))]);
    let (status, answer) = infer(served.port(), &json!({"inputs": inputs})).await;
    let outputs = json!([fp32("sum", &[0, 2], json!([])), fp32("same", &[0, 2], json!([]))]);
    assert_eq!((status, &answer["outputs"]), (200, &outputs));

    let inputs = json!([fp32("a", &[2, 1], json!([1, 2])), fp32("b", &[3, 2], json!([1, 2, 3, 4, 5, 6]))]);
    let (status, answer) = infer(served.port(), &json!({"inputs": inputs})).await;
    assert_eq!(status, 400, "shapes that the model itself refuses: {answer}");
    assert!(!answer["error"].as_str().unwrap().contains("onnxruntime_src"), "{answer}");
}

#[tokio::test]
async fn a_scalar_and_an_output_that_is_an_input_work() {
    let passed = model(
        17,
        vec![node("Neg", "", &["x"], &["y"])],
        vec![value("x", types::FLOAT, &[])],
        vec![value("y", types::FLOAT, &[]), value("x", types::FLOAT, &[])],
    );
    let served = Served::new(&passed, &[]).await;
    let (status, answer) = infer(served.port(), &json!({"inputs": [fp32("x", &[], json!([2.5]))]})).await;
    let outputs = json!([fp32("y", &[], json!([-2.5])), fp32("x", &[], json!([2.5]))]);
    assert_eq!((status, &answer["outputs"]), (200, &outputs), "{answer}");
}

#[tokio::test]
async fn bad_requests_are_answered_with_a_status_and_a_sentence() {
    let served = Served::new(&add(), &["--max-request-bytes", "1000"]).await;
    let port = served.port();
    let json = |value: Value| value.to_string();
    let infer = "/v2/models/m/infer";
    let (a, b) = (fp32("a", &[1, 1], json!([1])), fp32("b", &[1, 1], json!([1])));
    let header = |name: &'static str, value: &str| vec![(name, value.to_string())];
    let cases = [
        (infer, vec![], "{".into(), 400, "the request is not JSON"),
        (
            infer,
            vec![],
            json(json!({"inputs": [a]})),
            400,
            "input \"b\" is missing: the model expects FP32 [-1,-1]",
        ),
        (infer, vec![], json(json!({"inputs": [a, a, b]})), 400, "input \"a\" is given twice"),
        (
            infer,
            vec![],
            json(json!({"inputs": [a, b], "outputs": [{"name": "z"}]})),
            400,
            "unknown output \"z\"",
        ),
        (infer, vec![], "x".repeat(1001), 413, "the request is larger than the limit of 1000 bytes"),
        (
            infer,
            header("content-type", "text/html"),
            "{}".into(),
            415,
            "content-type text/html is not supported",
        ),
        (infer, header("content-encoding", "br"), "{}".into(), 415, "content-encoding br is not supported"),
        (infer, header("inference-header-content-length", "x"), "{}".into(), 400, "is not a number"),
        (
            "/v2/models/other/infer",
            vec![],
            "{}".into(),
            404,
            "unknown model \"other\": this server has \"m\"",
        ),
        ("/v2/models/m/versions/9/infer", vec![], "{}".into(), 404, "model \"m\" has no version \"9\""),
        ("/v2/models/%2e%2e/infer", vec![], "{}".into(), 400, "not a model name"),
        ("/v2/models/a%2fb/infer", vec![], "{}".into(), 400, "not a model name"),
        ("/v2/nothing", vec![], "{}".into(), 404, "unknown path"),
        ("/v2/models/m", vec![], "{}".into(), 405, "this path does not take this method"),
    ];
    for (path, headers, body, status, message) in cases {
        let response = post(port, path, &headers, body).await;
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        let said = answer["error"].as_str().unwrap();
        assert_eq!(response.status(), status, "{path}: {said}");
        assert!(said.contains(message), "{path}\n said: {said}\n not: {message}");
    }
    let good = post(port, "/v2/models/m/versions/1/infer", &[], json(json!({"inputs": [a, b]}))).await;
    assert_eq!(good.status(), 200, "it still answers");
}

#[tokio::test]
async fn bad_grpc_requests_are_answered_with_a_code_and_a_sentence() {
    let served = Served::new(&add(), &["--max-request-bytes", "1000"]).await;
    let mut client = grpc::connect(served.port()).await;
    let request = |name: &str, version: &str, raw: usize| proto::ModelInferRequest {
        model_name: name.into(),
        model_version: version.into(),
        raw_input_contents: if raw == 0 { vec![] } else { vec![vec![0; raw].into()] },
        ..Default::default()
    };
    for (request, code, message) in [
        (request("other", "", 0), Code::NotFound, "unknown model \"other\": this server has \"m\""),
        (request("m", "9", 0), Code::NotFound, "model \"m\" has no version \"9\": this server has \"1\""),
        (
            request("m", "", 0),
            Code::InvalidArgument,
            "input \"a\" is missing: the model expects FP32 [-1,-1]",
        ),
        (request("m", "", 8), Code::InvalidArgument, "raw_input_contents has 1 entries for 0 inputs"),
        (request("m", "", 2000), Code::ResourceExhausted, "larger than the limit of 1000 bytes"),
    ] {
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(message), "{status}");
    }
}

#[tokio::test]
async fn metadata_and_health_are_answered_on_both_protocols() {
    let served = Served::new(&add(), &[]).await;
    let port = served.port();
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/versions/1/ready"]
    {
        assert_eq!(get(port, path).await.unwrap().0, 200, "{path}");
    }
    let (_, text) = get(port, "/v2").await.unwrap();
    let server: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&server["name"], &server["extensions"]), (&json!("modelwright"), &json!(EXTENSIONS)));
    let (_, text) = get(port, "/v2/models/m").await.unwrap();
    let tensor = |name: &str| json!({"name": name, "datatype": "FP32", "shape": [-1, -1]});
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        json!({"name": "m", "versions": ["1"], "platform": "onnxruntime_onnx",
               "inputs": [tensor("a"), tensor("b")], "outputs": [tensor("sum"), tensor("same")]})
    );

    let mut client = grpc::connect(port).await;
    assert!(client.server_live(proto::ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(proto::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let (name, version) = ("m".to_string(), String::new());
    let ready = proto::ModelReadyRequest { name: name.clone(), version: version.clone() };
    assert!(client.model_ready(ready).await.unwrap().into_inner().ready);
    let metadata =
        client.model_metadata(proto::ModelMetadataRequest { name, version }).await.unwrap().into_inner();
    assert_eq!(
        (metadata.platform.as_str(), metadata.inputs[0].shape.as_slice()),
        ("onnxruntime_onnx", &[-1, -1][..])
    );
    let server = client.server_metadata(proto::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(server.extensions, EXTENSIONS);
}

/// `x` times itself, often: some seconds for a few hundred columns.
fn slow(times: usize) -> Vec<u8> {
    let name = |i: usize| if i == times { "y".to_string() } else { format!("t{i}") };
    let mut nodes: Vec<Message> = vec![node("MatMul", "", &["x", "x"], &[&name(1)])];
    nodes.extend((1..times).map(|i| node("MatMul", "", &[&name(i), "x"], &[&name(i + 1)])));
    let square = |name: &str| value(name, types::FLOAT, &[-1, -1]);
    model(17, nodes, vec![square("x")], vec![square("y")])
}

fn square(columns: usize) -> (Vec<(&'static str, String)>, Vec<u8>) {
    let size = columns * columns * 4;
    let input = json!({"name": "x", "datatype": "FP32", "shape": [columns, columns],
                       "parameters": {"binary_data_size": size}});
    let header = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
    let body = [header.as_bytes(), &vec![0; size]].concat();
    (vec![("inference-header-content-length", header.len().to_string())], body)
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_told_so() {
    // Long enough for the body to arrive.
    let served = Served::new(&slow(400), &["--request-timeout-seconds", "3"]).await;
    let (headers, body) = square(1200);
    let response = post(served.port(), "/v2/models/m/infer", &headers, body.clone()).await;
    assert_eq!(response.status(), 504, "{:?}", response.body());
    assert_eq!(&response.body()[..], br#"{"error":"no answer within 3 s"}"#);

    let mut request = tonic::Request::new(proto::ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![proto::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![8, 8],
            ..Default::default()
        }],
        raw_input_contents: vec![vec![0; 256].into()],
        ..Default::default()
    });
    request.set_timeout(std::time::Duration::from_nanos(1));
    let status = grpc::connect(served.port()).await.model_infer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

/// CPU time of the threads that run the model, in clock ticks.
fn model_ticks(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let ticks = |stat: String| stat.rsplit(") ").next()?.split(' ').nth(11)?.parse::<u64>().ok();
    stats.filter(|stat| stat.contains("(onnxruntime-")).filter_map(ticks).sum()
}

#[tokio::test]
async fn a_request_that_runs_when_sigterm_comes_is_answered() {
    let mut served = Served::new(&slow(40), &[]).await;
    let port = served.port();
    let (headers, body) = square(800);
    let running = tokio::spawn(async move { post(port, "/v2/models/m/infer", &headers, body).await });
    until("the request runs", async || (model_ticks(served.process.pid()) > 1).then_some(())).await;
    served.process.signal("TERM");
    let response = running.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(served.process.ended().await, Some(0));
}

#[tokio::test]
async fn magika_answers_what_onnx_runtime_answers_when_called_directly() {
    let served = Served::at(&magika().join("model.onnx"), &[]).await;
    let values = magika_input();
    let direct = run_directly();
    assert_eq!(direct.len(), 2 * 214);

    let input = json!({"name": "bytes", "datatype": "INT32", "shape": [2, 2048], "data": values});
    let (status, answer) = infer(served.port(), &json!({"inputs": [input]})).await;
    assert_eq!(status, 200);
    let output = &answer["outputs"][0];
    assert_eq!((&output["name"], &output["shape"]), (&json!("target_label"), &json!([2, 214])));
    let data: Vec<f32> = serde_json::from_value(output["data"].clone()).unwrap();
    assert_eq!(data, direct);

    let request = proto::ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![proto::model_infer_request::InferInputTensor {
            name: "bytes".into(),
            datatype: "INT32".into(),
            shape: vec![2, 2048],
            ..Default::default()
        }],
        raw_input_contents: vec![values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()],
        ..Default::default()
    };
    let answer = grpc::connect(served.port()).await.model_infer(request).await.unwrap().into_inner();
    let data: Vec<f32> =
        answer.raw_output_contents[0].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(data, direct);
}

fn magika_input() -> Vec<i32> {
    (0..2 * 2048).map(|i| i * 7919 % 257).collect()
}

/// In a process of its own: ONNX Runtime's telemetry is switched off by the environment alone.
fn run_directly() -> Vec<f32> {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "direct", "--nocapture"])
        .env("ORT_DISABLE_TELEMETRY", "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("DIRECT ")).unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str(line).unwrap()
}

#[test]
#[ignore = "run by magika_answers_what_onnx_runtime_answers_when_called_directly"]
fn direct() {
    let environment = ort::init_from(onnxruntime()).unwrap().with_telemetry(false).build().unwrap();
    let mut session = ort::session::Session::builder(&environment)
        .unwrap()
        .commit_from_file(magika().join("model.onnx"))
        .unwrap();
    let input = ort::value::Tensor::from_array(([2, 2048], magika_input())).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    let (_, data) = outputs[0].try_extract_tensor::<f32>().unwrap();
    println!("\nDIRECT {}", serde_json::to_string(data).unwrap());
}

#[tokio::test]
async fn concurrent_requests_get_their_own_answers() {
    let served = Served::new(&add(), &[]).await;
    let port = served.port();
    let tasks = (0..32).map(|task| {
        tokio::spawn(async move {
            for round in 0..20 {
                let value = task * 100 + round;
                let inputs =
                    json!([fp32("a", &[1, 2], json!([value, 1])), fp32("b", &[1, 2], json!([0, value]))]);
                let (status, answer) = infer(port, &json!({"inputs": inputs})).await;
                let sum = [f64::from(value), f64::from(value + 1)];
                assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!(sum)));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_written_or_kept_open_outside_of_the_model() {
    let served = Served::new(&add(), &[]).await;
    let open: Vec<String> = fs::read_dir(format!("/proc/{}/fd", served.process.pid()))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .map(|path| path.display().to_string())
        .collect();
    assert!(!open.iter().any(|path| path.contains("onnxruntime.db")), "telemetry is off: {open:?}");
}
