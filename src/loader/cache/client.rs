//! The loader's side. Nothing here fails a fetch: without an answer in time the store is asked, as without a cache.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::try_unfold;
use reqwest::{Body, Client, RequestBuilder, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::fs;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::super::client::{cause, transport};
use super::super::digest::hex;
use super::super::source::Stream;
use super::super::{Env, LoadError, Result};
use super::serve::{REPR_DIGEST, parse_repr_digest, repr_digest};
use super::{chunks, patience};
use crate::formats::{PinnedFile, PinnedSource};

/// It is on this node, or nobody answers: packets to a Service without a pod here are dropped.
const CONNECT: Duration = Duration::from_millis(300);
/// Until it has asked the API server whose token it was.
const ANSWER: Duration = Duration::from_secs(4);
/// Between two chunks: it reads a disk of this node.
const SILENCE: Duration = Duration::from_secs(5);

/// The node's cache, for one try to fetch a pinned source.
pub(in super::super) struct Near {
    client: Client,
    address: String,
    token: PathBuf,
    question: Vec<u8>,
    /// It refused, or let a fetch wait for nothing: a model of many files must not do that again and again.
    broken: AtomicBool,
}

/// A file that is there, and the sha256 that it had when it came.
pub(in super::super) struct Cached {
    pub stream: Stream,
    pub sha256: String,
}

impl Near {
    /// None: there is no cache, or the source could not say whether a file is still what was pinned (of a claim's none is
    /// pinned, and it would be no nearer).
    pub fn of(pinned: &PinnedSource, env: &Env) -> Option<Self> {
        let access = env.cache.as_ref().filter(|_| pinned.immutable)?;
        let client = Client::builder()
            .tls_certs_only([])
            .connect_timeout(CONNECT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .ok()?;
        let mut question = pinned.clone();
        // What the bytes are does not depend on whose credentials bring them.
        (question.request.secret_name, question.request.ca_bundle_name) = (None, None);
        let question = serde_json::to_vec(&question).ok()?;
        let address = access.address.trim_end_matches('/').to_owned();
        let token = access.token.clone();
        Some(Self { client, address, token, question, broken: AtomicBool::new(false) })
    }

    pub async fn get(&self, file: &PinnedFile) -> Option<Cached> {
        if self.broken.load(Ordering::Relaxed) {
            return None;
        }
        let answer = match self.ask(self.client.get(self.url(file)), ANSWER).await {
            Ok(answer) if answer.status() == StatusCode::OK => answer,
            Ok(answer) if answer.status() == StatusCode::NOT_FOUND => return None,
            Ok(answer) => {
                self.broken.store(true, Ordering::Relaxed);
                let (status, reason) = refusal(answer).await;
                info!(%status, reason, "the node cache refuses");
                return None;
            }
            Err(error) => {
                debug!(%error, "the node cache does not answer");
                return None;
            }
        };
        let sha256 = digest_of(&answer).filter(|_| answer.content_length() == Some(file.size))?;
        let shown = format!("the node cache's {}", file.path);
        let end = Instant::now() + patience(file.size);
        let stream = try_unfold((answer, shown), move |(mut answer, shown)| async move {
            let left = SILENCE.min(end.saturating_duration_since(Instant::now()));
            match timeout(left, answer.chunk()).await {
                Ok(Ok(chunk)) => Ok(chunk.map(|chunk| (chunk, (answer, shown)))),
                Ok(Err(e)) => Err(transport(&shown, &e)),
                Err(_) => Err(LoadError::Unavailable(format!("{shown}: it comes too slowly"))),
            }
        });
        Some(Cached { stream: stream.boxed(), sha256 })
    }

    /// For the next pod.
    pub async fn put(&self, file: &PinnedFile, sha256: &str, path: &Path) {
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        match self.send(file, sha256, path).await {
            Ok(answer) if answer.status().is_success() => info!(file = file.path, "kept in the node cache"),
            Ok(answer) => {
                let (status, reason) = refusal(answer).await;
                info!(file = file.path, %status, reason, "not kept in the node cache");
            }
            Err(error) => info!(file = file.path, error, "not kept in the node cache"),
        }
    }

    async fn send(&self, file: &PinnedFile, sha256: &str, path: &Path) -> Result<Response, String> {
        let bytes = fs::File::open(path).await.map_err(|e| format!("{}: {e}", path.display()))?;
        let asked = self
            .client
            .put(self.url(file))
            .header("content-length", file.size)
            .header(REPR_DIGEST, repr_digest(sha256))
            .body(Body::wrap_stream(chunks(bytes)));
        self.ask(asked, patience(file.size)).await
    }

    /// The kubelet renews the token while a fetch lasts.
    async fn ask(&self, request: RequestBuilder, within: Duration) -> Result<Response, String> {
        let token = fs::read_to_string(&self.token).await;
        let token = token.map_err(|e| format!("{}: {e}", self.token.display()))?;
        let (waited_in_vain, answer) = match timeout(within, request.bearer_auth(token.trim()).send()).await {
            Ok(answer) => {
                (answer.as_ref().is_err_and(reqwest::Error::is_connect), answer.map_err(|e| cause(&e)))
            }
            Err(_) => (true, Err(format!("nothing within {within:?}"))),
        };
        // Not where a connection broke off: so ends an answer whose bytes turn out to have rotted before its head has
        // left, and this pod is to bring them anew.
        if waited_in_vain {
            self.broken.store(true, Ordering::Relaxed);
        }
        answer
    }

    fn url(&self, file: &PinnedFile) -> String {
        let mut hash = Sha256::new_with_prefix(&self.question);
        hash.update(file.path.as_bytes());
        format!("{}/v1/files/{}", self.address, hex(hash))
    }
}

/// The status, and the first 500 bytes of what it says.
async fn refusal(mut answer: Response) -> (StatusCode, String) {
    let first = timeout(ANSWER, answer.chunk()).await;
    let text = first.ok().and_then(Result::ok).flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(500)]);
    (answer.status(), text.trim().to_owned())
}

fn digest_of(answer: &Response) -> Option<String> {
    parse_repr_digest(answer.headers().get(REPR_DIGEST)?.to_str().ok()?)
}
