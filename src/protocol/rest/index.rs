use serde::Deserialize;

use super::Object;
use crate::protocol::Error;

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

/// Whether a repository index is to have only models that are ready. The body may be left out.
///
/// # Errors
/// `Kind::Invalid`
pub fn only_ready(body: &[u8]) -> Result<bool, Error> {
    let Object(request) = match body.is_empty() {
        true => Object::<IndexRequest>::default(),
        false => serde_json::from_slice(body)
            .map_err(|e| Error::invalid(format!("the request is not an index request: {e}")))?,
    };
    Ok(request.ready)
}
