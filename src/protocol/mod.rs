//! Open Inference Protocol, version 2: messages and codecs, REST and gRPC.
//!
//! ```text
//! JSON (+ binary tensors) ──> rest::decode ─┐                       ┌─> rest::encode ──> JSON (+ binary tensors)
//!                                           ├─> InferRequest … InferResponse
//! ModelInferRequest ────────> grpc::decode ─┘                       └─> grpc::encode ──> ModelInferResponse
//! ```
//!
//! Sources: <https://github.com/kserve/open-inference-protocol> and Triton's `extension_binary_data.md`. Nothing here
//! knows a model, a session or a socket.

pub mod compare;
mod datatype;
mod error;
pub mod grpc;
mod infer;
mod metadata;
mod parameters;
pub mod refusal;
pub mod rest;
mod tensor;
mod timeout;

pub use datatype::{Datatype, bfloat, half};
pub use error::{Error, Kind};
pub use infer::{InferRequest, InferResponse, RequestedOutput};
pub use metadata::{ModelMetadata, ServerMetadata, TensorSpec};
pub use tensor::{Tensor, bytes_elements, element_count};
pub use timeout::grpc_timeout;

/// The extensions of the protocol, all Triton's, that are spoken whole.
pub const EXTENSIONS: &[&str] =
    &["binary_tensor_data", "parameters", "schedule_policy", "model_configuration", "statistics"];
/// The tensor axes that a request may have: no real model comes near, and nested JSON stays shallow.
pub const MAX_RANK: usize = 32;
/// The inputs, or requested outputs, that a request may have; in gRPC all its parts together.
pub const MAX_PARTS: usize = 16 << 10;
