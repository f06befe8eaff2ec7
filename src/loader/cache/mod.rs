//! The node cache: models that a node has fetched before, for the next pod of the same revision. Optional, one pod a
//! node, and nobody's only source: whatever it can't do, the loader does without it.
//!
//! ```text
//! loader ── GET /v1/files/<key> ─────────> 200 bytes, Repr-Digest      it has read one byte from the store, too:
//!           Authorization: its pod's token  404                         what may no longer be read is not taken here
//! loader ── PUT /v1/files/<key> ─────────> 201
//!           Repr-Digest (RFC 9530)
//! ```
//! Who may read what: a file stands below the namespace of the pod that brought it, as the API server knows it from the
//! pod's token (TokenReview), and only pods of that namespace see it. The key names the pinned source, so one namespace
//! can't ask for another's model, not even by its digest.

mod client;
mod metrics;
mod review;
mod serve;
mod store;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

pub(super) use client::{Cached, Near};
pub use serve::{Options, run};

const CHUNK: usize = 256 << 10;
/// Of a transfer, in bytes a second, beside half a minute: a disk that is slower is no help.
const SLOWEST: u64 = 10_000_000;

fn patience(size: u64) -> Duration {
    Duration::from_secs(30 + size / SLOWEST)
}

/// How a loader reaches it.
#[derive(Clone, Debug)]
pub struct Access {
    /// `http://name.namespace.svc…:8080`.
    pub address: String,
    /// The file with the pod's token.
    pub token: PathBuf,
}

/// A file from where it stands to its end.
fn chunks(file: File) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::try_unfold(file, |mut file| async {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}

#[cfg(test)]
mod tests;
