//! A model whose answer tells who gave it, and to which question: `y = x + version · 2^40` of INT64 [batch, 448].
//!
//! Every request has its own numbers, so an answer that belongs to another one is noticed, and one of a version names it.
//! Integers: exact, whatever shares the batch.

use bytes::{BufMut, Bytes, BytesMut};
use modelwright::protocol::grpc::proto;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[path = "../../src/onnx/fixture.rs"]
#[allow(dead_code, clippy::duplicate_mod)] // other helpers of a test may have it too
mod fixture;

/// 3.6 kB, like a short clip of sound.
const WIDTH: i64 = 448;
const PER_REQUEST: i64 = 512;
const PER_VERSION: i64 = 1 << 40;
const INT64: i64 = 7;

/// Versions from here on load, and answer no request but the warm-up's zeros: they ask for more memory than there is.
pub const FAILS: i64 = 1 << 20;

/// Versions from here on hold this much memory while they serve; their files are as small as others'.
pub const HEAVY: i64 = 1 << 10;
const HEAVY_BYTES: i64 = 160 << 20;

/// The file of a version, from 1.
pub fn model(version: i64) -> Vec<u8> {
    of_operator("Add", version)
}

/// One of the same inputs and outputs that no server can load.
#[allow(dead_code)] // the bench breaks nothing
pub fn broken() -> Vec<u8> {
    of_operator("Frobnicate", 1)
}

fn of_operator(operator: &str, version: i64) -> Vec<u8> {
    use fixture::{msg, opset, value};
    let constant =
        |name: &str, number: i64| msg().int(1, 1).int(2, INT64).text(8, name).bytes(9, &number.to_le_bytes());
    let node = |operator: &str, inputs: &[&str], output: &str| {
        let node = inputs.iter().fold(msg(), |node, input| node.text(1, input));
        node.text(2, output).text(4, operator)
    };
    let float = || msg().text(1, "to").int(3, INT64).int(20, 2);
    let mut graph = msg().msg(1, node(operator, &["x", "shift"], if version < HEAVY { "y" } else { "sum" }));
    if (HEAVY..FAILS).contains(&version) {
        // ONNX Runtime makes the table when it loads the model. Which of its zeros is taken depends on the request.
        graph = graph
            .msg(1, node("ConstantOfShape", &["size"], "table"))
            .msg(1, node("ReduceMax", &["x"], "max"))
            .msg(1, node("Mod", &["max", "size"], "index"))
            .msg(1, node("Gather", &["table", "index"], "nothing"))
            .msg(1, node("Cast", &["nothing"], "zero").msg(5, float()))
            .msg(1, node("Add", &["sum", "zero"], "y"))
            .msg(5, constant("size", HEAVY_BYTES / 4));
    } else if version >= FAILS {
        // Zero elements for the zeros of a warm-up, a trillion for the first request.
        graph = graph
            .msg(1, node("ReduceMax", &["x"], "max"))
            .msg(1, node("Reshape", &["max", "one"], "flat"))
            .msg(1, node("Div", &["flat", "few"], "hundreds"))
            .msg(1, node("Mul", &["hundreds", "many"], "size"))
            .msg(1, node("ConstantOfShape", &["size"], "huge"))
            .msg(1, node("ReduceSum", &["huge"], "nothing"))
            .msg(1, node("Cast", &["nothing"], "zero").msg(5, float()))
            .msg(1, node("Reshape", &["zero", "one"], "none"))
            .msg(1, node("Add", &["sum", "none"], "y"))
            .msg(5, constant("one", 1))
            .msg(5, constant("few", PER_REQUEST))
            .msg(5, constant("many", 1 << 40));
    }
    let graph = graph
        .text(2, "g")
        .msg(5, constant("shift", version * PER_VERSION))
        .msg(11, value("x", INT64, &[-1, WIDTH]))
        .msg(12, value("y", INT64, &[-1, WIDTH]));
    msg().int(1, 8).text(2, "ledger").msg(7, graph).msg(8, opset("", 17)).0
}

/// As the response header has it.
pub fn digest(version: i64) -> String {
    let hash: String = Sha256::digest(model(version)).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

fn tensor(nonce: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(WIDTH as usize * 8);
    for i in 0..WIDTH {
        bytes.put_i64_le(nonce as i64 * PER_REQUEST + i);
    }
    bytes.freeze()
}

/// The body, and how much of it is JSON.
pub fn rest(nonce: u64) -> (Bytes, usize) {
    let tensor = tensor(nonce);
    let head = json!({
        "id": nonce.to_string(),
        "inputs": [{
            "name": "x", "shape": [1, WIDTH], "datatype": "INT64",
            "parameters": { "binary_data_size": tensor.len() },
        }],
        "outputs": [{ "name": "y", "parameters": { "binary_data": true } }],
    })
    .to_string();
    (Bytes::from([head.as_bytes(), &tensor].concat()), head.len())
}

/// The message with its length before it.
pub fn grpc(nonce: u64, name: &str) -> Bytes {
    let message = proto::ModelInferRequest {
        model_name: name.into(),
        id: nonce.to_string(),
        inputs: vec![proto::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "INT64".into(),
            shape: vec![1, WIDTH],
            ..Default::default()
        }],
        raw_input_contents: vec![tensor(nonce)],
        ..Default::default()
    };
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(length + 5);
    body.put_u8(0);
    body.put_u32(length as u32);
    message.encode(&mut body).expect("it fits");
    body.freeze()
}

/// Which version has answered.
///
/// # Errors
/// It is not the answer to this question.
pub fn rest_answer(nonce: u64, body: &Bytes, json_length: Option<usize>) -> Result<i64, String> {
    let length = json_length.ok_or("no inference-header-content-length")?;
    if length > body.len() {
        return Err(format!("{length} bytes of JSON in {}", body.len()));
    }
    let head: Value = serde_json::from_slice(&body[..length]).map_err(|e| e.to_string())?;
    if head["id"].as_str().and_then(|id| id.parse().ok()) != Some(nonce) {
        return Err(format!("the answer to request {}", head["id"]));
    }
    version(nonce, &body[length..])
}

/// # Errors
/// As for [`rest_answer`].
pub fn grpc_answer(nonce: u64, body: &Bytes) -> Result<i64, String> {
    let length = body.get(1..5).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
    if length.is_none_or(|length| length + 5 != body.len()) || body[0] != 0 {
        return Err(format!("{} bytes are not one plain message", body.len()));
    }
    let answer = proto::ModelInferResponse::decode(body.slice(5..)).map_err(|e| e.to_string())?;
    if answer.id != nonce.to_string() {
        return Err(format!("the answer to request {:?}", answer.id));
    }
    version(nonce, answer.raw_output_contents.first().map_or(&[], |bytes| bytes))
}

fn version(nonce: u64, tensor: &[u8]) -> Result<i64, String> {
    if tensor.len() != WIDTH as usize * 8 {
        return Err(format!("{} bytes of output", tensor.len()));
    }
    let mut shift = None;
    for (i, number) in tensor.chunks_exact(8).enumerate() {
        let number = i64::from_le_bytes(number.try_into().expect("eight bytes"));
        let by = number - (nonce as i64 * PER_REQUEST + i as i64);
        if by % PER_VERSION != 0 || *shift.get_or_insert(by) != by {
            return Err(format!("y[{i}] is {number}, request {nonce}"));
        }
    }
    Ok(shift.unwrap_or_default() / PER_VERSION)
}
