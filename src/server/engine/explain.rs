//! ONNX Runtime's words, sorted and cleaned for people. Pure; `tests.rs` holds the originals.

use super::{LoadError, Reason, RunError};

/// The cause of a failed load. `folder` is where the model lies: users know files by their names.
pub fn load_error(message: &str, folder: &str, gpu: bool) -> LoadError {
    // What follows are absolute paths.
    let text = clean(message.split(" resolved path: ").next().unwrap_or_default(), folder);
    let has = |needle: &str| message.contains(needle);
    let (reason, message) = if is_allocation_failure(message) {
        let reason = if gpu { Reason::InsufficientGpuMemory } else { Reason::OutOfMemory };
        (reason, format!("ONNX Runtime could not allocate memory for the model: {text}"))
    } else if let Some((node, version)) =
        between(message, "Error No Op registered for ", " with domain_version of ")
    {
        let version: String = version.chars().take_while(char::is_ascii_digit).collect();
        (Reason::ModelInvalid, format!("operator {node} is not known to ONNX Runtime at opset {version}"))
    } else if let Some((operator, _)) = between(message, "Fatal error: ", " is not a registered function/op")
    {
        let operator = operator.split('(').next().unwrap_or(operator);
        let (domain, name) = operator.rsplit_once(':').unwrap_or(("ai.onnx", operator));
        (Reason::ModelInvalid, format!("operator {name} of domain {domain} is not known to ONNX Runtime"))
    } else if has("is till opset")
        || has("Unsupported model IR version")
        || has("under development and support")
    {
        (Reason::OpsetUnsupported, text)
    } else if has("Protobuf parsing failed") {
        (
            Reason::ModelInvalid,
            "the file is not an ONNX model, or is truncated (protobuf parsing failed)".into(),
        )
    } else if has("No graph was found in the protobuf") {
        (Reason::ModelInvalid, "the file holds no ONNX graph".into())
    } else {
        (Reason::ModelInvalid, text)
    };
    LoadError { reason, message }
}

/// The cause of a failed run.
pub fn run_error(message: &str) -> RunError {
    let text = clean(message, "");
    let has = |needle: &str| message.contains(needle);
    if ["CUDA failure", "CUDNN failure", "CUBLAS failure", "CUDA error"].iter().any(|n| has(n))
        && !is_allocation_failure(message)
    {
        RunError::Poisoned(text)
    } else if is_allocation_failure(message) {
        RunError::OutOfMemory(format!("not enough memory for this request: {text}"))
    } else if has("INVALID_ARGUMENT")
        || has("Invalid rank")
        || has("Got invalid dimensions")
        || has("Non-zero status")
    {
        RunError::Refused(text)
    } else {
        RunError::Failed(text)
    }
}

pub fn is_allocation_failure(message: &str) -> bool {
    ["bad_alloc", "Failed to allocate memory", "out of memory", "bad allocation", "not enough memory"]
        .iter()
        .any(|n| message.contains(n))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<(&'a str, &'a str)> {
    text.split_once(start)?.1.split_once(end)
}

/// Drops what only ONNX Runtime's developers can read: its source paths and C++ signatures, stack traces, addresses,
/// and the folder of the model.
pub fn clean(message: &str, folder: &str) -> String {
    let mut text = message.split("Stacktrace").next().unwrap_or_default().to_string();
    if !folder.is_empty() {
        text = text.replace(&format!("{}/", folder.trim_end_matches('/')), "");
    }
    if text.starts_with("Load model from ")
        && let Some((_, rest)) = text.split_once(" failed:")
    {
        text = rest.to_string();
    }
    // `/onnxruntime_src/…/file.cc:123 <C++ signature> <sentence>`: signatures end in `)`, maybe followed by `const`.
    while let Some(start) = text.find("/onnxruntime_src/") {
        let tail = &text[start..];
        let end = signature_end(tail);
        text.replace_range(start..start + end, "");
    }
    let words: Vec<&str> = text.split_whitespace().filter(|w| !is_address(w) && !is_source(w)).collect();
    let mut text = words.join(" ");
    const LIMIT: usize = 1000;
    if text.len() > LIMIT {
        let mut end = LIMIT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The length of `path:line signature ` at the start of `text`.
fn signature_end(text: &str) -> usize {
    let path = text.find(char::is_whitespace).unwrap_or(text.len());
    let Some(open) = text[path..].find('(').map(|i| i + path) else { return path };
    let mut depth = 0usize;
    for (i, c) in text[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            let end = open + i + 1;
            let rest = &text[end..];
            return end + if rest.starts_with(" const ") { " const ".len() } else { 0 };
        }
    }
    path
}

/// `tensorprotoutils.cc:461`
fn is_source(word: &str) -> bool {
    word.split_once(':').is_some_and(|(file, line)| {
        [".cc", ".h", ".cpp", ".cu"].iter().any(|end| file.ends_with(end))
            && !line.is_empty()
            && line.chars().all(|c| c.is_ascii_digit())
    })
}

fn is_address(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    word.strip_prefix("0x").is_some_and(|hex| hex.len() >= 6 && hex.chars().all(|c| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
