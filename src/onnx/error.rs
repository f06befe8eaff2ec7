/// Why a file can't be served. The messages are for people, and name tensors, never anything outside the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    #[error("this is not an ONNX model: {0}")]
    NotOnnx(String),
    #[error(
        "the ONNX file is cut short: at byte {offset} it announces data up to byte {announced}, and ends at {size}"
    )]
    Truncated { offset: u64, announced: u64, size: u64 },
    #[error("the ONNX file is damaged at byte {offset}: {what}")]
    Damaged { offset: u64, what: String },
    #[error("the graph is too large to read: {0}")]
    Limit(String),
    #[error("{0}")]
    Invalid(String),
    #[error(
        "tensor {tensor} has its data outside the model's folder: external data location {location} {rule}"
    )]
    Escapes { tensor: String, location: String, rule: &'static str },
    #[error("{0}")]
    Unsupported(String),
}

impl OnnxError {
    /// A reason of the condition table.
    pub fn reason(&self) -> &'static str {
        match self {
            OnnxError::Unsupported(_) => "OpsetUnsupported",
            _ => "ModelInvalid",
        }
    }
}

/// A name from a hostile file, fit for a log line.
pub(super) fn quote(name: &str) -> String {
    const SHOWN: usize = 80;
    let short: String = name.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN).is_some() { format!("\"{short}…\"") } else { format!("\"{short}\"") }
}
