//! The loader's side. Nothing here fails a fetch: without an answer in time the store is asked, as without a cache.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use reqwest::{Body, Client, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::fs;
use tokio::time::timeout;
use tracing::{debug, info};

use super::super::client::{cause, transport};
use super::super::digest::hex;
use super::super::source::Stream;
use super::super::{Env, LoadError, Result};
use super::chunks;
use super::serve::{REPR_DIGEST, parse_repr_digest, repr_digest};
use crate::formats::{PinnedFile, PinnedSource};

/// It is on this node, or nobody answers: packets to a Service without a pod here are dropped.
const CONNECT: Duration = Duration::from_millis(300);
/// Until it has asked the API server whose token it was.
const ANSWER: Duration = Duration::from_secs(4);
/// Of a file that is brought there; a disk that takes 10 MB a second is given up.
const SLOWEST: u64 = 10_000_000;

/// The node's cache, for one pinned source.
pub(in super::super) struct Near {
    client: Client,
    address: String,
    token: String,
    question: Vec<u8>,
}

/// A file that is there, and the sha256 that it had when it came.
pub(in super::super) struct Cached {
    pub stream: Stream,
    pub sha256: String,
}

impl Near {
    /// None: there is no cache, or it would be no nearer than the source.
    pub async fn of(pinned: &PinnedSource, env: &Env) -> Option<Self> {
        let access = env.cache.as_ref().filter(|_| !pinned.request.uri.starts_with("pvc://"))?;
        let token = fs::read_to_string(&access.token).await.ok()?.trim().to_owned();
        let client = Client::builder()
            .tls_certs_only([])
            .connect_timeout(CONNECT)
            .read_timeout(env.stall)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .ok()?;
        let mut question = pinned.clone();
        // What the bytes are does not depend on whose credentials bring them.
        (question.request.secret_name, question.request.ca_bundle_name) = (None, None);
        let question = serde_json::to_vec(&question).ok()?;
        let address = access.address.trim_end_matches('/').to_owned();
        Some(Self { client, address, token, question })
    }

    pub async fn get(&self, file: &PinnedFile) -> Option<Cached> {
        let asked = self.client.get(self.url(file)).bearer_auth(&self.token).send();
        let answer = match timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => {
                debug!(error = cause(&e), "the node cache can't be reached");
                return None;
            }
            Err(_) => return None,
        };
        if answer.status() != StatusCode::OK || answer.content_length() != Some(file.size) {
            return None;
        }
        let sha256 = digest_of(&answer)?;
        let shown = format!("the node cache's {}", file.path);
        let stream = answer.bytes_stream().map(move |chunk| chunk.map_err(|e| transport(&shown, &e))).boxed();
        Some(Cached { stream, sha256 })
    }

    /// For the next pod. A file that stands there already is not sent again.
    pub async fn put(&self, file: &PinnedFile, sha256: &str, path: &Path) {
        match self.send(file, sha256, path).await {
            Ok(status) if status.is_success() => info!(file = file.path, "kept in the node cache"),
            Ok(status) => info!(file = file.path, status = status.as_u16(), "not kept in the node cache"),
            Err(error) => info!(file = file.path, error = %error, "not kept in the node cache"),
        }
    }

    async fn send(&self, file: &PinnedFile, sha256: &str, path: &Path) -> Result<StatusCode> {
        let bytes = fs::File::open(path).await;
        let bytes = bytes.map_err(|e| LoadError::Unavailable(format!("{}: {e}", path.display())))?;
        let asked = self
            .client
            .put(self.url(file))
            .bearer_auth(&self.token)
            .header("content-length", file.size)
            .header(REPR_DIGEST, repr_digest(sha256))
            .body(Body::wrap_stream(chunks(bytes)))
            .send();
        let patience = ANSWER + Duration::from_secs(file.size / SLOWEST);
        match timeout(patience, asked).await {
            Ok(answer) => Ok(answer.map_err(|e| transport("the node cache", &e))?.status()),
            Err(_) => {
                Err(LoadError::Unavailable(format!("it did not take {} bytes in {patience:?}", file.size)))
            }
        }
    }

    fn url(&self, file: &PinnedFile) -> String {
        let mut hash = Sha256::new_with_prefix(&self.question);
        hash.update(file.path.as_bytes());
        format!("{}/v1/files/{}", self.address, hex(hash))
    }
}

fn digest_of(answer: &Response) -> Option<String> {
    parse_repr_digest(answer.headers().get(REPR_DIGEST)?.to_str().ok()?)
}
