//! Triton's extensions, compression, and gRPC's own services, against the real binary and the real ONNX Runtime.
#![cfg(feature = "server")]

#[path = "server_support/mod.rs"]
mod support;

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use http_body_util::Full;
use hyper::Request;
use modelwright::protocol::grpc::proto;
use serde_json::{Value, json};
use support::onnx::{add, identity, types};
use support::*;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn read(port: u16, path: &str) -> Value {
    let (status, text) = get(port, path).await.unwrap();
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn ones(count: usize) -> Value {
    json!({"inputs": [fp32("x", &[count as i64], json!(vec![1; count]))], "id": "one"})
}

fn typed(count: usize) -> proto::ModelInferRequest {
    proto::ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![proto::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![count as i64],
            ..Default::default()
        }],
        raw_input_contents: vec![1f32.to_le_bytes().repeat(count).into()],
        ..Default::default()
    }
}

#[tokio::test]
async fn the_model_s_configuration_is_the_same_on_both_protocols() {
    let served = Served::new(&add(), &[]).await;
    let tensor = |name: &str| json!({"name": name, "data_type": "TYPE_FP32", "dims": [-1]});
    for path in ["/v2/models/m/config", "/v2/models/m/versions/1/config"] {
        let config = read(served.port(), path).await;
        assert_eq!((&config["name"], &config["backend"]), (&json!("m"), &json!("onnxruntime")));
        assert_eq!(config["input"], json!([tensor("a"), tensor("b")]));
        assert_eq!(config["output"], json!([tensor("sum"), tensor("same")]));
        assert_eq!(config["max_batch_size"], 64, "the axis of the batch stands before the dims");
    }
    let mut client = grpc::connect(served.port()).await;
    let request = proto::ModelConfigRequest { name: "m".into(), version: String::new() };
    let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.name.as_str(), config.platform.as_str()), ("m", "onnxruntime_onnx"));
    assert_eq!(config.input[1].data_type(), proto::DataType::TypeFp32);
    assert_eq!(config.output[0].dims, [-1]);
    let request = proto::ModelConfigRequest { name: "m".into(), version: "2".into() };
    assert_eq!(client.model_config(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn statistics_count_requests_and_runs_of_both_protocols() {
    let served = Served::new(&identity(types::FLOAT, &[4]), &[]).await;
    let mut client = grpc::connect(served.port()).await;
    for _ in 0..3 {
        assert_eq!(infer(served.port(), &ones(4)).await.0, 200);
    }
    client.model_infer(typed(4)).await.unwrap();
    assert_eq!(infer(served.port(), &json!({"inputs": []})).await.0, 400);

    for path in ["/v2/models/stats", "/v2/models/m/stats", "/v2/models/m/versions/1/stats"] {
        let answer = read(served.port(), path).await;
        let model = &answer["model_stats"][0];
        assert_eq!((&model["name"], &model["version"]), (&json!("m"), &json!("1")));
        assert_eq!((&model["inference_count"], &model["execution_count"]), (&json!(4), &json!(4)), "{model}");
        let stats = &model["inference_stats"];
        assert_eq!((&stats["success"]["count"], &stats["fail"]["count"]), (&json!(4), &json!(1)));
        assert_eq!(stats["compute_infer"]["count"], 4);
        for part in ["success", "compute_input", "compute_infer", "compute_output"] {
            assert!(stats[part]["ns"].as_u64().unwrap() > 0, "{part} took no time: {stats}");
        }
        assert_eq!(model["batch_stats"][0]["batch_size"], 1);
    }
    let all = client.model_statistics(proto::ModelStatisticsRequest::default()).await.unwrap().into_inner();
    let stats = all.model_stats[0].inference_stats.as_ref().unwrap();
    assert_eq!(stats.success.as_ref().unwrap().count, 4);
    let other = proto::ModelStatisticsRequest { name: "other".into(), version: String::new() };
    assert_eq!(client.model_statistics(other).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_repository_is_listed_but_not_changed() {
    let served = Served::new(&add(), &[]).await;
    let index = json!([{"name": "m", "version": "1", "state": "READY", "reason": ""}]);
    for body in ["", "{}", r#"{"ready":true}"#] {
        let response = post(served.port(), "/v2/repository/index", &[], body).await;
        assert_eq!(serde_json::from_slice::<Value>(response.body()).unwrap(), index, "{body}");
    }
    let response = post(served.port(), "/v2/repository/index", &[], r#"{"ready":3}"#).await;
    assert_eq!(response.status(), 400);
    let mut client = grpc::connect(served.port()).await;
    let models =
        client.repository_index(proto::RepositoryIndexRequest::default()).await.unwrap().into_inner().models;
    assert_eq!((models[0].name.as_str(), models[0].state.as_str()), ("m", "READY"));
}

#[tokio::test]
async fn what_is_not_supported_is_refused_with_what_to_do_instead() {
    let served = Served::new(&add(), &[]).await;
    for (path, said) in [
        ("/v2/repository/models/m/load", "change the ModelDeployment"),
        ("/v2/systemsharedmemory/region/r/register", "send tensors as binary data"),
        ("/v2/cudasharedmemory/status", "send tensors as binary data"),
        ("/v2/models/m/trace/setting", "when the server starts"),
        ("/v2/logging", "RUST_LOG"),
        ("/v2/models/m/generate", "send tensors to infer"),
    ] {
        let response = post(served.port(), path, &[], "{}").await;
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{path}: {answer}");
    }
    for (method, said) in [
        ("ModelStreamInfer", "call ModelInfer"),
        ("RepositoryModelLoad", "change the ModelDeployment"),
        ("RepositoryModelUnload", "change the ModelDeployment"),
        ("SystemSharedMemoryStatus", "raw contents"),
        ("CudaSharedMemoryRegister", "raw contents"),
        ("TraceSetting", "when the server starts"),
        ("LogSettings", "RUST_LOG"),
    ] {
        let (status, message) = grpc_call(served.port(), method).await;
        assert_eq!(status, "12", "{method} is unimplemented");
        assert!(message.contains(said), "{method}: {message}");
    }
    let input = json!({"name": "a", "datatype": "FP32", "shape": [1, 1],
                       "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4}});
    let (status, answer) = infer(served.port(), &json!({"inputs": [input]})).await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("send tensors in the request"), "{answer}");
}

/// The status and the message of a method that the generated client does not have.
async fn grpc_call(port: u16, method: &str) -> (String, String) {
    let (channel, origin, _) = grpc::channel(port).await;
    let request = Request::post(format!("{origin}inference.GRPCInferenceService/{method}"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(Full::new(Bytes::from_static(&[0; 5]))))
        .unwrap();
    let response = tower::ServiceExt::oneshot(channel, request).await.unwrap();
    let text = |name| response.headers()[name].to_str().unwrap().replace("%20", " ");
    (text("grpc-status"), text("grpc-message"))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_are_unpacked_and_answers_packed_as_the_client_says() {
    let served = Served::new(&identity(types::FLOAT, &[-1]), &["--max-request-bytes", "1000000"]).await;
    let request = ones(1000).to_string();
    let header = |name: &'static str, value: &str| (name, value.to_string());
    for (encoding, body) in [("gzip", gzip(request.as_bytes())), ("deflate", zlib(request.as_bytes()))] {
        assert!(body.len() < request.len() / 4);
        let headers = [header("content-encoding", encoding), header("accept-encoding", encoding)];
        let response = post(served.port(), "/v2/models/m/infer", &headers, body.clone()).await;
        assert_eq!(response.status(), 200, "{:?}", response.body());
        assert_eq!(response.headers()["content-encoding"], encoding);
        let mut text = String::new();
        match encoding {
            "gzip" => flate2::read::GzDecoder::new(&response.body()[..]).read_to_string(&mut text).unwrap(),
            _ => flate2::read::ZlibDecoder::new(&response.body()[..]).read_to_string(&mut text).unwrap(),
        };
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["outputs"][0]["data"].as_array().unwrap().len(), 1000);

        let response = post(served.port(), "/v2/models/m/infer", &headers[..1], body).await;
        assert!(!response.headers().contains_key("content-encoding"), "nobody asked for a packed answer");
    }
    let bomb = gzip(&vec![b' '; 100_000_000]);
    assert!(bomb.len() < 1_000_000);
    let response =
        post(served.port(), "/v2/models/m/infer", &[header("content-encoding", "gzip")], bomb).await;
    assert_eq!(response.status(), 413, "{:?}", response.body());
    let response =
        post(served.port(), "/v2/models/m/infer", &[header("content-encoding", "gzip")], request).await;
    assert_eq!(response.status(), 400);
    assert_eq!(&response.body()[..], br#"{"error":"the body is not gzip, as content-encoding says"}"#);
    assert_eq!(infer(served.port(), &ones(1)).await.0, 200, "it still answers");
}

#[tokio::test]
async fn grpc_messages_are_compressed_where_the_client_does() {
    let served = Served::new(&identity(types::FLOAT, &[-1]), &["--max-request-bytes", "1000000"]).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client =
            grpc::connect(served.port()).await.send_compressed(encoding).accept_compressed(encoding);
        let response = client.model_infer(typed(1000)).await.unwrap();
        assert_eq!(response.metadata().get("grpc-encoding").unwrap(), encoding.to_string().as_str());
        assert_eq!(response.into_inner().raw_output_contents[0].len(), 4000);

        let status = client.model_infer(typed(1_000_000)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "it unpacks to more than the limit: {status}");

        let mut plain = grpc::connect(served.port()).await.accept_compressed(encoding);
        let response = plain.model_infer(typed(1000)).await.unwrap();
        assert!(response.metadata().get("grpc-encoding").is_none(), "the request was not compressed");
    }
}

#[tokio::test]
async fn a_request_s_own_timeout_shortens_the_server_s() {
    let served = Served::new(&identity(types::FLOAT, &[-1]), &[]).await;
    let mut request = ones(1);
    request["parameters"] = json!({"timeout": 1});
    let (status, answer) = infer(served.port(), &request).await;
    assert_eq!(status, 504, "{answer}");
    request["parameters"] = json!({"timeout": "soon"});
    let (status, answer) = infer(served.port(), &request).await;
    assert_eq!(status, 400, "{answer}");
    request["parameters"] = json!({"timeout": 20_000_000, "priority": 1, "unknown": "x"});
    assert_eq!(infer(served.port(), &request).await.0, 200);

    let mut message = typed(1);
    let choice = proto::infer_parameter::ParameterChoice::Int64Param(1);
    message.parameters.insert("timeout".into(), proto::InferParameter { parameter_choice: Some(choice) });
    let status = grpc::connect(served.port()).await.model_infer(message).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn grpc_health_is_answered_and_watched_until_the_server_closes() {
    let mut served = Served::new(&add(), &[]).await;
    let (channel, origin, _connection) = grpc::channel(served.port()).await;
    let mut client = HealthClient::with_origin(channel, origin);
    for service in ["", "m", "inference.GRPCInferenceService"] {
        let answer = client.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{service:?} is serving");
    }
    let unknown = client.check(HealthCheckRequest { service: "other".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    let mut watched = client.watch(HealthCheckRequest { service: "m".into() }).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    served.process.signal("TERM");
    let ended = tokio::time::timeout(DEADLINE, watched.message()).await;
    let status = ended.expect("it ends with the server").unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(served.process.ended().await, Some(0));
}

#[tokio::test]
async fn grpc_reflection_names_the_services_and_describes_their_messages() {
    let served = Served::new(&add(), &[]).await;
    let (channel, origin, _connection) = grpc::channel(served.port()).await;
    let mut client = ServerReflectionClient::with_origin(channel, origin);
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("inference.ModelStatistics".into())),
    ];
    let mut answers =
        client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(services)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<&str> = services.service.iter().map(|s| s.name.as_str()).collect();
    for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let Some(MessageResponse::FileDescriptorResponse(files)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no file")
    };
    assert_eq!(files.file_descriptor_proto.len(), 1);
}

#[tokio::test]
async fn the_openapi_document_names_every_path_and_no_other() {
    let served = Served::new(&identity(types::FLOAT, &[-1]), &[]).await;
    let document = read(served.port(), "/v2/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().unwrap() {
        let real = path.replace("{name}", "m").replace("{version}", "1");
        for method in operations.as_object().unwrap().keys().filter(|k| *k != "parameters") {
            let request = Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(&real)
                .header("host", "localhost")
                .body(Full::from(if real.ends_with("infer") { ones(1).to_string() } else { String::new() }))
                .unwrap();
            let response = try_send(served.port(), request).await.unwrap();
            assert_eq!(response.status(), 200, "{method} {real}");
        }
        let other = if real.ends_with("infer") || real.ends_with("index") { "GET" } else { "POST" };
        let request = Request::builder()
            .method(other)
            .uri(&real)
            .header("host", "localhost")
            .body(Full::default())
            .unwrap();
        let response = try_send(served.port(), request).await.unwrap();
        assert_eq!(response.status(), 405, "{other} {real}");
        assert!(response.headers().contains_key("allow"), "{other} {real}");
    }
}
