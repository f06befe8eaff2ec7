//! gRPC messages, from bytes: what a client library would not send.

use bytes::{BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use modelwright::protocol::grpc::proto::infer_parameter::ParameterChoice;
use modelwright::protocol::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use modelwright::protocol::grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest};
use prost::Message;
use tokio::net::TcpStream;
use tonic::Code::{self, InvalidArgument, NotFound, ResourceExhausted, Unimplemented};

use crate::support::DEADLINE;
use crate::table::{Answer, LIMIT, Target, refuses};

/// One call: path, headers, body.
pub struct Call {
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// A body of one message.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.put_u32(message.len() as u32);
    body.extend(message);
    body
}

fn to(method: &str, body: Vec<u8>) -> Call {
    Call { path: format!("/inference.GRPCInferenceService/{method}"), headers: vec![], body }
}

pub fn infer(message: &[u8]) -> Call {
    to("ModelInfer", framed(message))
}

fn with(header: &'static str, value: &str) -> Call {
    let mut call = infer(&request(vec![x("FP32", &[1, 2])], &[8]).encode_to_vec());
    call.headers.push((header, value.into()));
    call
}

pub fn x(datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.into(),
        ..Default::default()
    }
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> Call {
    let input = InferInputTensor { contents: Some(contents), ..x(datatype, shape) };
    infer(&request(vec![input], &[]).encode_to_vec())
}

/// `raw`: how many bytes of zeros each raw entry has.
pub fn request(inputs: Vec<InferInputTensor>, raw: &[usize]) -> ModelInferRequest {
    let raw_input_contents = raw.iter().map(|size| vec![0; *size].into()).collect();
    ModelInferRequest { model_name: "m".into(), inputs, raw_input_contents, ..Default::default() }
}

fn raw(datatype: &str, shape: &[i64], data: &[u8]) -> Call {
    let mut request = request(vec![x(datatype, shape)], &[]);
    request.raw_input_contents = vec![Bytes::copy_from_slice(data)];
    infer(&request.encode_to_vec())
}

pub async fn exchange(port: u16, call: Call) -> Answer<Code> {
    let answer = tokio::time::timeout(DEADLINE, send(port, call)).await;
    answer.unwrap_or_else(|_| Answer { status: Code::Ok, text: format!("nothing within {DEADLINE:?}") })
}

async fn send(port: u16, call: Call) -> Answer<Code> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://m{}", call.path)).header("te", "trailers");
    if !call.headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    let response = match sender.send_request(request.body(Full::new(Bytes::from(call.body))).unwrap()).await {
        Ok(response) => response,
        Err(e) => return Answer { status: Code::Cancelled, text: e.to_string() },
    };
    let (head, body) = response.into_parts();
    let trailers = match body.collect().await {
        Ok(body) => body.trailers().cloned().unwrap_or_default(),
        Err(e) => return Answer { status: Code::Cancelled, text: e.to_string() },
    };
    let find = |name| trailers.get(name).or(head.headers.get(name)).cloned();
    let status = match find("grpc-status") {
        Some(code) => Code::from_bytes(code.as_bytes()),
        None => {
            return Answer { status: Code::Cancelled, text: format!("no grpc-status, HTTP {}", head.status) };
        }
    };
    // tonic reads the percent signs of the message.
    let mut headers = HeaderMap::new();
    headers.extend(
        ["grpc-status", "grpc-message"].map(|n| (n.parse().ok(), find(n).unwrap_or("".parse().unwrap()))),
    );
    let text = tonic::Status::from_header_map(&headers).map(|s| s.message().to_string()).unwrap_or_default();
    Answer { status, text }
}

