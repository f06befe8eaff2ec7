use std::collections::BTreeMap;

use super::Tensor;

/// One inference, whichever way it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// Echoed; empty when the client gave none.
    pub id: String,
    pub parameters: Parameters,
    pub inputs: Vec<Tensor>,
    /// Empty: all outputs.
    pub outputs: Vec<RequestedOutput>,
    /// The client's default for outputs that do not say: binary (REST `binary_data_output`, gRPC raw contents).
    pub binary_output: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestedOutput {
    pub name: String,
    /// REST only: this output as binary data, or not.
    pub binary: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferResponse {
    pub model_name: String,
    pub model_version: String,
    pub id: String,
    pub outputs: Vec<Tensor>,
}

pub type Parameters = BTreeMap<String, Parameter>;

/// The protocol's parameter values.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
pub enum Parameter {
    Bool(bool),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(String),
}
