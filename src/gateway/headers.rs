//! Headers on their way through.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue};

use super::keys;
use super::pick::mixed;

const HOP_BY_HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const OTHERS: [&str; 4] = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"];
pub const REQUEST_ID: &str = "x-request-id";

/// What concerns one connection only, also what its sender says does.
pub fn strip(headers: &mut HeaderMap) {
    if let Some(connection) = headers.get(CONNECTION).cloned() {
        for name in connection.to_str().unwrap_or_default().split(',') {
            // These are the message's own, whatever is said of them.
            if !["host", "content-length", "content-type", REQUEST_ID].contains(&name.trim()) {
                headers.remove(name.trim());
            }
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    for name in OTHERS {
        headers.remove(name);
    }
}

/// A request's headers as the pod gets them.
pub fn forwarded(headers: &mut HeaderMap, is_grpc: bool) {
    strip(headers);
    headers.remove(EXPECT);
    // A key is for gateways only.
    headers.remove(AUTHORIZATION);
    headers.remove(keys::HEADER);
    // The body is whole by now: hyper writes its length.
    headers.remove(CONTENT_LENGTH);
    if is_grpc {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The request's id: its client's, or one that it has from here on.
pub fn identified(headers: &mut HeaderMap) -> Option<HeaderValue> {
    if !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, HeaderValue::from_str(&request_id()).ok()?);
    }
    headers.get(REQUEST_ID).cloned()
}

/// Unlike any other, also of other gateways.
fn request_id() -> String {
    static SEED: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let seed = *SEED.get_or_init(|| RandomState::new().hash_one(0));
    format!("{seed:016x}{:016x}", mixed(COUNT.fetch_add(1, Ordering::Relaxed)))
}

#[cfg(test)]
mod tests;
