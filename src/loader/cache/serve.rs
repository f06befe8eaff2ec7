//! The server: one route for loaders, and health and metrics on a port of their own.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::super::digest::{hex, hex_of, is_hex};
use super::metrics::Metrics;
use super::review::{Reviewer, Verdict};
use super::store::{Entry, Key, Store};
use super::{chunks, patience};
use crate::listen::{Patience, Phase, serve};

pub(super) const REPR_DIGEST: &str = "repr-digest";
/// A loader that sends nothing for so long is gone.
const STALL: Duration = Duration::from_secs(30);
/// Pods of one node that load at a time; more find it busy, and ask their store. Each may have a question to the API
/// server on its way, and some 400 KiB of a body that nobody has asked for yet.
const CONNECTIONS: usize = 64;
const PROBES: usize = 16;

/// What the process is told.
#[derive(Clone, Debug)]
pub struct Options {
    pub files: PathBuf,
    pub max_bytes: u64,
    /// Of the disk; a file that would leave less of it free is not kept.
    pub min_free_percent: u64,
    /// For loaders.
    pub port: u16,
    /// For probes and Prometheus.
    pub admin_port: u16,
    /// `https://host:port`
    pub api_server: String,
    /// The folder of the pod's own ServiceAccount.
    pub service_account: PathBuf,
}

struct Cache {
    store: Arc<Store>,
    reviewer: Reviewer,
    metrics: Metrics,
}

/// Runs until dropped; `bound` gets the two addresses, loaders' and admin's.
pub async fn run(options: Options, bound: impl FnOnce(SocketAddr, SocketAddr)) -> Result<(), String> {
    let place = |e: io::Error| format!("{}: {e}", options.files.display());
    let store = Store::open(&options.files, options.max_bytes, options.min_free_percent);
    let cache = Arc::new(Cache {
        store: Arc::new(store.map_err(place)?),
        reviewer: Reviewer::new(&options.api_server, &options.service_account)?,
        metrics: Metrics::default(),
    });
    let (bytes, _) = cache.store.counts();
    info!(bytes, max_bytes = options.max_bytes, "serving what is there");
    let files = Router::new().route("/v1/files/{key}", get(read).put(write)).with_state(cache.clone());
    let admin = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .with_state(cache);
    let [loaders, probes] = [bind(options.port).await?, bind(options.admin_port).await?];
    let address = |listener: &TcpListener| listener.local_addr().map_err(|e| e.to_string());
    bound(address(&loaders)?, address(&probes)?);
    let (_serving, phase) = watch::channel(Phase::Serving);
    // HTTP/2 would let each connection bring a thousand requests, and megabytes before any was looked at.
    let of = |connections| Patience { connections, http2: false, ..Patience::default() };
    tokio::join!(
        serve(loaders, files, phase.clone(), of(CONNECTIONS)),
        serve(probes, admin, phase, of(PROBES))
    );
    Ok(())
}

async fn bind(port: u16) -> Result<TcpListener, String> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    crate::listen::bind(port).await.map_err(|e| format!("{address}: {e}"))
}

async fn metrics(State(cache): State<Arc<Cache>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], cache.metrics.render(&cache.store)).into_response()
}

