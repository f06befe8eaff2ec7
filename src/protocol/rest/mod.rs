//! The REST form: a JSON object, followed by the raw bytes of those tensors that say `binary_data_size`.

mod data;
mod decode;
mod encode;
mod index;
mod object;

pub use decode::{decode, decode_response};
pub use encode::{Encoded, encode};
pub use index::only_ready;
pub use object::Object;

/// Length of the JSON part; absent when the whole body is JSON.
pub const HEADER_LENGTH: &str = "inference-header-content-length";
