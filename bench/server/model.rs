//! The two models, what is asked of them, and what raw ONNX Runtime answers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use modelwright::protocol::grpc::proto;
use prost::Message;
use serde_json::{Value, json};

/// As many different requests, so that an answer to another's question is seen.
pub const VARIANTS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A sentence encoder, 32 tokens: milliseconds a run, worth batching.
    Real,
    /// A voice detector: 0.1 ms a run, so that the server's own cost shows.
    Tiny,
}

pub struct Tensor {
    pub name: &'static str,
    pub shape: Vec<i64>,
    pub data: Data,
}

pub enum Data {
    Int64(Vec<i64>),
    Fp32(Vec<f32>),
}

impl Model {
    pub fn name(self) -> &'static str {
        match self {
            Model::Real => "real",
            Model::Tiny => "tiny",
        }
    }

    pub fn named(name: &str) -> Self {
        [Model::Real, Model::Tiny].into_iter().find(|m| m.name() == name).expect("real or tiny")
    }

    pub fn path(self) -> PathBuf {
        tool(match self {
            Model::Real => "minilm.sh",
            Model::Tiny => "silero.sh",
        })
    }

    /// The outputs that are asked for.
    pub fn outputs(self) -> &'static [&'static str] {
        match self {
            Model::Real => &["461"],
            Model::Tiny => &["output", "stateN"],
        }
    }

    /// `batch` requests as one, beginning with the given variant.
    pub fn inputs(self, variant: usize, batch: usize) -> Vec<Tensor> {
        let mut random = Random::new(1);
        let mut row = |length: usize, variant: usize, below: u64| -> Vec<u64> {
            random = Random::new(1 + (variant % VARIANTS) as u64);
            (0..length).map(|_| random.next() % below).collect()
        };
        let rows = variant..variant + batch;
        let b = batch as i64;
        match self {
            Model::Real => {
                let tokens = |v| {
                    let mut tokens: Vec<i64> =
                        row(32, v, 28_000).into_iter().map(|t| t as i64 + 1000).collect();
                    (tokens[0], tokens[31]) = (101, 102);
                    tokens
                };
                let ids: Vec<i64> = rows.flat_map(tokens).collect();
                let mask = vec![1; ids.len()];
                vec![
                    Tensor { name: "input_ids", shape: vec![b, 32], data: Data::Int64(ids) },
                    Tensor { name: "attention_mask", shape: vec![b, 32], data: Data::Int64(mask) },
                ]
            }
            Model::Tiny => {
                assert_eq!(batch, 1, "its state has the batch on another axis");
                let floats = |values: Vec<u64>| -> Vec<f32> {
                    values.into_iter().map(|v| v as f32 / 1000.0 - 0.5).collect()
                };
                let (sound, state) = (floats(row(576, variant, 1000)), floats(row(256, variant + 1, 1000)));
                vec![
                    Tensor { name: "input", shape: vec![1, 576], data: Data::Fp32(sound) },
                    Tensor { name: "state", shape: vec![2, 1, 128], data: Data::Fp32(state) },
                ]
            }
        }
    }
}

impl Tensor {
    pub fn datatype(&self) -> &'static str {
        match self.data {
            Data::Int64(_) => "INT64",
            Data::Fp32(_) => "FP32",
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::Int64(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Data::Fp32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    pub fn json(&self) -> Value {
        match &self.data {
            Data::Int64(values) => json!(values),
            Data::Fp32(values) => json!(values),
        }
    }
}

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// REST with the binary tensor data extension, both ways.
    Binary,
    Json,
    Grpc,
}

/// A whole HTTP/1.1 request.
pub fn http_request(model: Model, name: &str, form: Form, variant: usize) -> Vec<u8> {
    let inputs = model.inputs(variant, 1);
    let binary = form == Form::Binary;
    let mut tail = Vec::new();
    let mut described = Vec::new();
    for input in &inputs {
        let mut tensor = json!({"name": input.name, "shape": input.shape, "datatype": input.datatype()});
        if binary {
            let bytes = input.bytes();
            tensor["parameters"] = json!({"binary_data_size": bytes.len()});
            tail.extend(bytes);
        } else {
            tensor["data"] = input.json();
        }
        described.push(tensor);
    }
    let outputs: Vec<Value> =
        model.outputs().iter().map(|o| json!({"name": o, "parameters": {"binary_data": binary}})).collect();
    // serde_json sorts keys: datatype before data does not come by itself.
    let body = text(&json!({"inputs": [], "outputs": outputs}), &described);
    let mut request = format!(
        "POST /v2/models/{name}/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: {}\r\ncontent-length: {}\r\n",
        if binary { "application/octet-stream" } else { "application/json" },
        body.len() + tail.len(),
    );
    if binary {
        request.push_str(&format!("inference-header-content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(&body);
    [request.into_bytes(), tail].concat()
}

/// The request with its tensors as clients write them: data last.
fn text(request: &Value, tensors: &[Value]) -> String {
    let ordered: Vec<String> = tensors
        .iter()
        .map(|tensor| {
            let fields: Vec<String> = ["name", "shape", "datatype", "parameters", "data"]
                .iter()
                .filter(|key| !tensor[**key].is_null())
                .map(|key| format!("\"{key}\":{}", tensor[*key]))
                .collect();
            format!("{{{}}}", fields.join(","))
        })
        .collect();
    format!("{{\"inputs\":[{}],\"outputs\":{}}}", ordered.join(","), request["outputs"])
}

/// A whole gRPC message, with its length before it.
pub fn grpc_request(model: Model, name: &str, variant: usize) -> Vec<u8> {
    use proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    let inputs = model.inputs(variant, 1);
    let message = proto::ModelInferRequest {
        model_name: name.into(),
        inputs: inputs
            .iter()
            .map(|input| InferInputTensor {
                name: input.name.into(),
                datatype: input.datatype().into(),
                shape: input.shape.clone(),
                ..Default::default()
            })
            .collect(),
        outputs: model
            .outputs()
            .iter()
            .map(|o| InferRequestedOutputTensor { name: (*o).into(), ..Default::default() })
            .collect(),
        raw_input_contents: inputs.iter().map(|input| Bytes::from(input.bytes())).collect(),
        ..Default::default()
    }
    .encode_to_vec();
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// The path that a script of tests/tools prints.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name);
    let output =
        Command::new(&path).stderr(Stdio::inherit()).output().unwrap_or_else(|e| panic!("{path:?}: {e}"));
    assert!(output.status.success(), "{path:?} failed");
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

pub fn onnxruntime() -> PathBuf {
    std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| tool("onnxruntime.sh"), PathBuf::from)
}

/// xorshift64: the same requests and arrivals in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// In (0, 1].
    pub fn unit(&mut self) -> f64 {
        (self.next() + 1) as f64 / (1u64 << 53) as f64
    }
}
