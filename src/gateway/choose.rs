//! Which deployment a request is for: by its host, its path, its message, which must agree. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::protocol::Error;

/// What a path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    pub name: &'a str,
    pub version: Option<&'a str>,
    /// It asks whether the model is ready.
    pub ready: bool,
}

/// The first label of a host: `name`, `name.namespace`, `name.namespace.svc.cluster.local`, with or without a port.
pub fn first_label(host: &str) -> &str {
    host.split(['.', ':']).next().unwrap_or_default()
}

/// `/v2/models/{name}[/versions/{version}][/…]`. Names need no percent encoding, and one that has it is unknown.
pub fn in_path(path: &str) -> Option<Named<'_>> {
    let rest = path.strip_prefix("/v2/models/")?;
    let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
    // The server's own statistics.
    if name.is_empty() || (name == "stats" && rest.is_empty()) {
        return None;
    }
    let (version, rest) = match rest.strip_prefix("versions/") {
        Some(rest) => {
            let (version, rest) = rest.split_once('/').unwrap_or((rest, ""));
            (Some(version), rest)
        }
        None => (None, rest),
    };
    Some(Named { name, version, ready: rest == "ready" })
}

/// The method of the inference service, if the path calls one.
pub fn method(path: &str) -> Option<&str> {
    path.strip_prefix("/inference.GRPCInferenceService/")
}

/// Whether a call asks for an inference.
pub fn infers(path: &str, is_grpc: bool) -> bool {
    match is_grpc {
        true => method(path) == Some("ModelInfer"),
        false => path.ends_with("/infer"),
    }
}

/// A version is a revision's number. Empty: any.
///
/// # Errors
/// `Kind::NotFound`
pub fn revision(version: &str) -> Result<Option<i64>, Error> {
    if version.is_empty() {
        return Ok(None);
    }
    match version.parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(Error::not_found(format!(
            "no version {:?}: versions are the numbers of revisions",
            shortened(version)
        ))),
    }
}

/// # Errors
/// `Kind::NotFound`: the host is for another model than `name`.
pub fn agree(by_host: &str, name: &str) -> Result<(), Error> {
    if by_host == name {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "this host serves the model {by_host:?}, the request names {:?}: ask the host of that name, or name no other",
        shortened(name)
    )))
}

/// Of a client's text, what fits a message.
pub fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
