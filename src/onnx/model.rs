use std::collections::BTreeMap;

use super::error::quote;
use super::{ExternalFile, OnnxError};
use crate::formats::{GraphSummary, TensorSignature};

/// What the walk found.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub ir_version: u64,
    /// Domain to version; the default domain is `ai.onnx`.
    pub opsets: BTreeMap<String, u64>,
    pub producer: String,
    /// Without those that an initializer fills.
    pub inputs: Vec<TensorSignature>,
    pub outputs: Vec<TensorSignature>,
    /// Domains with operators that neither ONNX Runtime nor a function of the model defines, each with one such
    /// operator. `ai.onnx` is among them when the standard has no such operator.
    pub unknown_domains: BTreeMap<String, String>,
    /// Path below the model's folder to what the tensors say of it.
    pub external: BTreeMap<String, ExternalFile>,
    /// Subgraphs and functions included.
    pub nodes: u64,
    /// `DynamicQuantizeLinear`, or ONNX Runtime's own `DynamicQuantizeMatMul` and `DynamicQuantizeLSTM`: their scale
    /// comes from all the values that pass, those of other rows too.
    pub quantizes_dynamically: bool,
    pub weight_bytes: u64,
}

/// The newest that a runtime reads.
pub struct Supported {
    pub runtime: &'static str,
    pub ir_version: u64,
    pub opsets: &'static [(&'static str, u64)],
}

/// Tried with the PyPI wheel `onnxruntime` 1.31.1: one more of each is refused at load (`ValidateOpsetForDomain`,
/// "Unsupported model IR version").
pub const ONNX_RUNTIME: Supported = Supported {
    runtime: "ONNX Runtime 1.31",
    ir_version: 13,
    opsets: &[
        ("ai.onnx", 26),
        ("ai.onnx.ml", 5),
        ("ai.onnx.preview", 1),
        ("ai.onnx.preview.training", 1),
        ("ai.onnx.training", 1),
        ("com.microsoft", 1),
    ],
};

impl Model {
    /// Refuses a model that is newer than the runtime.
    pub fn supported_by(&self, runtime: &Supported) -> Result<(), OnnxError> {
        for (domain, newest) in runtime.opsets {
            if let Some(version) = self.opsets.get(*domain).filter(|version| *version > newest) {
                return Err(OnnxError::Unsupported(format!(
                    "the model uses opset {version} of {domain}, and {} reads up to {newest}: export it again with \
                     opset {newest} or lower, or convert it with onnx.version_converter",
                    runtime.runtime
                )));
            }
        }
        if self.ir_version > runtime.ir_version {
            return Err(OnnxError::Unsupported(format!(
                "the model has IR version {}, and {} reads up to {}: export it again with an older onnx package, or \
                 save it with a lower model.ir_version",
                self.ir_version, runtime.runtime, runtime.ir_version
            )));
        }
        Ok(())
    }

    /// Checks that every external tensor lies within its file; `size_of` says how long a file is, bytes.
    /// A file that it does not know is not checked here: the caller has the words for a missing one.
    pub fn check_files(&self, size_of: impl Fn(&str) -> Option<u64>) -> Result<(), OnnxError> {
        for (path, file) in &self.external {
            if let Some(size) = size_of(path).filter(|size| *size < file.end) {
                return Err(OnnxError::Invalid(format!(
                    "external data file {} has {size} bytes, and tensor {} ends at byte {}",
                    quote(path),
                    file.last,
                    file.end
                )));
            }
        }
        Ok(())
    }

    pub fn summary(&self) -> GraphSummary {
        GraphSummary {
            ir_version: self.ir_version,
            opsets: self.opsets.clone(),
            producer: self.producer.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            unknown_domains: self.unknown_domains.clone(),
            nodes: self.nodes,
            weight_bytes: self.weight_bytes,
            truncated: false,
        }
    }
}