/// Why a request was not served: how it is counted, and what is answered.
struct Refusal(&'static str, StatusCode, String);

type Served = Result<(&'static str, Response), Refusal>;

impl Cache {
    /// The asked file, below the namespace of whoever asks.
    async fn key(&self, headers: &HeaderMap, name: &str) -> Result<Key, Refusal> {
        let unauthenticated = || {
            let text = "want a pod's ServiceAccount token for the audience modelwright-node-cache\n";
            Refusal("unauthenticated", StatusCode::UNAUTHORIZED, text.into())
        };
        let token = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = token.and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(unauthenticated)?;
        match self.reviewer.review(token).await {
            Ok(Verdict::Namespace(namespace)) => Key::new(&namespace, name)
                .ok_or_else(|| Refusal("failed", StatusCode::BAD_REQUEST, "a key is 64 hex digits\n".into())),
            Ok(Verdict::Unknown) => Err(unauthenticated()),
            Err(error) => {
                warn!(error, "can't tell whose token it is");
                Err(Refusal("failed", StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")))
            }
        }
    }

    fn answer(&self, served: Served) -> Response {
        match served {
            Ok((result, response)) => {
                self.metrics.count(result);
                response
            }
            Err(Refusal(result, status, text)) => {
                self.metrics.count(result);
                (status, text).into_response()
            }
        }
    }
}

async fn read(State(cache): State<Arc<Cache>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let served = async {
        let key = cache.key(&headers, &name).await?;
        let (store, wanted) = (cache.store.clone(), key.clone());
        let Some((file, entry)) = blocking(move || store.get(&wanted)).await? else {
            return Err(Refusal("miss", StatusCode::NOT_FOUND, "it is not here\n".into()));
        };
        let headers = [("content-length", entry.size.to_string()), (REPR_DIGEST, repr_digest(&entry.sha256))];
        let body = Body::from_stream(checked(cache.store.clone(), key, entry, file));
        Ok(("hit", (headers, body).into_response()))
    };
    cache.answer(served.await)
}

async fn write(State(cache): State<Arc<Cache>>, Path(name): Path<String>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let served = async {
        let key = cache.key(&head.headers, &name).await?;
        let bad = |status, text: &str| Refusal("failed", status, format!("{text}\n"));
        let size = head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let size: u64 = size.ok_or_else(|| bad(StatusCode::LENGTH_REQUIRED, "want Content-Length"))?;
        let wanted = head.headers.get(REPR_DIGEST).and_then(|v| parse_repr_digest(v.to_str().ok()?));
        let wanted = wanted.ok_or_else(|| bad(StatusCode::BAD_REQUEST, "want Repr-Digest: sha-256=:…:"))?;
        if cache.store.has(&key, &wanted) {
            return Ok(("present", StatusCode::NO_CONTENT.into_response()));
        }
        let store = cache.store.clone();
        let room = blocking(move || store.room(size)).await?;
        let full = |why| Refusal("full", StatusCode::INSUFFICIENT_STORAGE, format!("{why}\n"));
        let room = room.map_err(full)?;
        let received = timeout(patience(size), receive(body, size, &room.path)).await;
        let received = received.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let found = received.map_err(|e| bad(StatusCode::BAD_REQUEST, &e.to_string()))?;
        if found != wanted {
            return Err(bad(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the bytes have another digest than Repr-Digest says",
            ));
        }
        let store = cache.store.clone();
        let kept = blocking(move || store.keep(room, key, found)).await?;
        kept.map_err(|e| bad(StatusCode::INSUFFICIENT_STORAGE, &e.to_string()))?;
        Ok(("stored", StatusCode::CREATED.into_response()))
    };
    cache.answer(served.await)
}

/// What asks the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|e| Refusal("failed", StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")))
}

/// A file as it was when it came. One that is not so any more goes, and its answer breaks off before its end: the loader
/// asks its store, and brings it anew.
fn checked(
    store: Arc<Store>,
    key: Key,
    entry: Entry,
    file: std::fs::File,
) -> impl Stream<Item = io::Result<Bytes>> {
    let mut hash = Sha256::new();
    // One chunk late, so that the last leaves only when all are known to be right.
    let mut held = None;
    let end = futures::stream::once(async { Ok(None) });
    chunks(tokio::fs::File::from_std(file)).map_ok(Some).chain(end).filter_map(move |chunk| {
        std::future::ready(match chunk {
            Ok(Some(chunk)) => {
                hash.update(&chunk);
                held.replace(chunk).map(Ok)
            }
            Ok(None) if hex(hash.clone()) == entry.sha256 => held.take().map(Ok),
            Ok(None) => {
                warn!(?key, "its bytes have changed on the disk");
                store.forget(&key, &entry);
                Some(Err(io::Error::other("the bytes have changed")))
            }
            Err(e) => Some(Err(e)),
        })
    })
}

/// Exactly so many bytes; their sha256.
async fn receive(body: Body, size: u64, path: &std::path::Path) -> io::Result<String> {
    let mut out = tokio::fs::File::create(path).await?;
    let (mut hash, mut received) = (Sha256::new(), 0);
    let mut chunks = body.into_data_stream().map_err(io::Error::other);
    loop {
        let next = timeout(STALL, chunks.next()).await;
        let Some(chunk) = next.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.transpose()? else {
            break;
        };
        received += chunk.len() as u64;
        if received > size {
            break;
        }
        hash.update(&chunk);
        out.write_all(&chunk).await?;
    }
    out.flush().await?;
    if received != size {
        return Err(io::Error::other(format!("{received} bytes came of {size}")));
    }
    Ok(hex(hash))
}

/// RFC 9530: `sha-256=:<base64>:`.
pub(super) fn repr_digest(sha256: &str) -> String {
    let bytes: Vec<u8> = sha256.as_bytes().chunks(2).map(byte).collect();
    format!("sha-256=:{}:", STANDARD.encode(bytes))
}

fn byte(pair: &[u8]) -> u8 {
    let text = std::str::from_utf8(pair).unwrap_or_default();
    u8::from_str_radix(text, 16).unwrap_or_default()
}

/// The hex of it. None: another algorithm, or no digest at all.
pub(super) fn parse_repr_digest(text: &str) -> Option<String> {
    let bytes = STANDARD.decode(text.trim().strip_prefix("sha-256=:")?.strip_suffix(':')?).ok()?;
    Some(hex_of(&bytes)).filter(|hex| is_hex(hex))
}