#[tokio::test]
async fn frames_that_are_no_messages_are_refused() {
    let target = Target::new(&[]).await;
    let good = request(vec![x("FP32", &[1, 2])], &[8]).encode_to_vec();
    let length = |length: u32, rest: &[u8]| [&[0][..], &length.to_be_bytes(), rest].concat();
    let compressed = |flag: u8| [&[flag][..], &framed(&good)[1..]].concat();
    let call = |body: Vec<u8>| to("ModelInfer", body);
    let cases: Vec<(&str, Call, Code, &str)> = vec![
        ("nothing", call(vec![]), Code::Internal, ""),
        ("half a prefix", call(vec![0, 0, 0]), Code::Internal, ""),
        ("less than announced", call(length(100, &good)), InvalidArgument, "the message announces 100 bytes"),
        (
            "the largest message",
            call(length(u32::MAX, &good)),
            ResourceExhausted,
            "larger than the limit of 4194304 bytes",
        ),
        (
            "one above the limit",
            call(length(LIMIT as u32 + 1, &[0; 100])),
            ResourceExhausted,
            "larger than the limit of 4194304 bytes",
        ),
        (
            "a body above the limit",
            call(framed(&vec![0; LIMIT + 1])),
            ResourceExhausted,
            "larger than the limit of 4194304 bytes",
        ),
        (
            "two messages",
            call([framed(&good), framed(&good)].concat()),
            InvalidArgument,
            "the message announces",
        ),
        ("compressed without a coding", call(compressed(1)), Code::Internal, ""),
        ("an unknown flag", call(compressed(7)), Code::Internal, ""),
        ("no protobuf", infer(&[0xff; 100]), InvalidArgument, "the message is damaged"),
        ("truncated protobuf", infer(&good[..good.len() - 3]), InvalidArgument, "the message is damaged"),
        ("a name that is not UTF-8", infer(&[0x0a, 2, 0xff, 0xfe]), Code::Internal, ""),
        ("a group", infer(&[0x0b, 0x0c]), InvalidArgument, "the message is damaged"),
        ("a field of zero", infer(&[0x02, 0]), Code::Internal, ""),
        ("an endless number", infer(&[0xff; 11]), InvalidArgument, "the message is damaged"),
        ("JSON", infer(br#"{"model_name":"m"}"#), InvalidArgument, "the message is damaged"),
        ("an unknown method", to("ModelDelete", framed(&[])), Unimplemented, ""),
        (
            "an unknown service",
            Call { path: "/x.Y/Z".into(), headers: vec![], body: framed(&[]) },
            Unimplemented,
            "",
        ),
        ("an unknown coding", with("grpc-encoding", "brotli"), Unimplemented, ""),
    ];
    refuses(&target, cases, exchange).await;
}

#[tokio::test]
async fn what_would_change_the_server_is_unimplemented() {
    let target = Target::new(&[]).await;
    let methods = [
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
        "ModelStreamInfer",
    ];
    let cases = methods.map(|method| (method, to(method, framed(&[])), Unimplemented, "")).into();
    refuses(&target, cases, exchange).await;
}

#[tokio::test]
async fn tensors_that_contradict_themselves_are_refused() {
    let target = Target::new(&[]).await;
    let floats = |n: usize| InferTensorContents { fp32_contents: vec![1.0; n], ..Default::default() };
    let ints = |v: i32| InferTensorContents { int_contents: vec![v], ..Default::default() };
    let uints = |v: u32| InferTensorContents { uint_contents: vec![v], ..Default::default() };
    let both = InferTensorContents { int_contents: vec![1], ..floats(2) };
    let mixed = {
        let input = InferInputTensor { contents: Some(floats(2)), ..x("FP32", &[1, 2]) };
        infer(&request(vec![input], &[8]).encode_to_vec())
    };
    let some = |inputs: Vec<InferInputTensor>, raw: &[usize]| infer(&request(inputs, raw).encode_to_vec());
    let bytes = |shape: &[i64], length: u32, rest: &[u8]| {
        raw("BYTES", shape, &[&length.to_le_bytes(), rest].concat())
    };
    let cases: Vec<(&str, Call, Code, &str)> = vec![
        (
            "an unknown datatype",
            raw("FLOAT", &[1, 2], &[0; 8]),
            InvalidArgument,
            "unknown datatype \"FLOAT\"",
        ),
        ("no datatype", raw("", &[1, 2], &[0; 8]), InvalidArgument, "unknown datatype \"\""),
        (
            "a datatype of 1 MiB",
            raw(&"x".repeat(1 << 20), &[1, 2], &[0; 8]),
            InvalidArgument,
            "unknown datatype",
        ),
        ("a negative axis", raw("FP32", &[-1, 2], &[0; 8]), InvalidArgument, "has a negative axis"),
        ("the smallest axis", raw("FP32", &[i64::MIN], &[0; 8]), InvalidArgument, "has a negative axis"),
        (
            "a product that overflows",
            raw("FP32", &[1 << 62, 4], &[0; 8]),
            InvalidArgument,
            "than can be addressed",
        ),
        (
            "an overflow behind a zero",
            raw("FP32", &[0, 1 << 62, 4], &[]),
            InvalidArgument,
            "than can be addressed",
        ),
        ("33 axes", raw("FP32", &[1; 33], &[0; 4]), InvalidArgument, "33 axes are more than 32"),
        ("a million axes", raw("FP32", &vec![1; 1 << 20], &[0; 4]), InvalidArgument, "more than 32 axes"),
        (
            "no axes",
            raw("FP32", &[], &[0; 4]),
            InvalidArgument,
            "input \"x\" is FP32 [], the model expects FP32 [-1,2]",
        ),
        ("too little raw data", raw("FP32", &[1, 2], &[0; 7]), InvalidArgument, "8 bytes, but 7 bytes came"),
        ("too much raw data", raw("FP32", &[1, 2], &[0; 9]), InvalidArgument, "8 bytes, but 9 bytes came"),
        ("too few floats", typed("FP32", &[1, 2], floats(1)), InvalidArgument, "8 bytes, but 4 bytes came"),
        ("no contents", some(vec![x("FP32", &[1, 2])], &[]), InvalidArgument, "8 bytes, but 0 bytes came"),
        (
            "floats as INT32",
            typed("INT32", &[1, 2], floats(2)),
            InvalidArgument,
            "INT32 belongs into int_contents",
        ),
        ("floats and integers", typed("FP32", &[1, 2], both), InvalidArgument, "but int_contents is filled"),
        ("128 as INT8", typed("INT8", &[1], ints(128)), InvalidArgument, "128 does not fit INT8"),
        (
            "-32769 as INT16",
            typed("INT16", &[1], ints(-32_769)),
            InvalidArgument,
            "-32769 does not fit INT16",
        ),
        ("256 as UINT8", typed("UINT8", &[1], uints(256)), InvalidArgument, "256 does not fit UINT8"),
        ("typed FP16", typed("FP16", &[1], floats(1)), InvalidArgument, "FP16 has no typed contents"),
        (
            "typed BF16",
            typed("BF16", &[1], InferTensorContents::default()),
            InvalidArgument,
            "BF16 has no typed contents",
        ),
        ("raw and typed", mixed, InvalidArgument, "has both contents and raw_input_contents"),
        (
            "two raw entries for one input",
            some(vec![x("FP32", &[1, 2])], &[8, 8]),
            InvalidArgument,
            "has 2 entries for 1 inputs",
        ),
        (
            "one raw entry for two inputs",
            some(vec![x("FP32", &[1, 2]), x("FP32", &[1, 2])], &[8]),
            InvalidArgument,
            "has 1 entries for 2 inputs",
        ),
        ("a BOOL of 2", raw("BOOL", &[1], &[2]), InvalidArgument, "a BOOL byte is neither 0 nor 1"),
        (
            "a string of 4 GiB",
            bytes(&[1], u32::MAX, b"abc"),
            InvalidArgument,
            "element 0 reaches beyond the data",
        ),
        (
            "a string without its length",
            raw("BYTES", &[1], b"abc"),
            InvalidArgument,
            "element 0 reaches beyond the data",
        ),
        (
            "more strings than the shape",
            bytes(&[1], 0, &[0; 4]),
            InvalidArgument,
            "has 1 elements, but 2 came",
        ),
        (
            "fewer strings than the shape",
            bytes(&[3], 0, &[0; 4]),
            InvalidArgument,
            "has 3 elements, but 2 came",
        ),
    ];
    refuses(&target, cases, exchange).await;
}

#[tokio::test]
async fn requests_that_the_model_does_not_know_are_refused() {
    let target = Target::new(&[]).await;
    let good = || x("FP32", &[1, 2]);
    let some = |inputs: Vec<InferInputTensor>| {
        let raw = vec![8; inputs.len()];
        request(inputs, &raw)
    };
    let named = |name: &str| InferInputTensor { name: name.into(), ..good() };
    let model = |name: &str, version: &str| {
        let request = some(vec![good()]);
        infer(
            &ModelInferRequest { model_name: name.into(), model_version: version.into(), ..request }
                .encode_to_vec(),
        )
    };
    let outputs = |names: Vec<&str>| {
        let output = |n: &str| InferRequestedOutputTensor { name: n.into(), ..Default::default() };
        let outputs = names.into_iter().map(output).collect();
        infer(&ModelInferRequest { outputs, ..some(vec![good()]) }.encode_to_vec())
    };
    let inputs = |inputs: Vec<InferInputTensor>| infer(&some(inputs).encode_to_vec());
    let long = "n".repeat(1 << 20);
    let cases: Vec<(&str, Call, Code, &str)> = vec![
        ("no name", model("", ""), InvalidArgument, "not a model name"),
        ("a path", model("../x", ""), InvalidArgument, "not a model name"),
        ("a name of 1 MiB", model(&long, ""), InvalidArgument, "not a model name"),
        ("NUL in the name", model("m\0", ""), InvalidArgument, "not a model name"),
        ("another model", model("other", ""), NotFound, "unknown model \"other\": this server has \"m\""),
        (
            "another version",
            model("m", "2"),
            NotFound,
            "model \"m\" has no version \"2\": this server has \"1\"",
        ),
        ("a version of 1 MiB", model("m", &long), NotFound, "has no version \"nnn"),
        (
            "no input at all",
            inputs(vec![]),
            InvalidArgument,
            "input \"x\" is missing: the model expects FP32 [-1,2]",
        ),
        ("an unknown input", inputs(vec![good(), named("z")]), InvalidArgument, "unknown input \"z\""),
        ("an input of 1 MiB", inputs(vec![good(), named(&long)]), InvalidArgument, "unknown input \"nnn"),
        (
            "an input with a line break",
            inputs(vec![good(), named("a\nb")]),
            InvalidArgument,
            "unknown input \"a\\nb\"",
        ),
        (
            "an input that is no ASCII",
            inputs(vec![good(), named("ü\u{202e}")]),
            InvalidArgument,
            "unknown input \"ü",
        ),
        ("an input twice", inputs(vec![good(), good()]), InvalidArgument, "input \"x\" is given twice"),
        (
            "another datatype",
            infer(&request(vec![x("FP64", &[1, 2])], &[16]).encode_to_vec()),
            InvalidArgument,
            "is FP64 [1,2], the model expects FP32 [-1,2]",
        ),
        ("an unknown output", outputs(vec!["z"]), InvalidArgument, "unknown output \"z\""),
        ("10,000 outputs", outputs(vec!["y"; 10_000]), InvalidArgument, ""),
        ("a deadline that is a word", with("grpc-timeout", "soon"), Code::Ok, ""),
        ("a deadline of nothing", with("grpc-timeout", "0n"), Code::DeadlineExceeded, "no answer within"),
        ("the longest deadline", with("grpc-timeout", "99999999H"), Code::Ok, ""),
        ("a deadline that is too long to be one", with("grpc-timeout", "999999999999H"), Code::Ok, ""),
    ];
    refuses(&target, cases, exchange).await;
}

#[tokio::test]
async fn what_is_small_to_send_is_not_large_to_hold() {
    let target = Target::new(&[]).await;
    let most = LIMIT - 1000;
    // An empty message: its field's tag, its length.
    let empty = |field: u8| infer(&[field << 3 | 2, 0].repeat(most / 2));
    let nested = |head: &[u8], item: &[u8]| {
        let mut message = head.to_vec();
        let items = item.repeat(most / item.len());
        prost::encoding::encode_varint(items.len() as u64, &mut message);
        message.extend(items);
        infer(&message)
    };
    let parameters = {
        let entry = |i: usize| {
            (format!("{i:x}"), InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) })
        };
        let parameters = (0..most / 14).map(entry).collect();
        infer(&ModelInferRequest { parameters, ..request(vec![], &[]) }.encode_to_vec())
    };
    let strings = {
        let mut contents = vec![];
        let items = [0x42, 0].repeat(most / 2);
        contents.extend([0x2a]);
        prost::encoding::encode_varint(items.len() as u64, &mut contents);
        contents.extend(items);
        let mut message = vec![0x2a];
        prost::encoding::encode_varint(contents.len() as u64, &mut message);
        message.extend(contents);
        infer(&message)
    };
    let cases: Vec<(&str, Call, Code, &str)> = vec![
        ("as many inputs as fit", empty(5), InvalidArgument, ""),
        ("as many outputs as fit", empty(6), InvalidArgument, ""),
        ("as many raw entries as fit", empty(7), InvalidArgument, ""),
        ("as many parameters as fit", parameters, InvalidArgument, ""),
        ("as many parameters of an input as fit", nested(&[0x2a], &[0x22, 0]), InvalidArgument, ""),
        ("as many strings as fit", strings, InvalidArgument, ""),
        ("as many axes as fit", nested(&[0x2a], &[0x18, 1]), InvalidArgument, ""),
    ];
    refuses(&target, cases, exchange).await;
}
