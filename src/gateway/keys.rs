//! API keys, as the Secret `modelwright-api-keys` says them.
//!
//! An entry `CLIENT` holds a key for every model of the namespace, an entry `CLIENT.DEPLOYMENT` one for that model. Of
//! each only the SHA-256 is kept.

use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::mounted;
use crate::protocol::{Error, Kind};

/// The other header that a key may come in.
pub const HEADER: &str = "x-api-key";
/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

#[derive(Default)]
pub struct Keys(Vec<Entry>);

struct Entry {
    digest: [u8; 32],
    /// None: every one.
    deployment: Option<String>,
}

impl Keys {
    /// Of a mounted Secret; none where there is none.
    pub fn read(folder: &Path) -> Self {
        let keys = Self::of(mounted::files(folder));
        tracing::info!(keys = keys.0.len(), "API keys were read");
        keys
    }

    /// Of a Secret's entries.
    pub fn of(entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let entries = entries.into_iter().filter_map(|(name, value)| {
            let key = value.trim_ascii();
            if key.len() < SHORTEST {
                tracing::warn!(entry = name, "an API key of less than {SHORTEST} bytes is left out");
                return None;
            }
            let deployment = name.rsplit_once('.').map(|(_, deployment)| deployment.to_string());
            Some(Entry { digest: Sha256::digest(key).into(), deployment })
        });
        Self(entries.collect())
    }

    /// Whether a request may use the deployment.
    ///
    /// # Errors
    /// `Kind::Unauthenticated`, `Kind::PermissionDenied`
    pub fn check(&self, headers: &HeaderMap, deployment: &str) -> Result<(), Error> {
        let unauthenticated = |message: String| Err(Error::new(Kind::Unauthenticated, message));
        if self.0.is_empty() {
            return unauthenticated(format!(
                "model {deployment:?} wants an API key, and there are none: the Secret modelwright-api-keys of its \
                 namespace is missing or empty"
            ));
        }
        let Some(given) = sent(headers) else {
            return unauthenticated(format!(
                "model {deployment:?} wants an API key: send it as 'authorization: Bearer KEY' or '{HEADER}: KEY'"
            ));
        };
        let digest: [u8; 32] = Sha256::digest(given).into();
        let (mut known, mut allowed) = (Choice::from(0), Choice::from(0));
        // To the end, whatever was found.
        for entry in &self.0 {
            let equal = entry.digest.ct_eq(&digest);
            known |= equal;
            let suits = entry.deployment.as_deref().is_none_or(|name| name == deployment);
            allowed |= equal & Choice::from(u8::from(suits));
        }
        match (bool::from(known), bool::from(allowed)) {
            (_, true) => Ok(()),
            (true, false) => Err(Error::new(
                Kind::PermissionDenied,
                format!("this API key is not for the model {deployment:?}"),
            )),
            (false, false) => unauthenticated("this API key is not known".into()),
        }
    }
}

/// The key of a request.
fn sent(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let key = bearer.or_else(|| Some(headers.get(HEADER)?.as_bytes()))?.trim_ascii();
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests;
