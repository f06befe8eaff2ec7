use super::OnnxError;
use super::error::quote;

/// ONNX Runtime's own marker for a pointer instead of a file (`tensorprotoutils.h`): never valid in a file.
const MEMORY_MARKER: &str = "_ORT_MEM_ADDR_";
const MAX_PATH: usize = 1024;
const MAX_NAME: usize = 255;

/// A file beside the model that holds tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalFile {
    /// The tensor that named it first, quoted for messages.
    pub tensor: String,
    /// Where the last tensor ends, bytes: the file must be at least as long.
    pub end: u64,
    /// The tensor that ends there, quoted for messages.
    pub last: String,
}

/// A location as a path below the model's folder, without `.` components; or the rule that it breaks.
pub fn check_location(location: &str) -> Result<String, &'static str> {
    if location.is_empty() {
        return Err("is empty");
    }
    if location.len() > MAX_PATH {
        return Err("is longer than 1024 bytes");
    }
    if location.contains(MEMORY_MARKER) {
        return Err("is a memory address, which no file may hold");
    }
    if location.chars().any(char::is_control) {
        return Err("has a control character");
    }
    if location.contains('\\') {
        return Err("has a backslash");
    }
    if location.starts_with('/') || location.as_bytes().get(1) == Some(&b':') {
        return Err("is an absolute path");
    }
    let mut parts = Vec::new();
    for part in location.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("has a \"..\" component"),
            long if long.len() > MAX_NAME => return Err("has a component of more than 255 bytes"),
            part => parts.push(part),
        }
    }
    if parts.is_empty() || location.ends_with('/') {
        return Err("names a folder");
    }
    Ok(parts.join("/"))
}

pub(super) fn escapes(tensor: &str, location: &str, rule: &'static str) -> OnnxError {
    OnnxError::Escapes { tensor: quote(tensor), location: quote(location), rule }
}
