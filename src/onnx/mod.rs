//! The graph of an ONNX model, read as a stream.
//!
//! A model of 2 GiB has some hundred kilobytes of graph between its weights. [`Walk`] does no I/O: it asks for the
//! byte ranges that it needs, each at most [`MAX_READ`] bytes, steps over every tensor payload wherever it stands
//! (initializers, Constant attributes, sparse tensors, subgraphs, functions, training info), and goes on to the end
//! of the file, since exporters write opsets, inputs and outputs after the weights.
//!
//! ```text
//! let mut walk = Walk::new(file_size)?;
//! while let Some(range) = walk.wanted()? { walk.supply(read(range))?; }   // a prefix of the range will do
//! let model = walk.finish()?;                                              // Model
//! model.supported_by(&ONNX_RUNTIME)?; model.check_files(sizes)?; model.summary()
//! ```
//!
//! The bytes are hostile: memory is bounded by what may be kept (`limits`), nesting by an explicit stack, every
//! length by its enclosing message. The format is `onnx/onnx-ml.proto` of ONNX 1.23 in protobuf's wire encoding.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod compare;
mod draft;
mod error;
mod external;
mod model;
mod operators;
mod schema;
mod sniff;
mod tensor;
mod walk;
mod wire;

pub use compare::breaks;
pub use error::OnnxError;
pub use external::{ExternalFile, check_location};
pub use model::{Model, ONNX_RUNTIME, Supported};
pub use walk::{ByteRange, Walk};

/// The longest range that a walk asks for, bytes.
pub const MAX_READ: usize = 8192;

/// What a walk keeps and reads at most, so that no file can exhaust the loader.
mod limits {
    /// Nested messages. ONNX Runtime's protobuf refuses more (`upb_DecodeOptions_MaxDepth`): 31 nested `If` pass.
    pub const DEPTH: usize = 100;
    /// The longest name, bytes; longer ones are an error where a name matters.
    pub const NAME: u64 = 4096;
    /// Bytes of names kept, all together.
    pub const KEPT: u64 = 16 << 20;
    /// Tensors with data: eight bytes are kept of each name.
    pub const TENSORS: usize = 1 << 20;
    /// Bytes read: graphs without their weights are far smaller.
    pub const READ: u64 = 256 << 20;
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
