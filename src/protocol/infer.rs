use std::time::Duration;

use super::Tensor;

/// One inference, whichever way it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// Echoed; empty when the client gave none.
    pub id: String,
    /// How long the client waits; the server's own limit may be shorter.
    pub timeout: Option<Duration>,
    /// From 1, which comes first, to 9.
    pub priority: Option<u8>,
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
