use std::collections::BTreeMap;
use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::{Deserialize, Serialize};

use super::PinnedSource;

/// The kubelet keeps the last 4,096 bytes of a termination message (`tail.ReadAtMost`): a longer one loses its head.
const MESSAGE_LIMIT: usize = 4096;
/// A report is ours or nothing: the bound holds a hostile message to a sane size.
const DECODED_LIMIT: u64 = 1 << 20;
const PREFIX: &str = "modelwright.dev/resolved/v1:";

/// How the resolve pod ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ResolveReport {
    Resolved(Box<Resolved>),
    /// `reason` is one of the condition table; `message` says what was wrong, where, and what to do.
    Failed {
        reason: String,
        message: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    pub source: PinnedSource,
    pub graph: GraphSummary,
}

/// What the graph says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GraphSummary {
    pub ir_version: u64,
    /// Domain to version; the default domain is `ai.onnx`.
    pub opsets: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub producer: String,
    pub inputs: Vec<TensorSignature>,
    pub outputs: Vec<TensorSignature>,
    /// Operator domains that ONNX Runtime does not bring itself, each with one operator's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown_domains: BTreeMap<String, String>,
    /// Nodes of the graph, subgraphs included.
    #[serde(default)]
    pub nodes: u64,
    /// Bytes of inline and external tensor data.
    #[serde(default)]
    pub weight_bytes: u64,
    /// Something was left out so that the report fits a termination message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TensorSignature {
    pub name: String,
    /// The Open Inference Protocol's name (`FP32`, `INT64`, `BYTES`, …), or ONNX's where that has none.
    pub datatype: String,
    /// Absent: the model gives no shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<Dim>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    Fixed(i64),
    /// A dynamic axis by its name; empty where it has none.
    Dynamic(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(
        "the source names too many files: {files} files need {bytes} bytes of a {MESSAGE_LIMIT}-byte report"
    )]
    TooLarge { files: usize, bytes: usize },
    #[error("the resolve report is not readable: {0}")]
    Unreadable(String),
}

impl ResolveReport {
    /// Encodes for `/dev/termination-log`, at most 4,096 bytes. A failure stays plain text, for `kubectl describe`.
    /// Signatures are cut before the pin is: a model without its pin can't be fetched.
    pub fn encode(&self) -> Result<String, ReportError> {
        let resolved = match self {
            ResolveReport::Failed { reason, message } => {
                let mut line = format!("{reason}: {message}");
                let mut end = line.len().min(MESSAGE_LIMIT);
                while !line.is_char_boundary(end) {
                    end -= 1;
                }
                line.truncate(end);
                return Ok(line);
            }
            ResolveReport::Resolved(resolved) => resolved,
        };
        let mut cut = resolved.clone();
        loop {
            let text = pack(&cut)?;
            if text.len() <= MESSAGE_LIMIT {
                return Ok(text);
            }
            let graph = &mut cut.graph;
            let longest = graph.inputs.len().max(graph.outputs.len());
            if longest == 0 {
                return Err(ReportError::TooLarge { files: cut.source.files.len(), bytes: text.len() });
            }
            graph.truncated = true;
            graph.inputs.truncate(longest / 2);
            graph.outputs.truncate(longest / 2);
        }
    }

    /// Reads a termination message back.
    pub fn decode(message: &str) -> Result<Self, ReportError> {
        let message = message.trim();
        let Some(body) = message.strip_prefix(PREFIX) else {
            let Some((reason, text)) = message.split_once(": ") else {
                return Err(ReportError::Unreadable(format!("no reason in {message:?}")));
            };
            if reason.is_empty() || !reason.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err(ReportError::Unreadable(format!("no reason in {message:?}")));
            }
            return Ok(ResolveReport::Failed { reason: reason.into(), message: text.into() });
        };
        let unreadable = |e: &dyn std::fmt::Display| ReportError::Unreadable(e.to_string());
        let packed = STANDARD.decode(body).map_err(|e| unreadable(&e))?;
        let mut json = Vec::new();
        DeflateDecoder::new(packed.as_slice())
            .take(DECODED_LIMIT)
            .read_to_end(&mut json)
            .map_err(|e| unreadable(&e))?;
        serde_json::from_slice(&json).map(ResolveReport::Resolved).map_err(|e| unreadable(&e))
    }
}

fn pack(resolved: &Resolved) -> Result<String, ReportError> {
    let unreadable = |e: &dyn std::fmt::Display| ReportError::Unreadable(e.to_string());
    let json = serde_json::to_vec(resolved).map_err(|e| unreadable(&e))?;
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
    deflate.write_all(&json).map_err(|e| unreadable(&e))?;
    let packed = deflate.finish().map_err(|e| unreadable(&e))?;
    Ok(format!("{PREFIX}{}", STANDARD.encode(packed)))
}
