//! Request bodies in memory: each in one piece, and all together within a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::HttpBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::protocol::{Error, Kind};

/// Whatever a single request may be, so much may be on its way, where there is memory for it.
const LEAST: usize = 256 << 20;
/// The part of the container's memory that bodies may take: a body becomes tensors, and the model has its own needs.
const PART: u64 = 4;

/// The bytes of all requests that are being read or answered: without a bound, four thousand connections could each
/// bring the largest body, slowly.
#[derive(Debug)]
pub struct Bodies {
    limit: usize,
    held: AtomicUsize,
}

/// What one request holds, until this is dropped.
#[derive(Debug)]
pub struct Share {
    bodies: Arc<Bodies>,
    bytes: usize,
}

impl Bodies {
    /// `largest`: bytes that one request may have. `memory`: bytes that the container may use.
    pub fn new(largest: usize, memory: Option<u64>) -> Arc<Self> {
        Arc::new(Self { limit: limit(largest, memory), held: AtomicUsize::new(0) })
    }

    /// `limit`: bytes of all requests together.
    pub fn within(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    pub fn share(self: &Arc<Self>) -> Share {
        Share { bodies: self.clone(), bytes: 0 }
    }
}

fn limit(largest: usize, memory: Option<u64>) -> usize {
    let wanted = largest.saturating_mul(4).max(LEAST);
    let part = memory.map_or(usize::MAX, |memory| usize::try_from(memory / PART).unwrap_or(usize::MAX));
    // The largest request must be answered when it comes alone.
    wanted.min(part.max(largest))
}

impl Share {
    /// # Errors
    /// `Kind::Unavailable`
    pub fn take(&mut self, bytes: usize) -> Result<(), Error> {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.bodies.limit);
        match self.bodies.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(_) => Err(Error::new(Kind::Unavailable, "too many requests are on their way")),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The next piece of a body; None: it is over.
pub async fn piece(body: &mut (impl HttpBody<Data = Bytes> + Unpin)) -> Result<Option<Bytes>, Error> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::invalid("the body ended early"))?;
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// The body in one piece of at most `limit` bytes. Kept as they come, chunks of one byte would cost forty times their
/// size.
pub async fn join(
    mut body: impl HttpBody<Data = Bytes> + Unpin,
    limit: usize,
    share: &mut Share,
) -> Result<Bytes, Error> {
    /// Memory that is given for a promise: less than a connection costs the kernel.
    const TRUSTED: usize = 64 << 10;
    let promised = usize::try_from(body.size_hint().lower()).unwrap_or(TRUSTED).min(TRUSTED);
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(piece) = piece(&mut body).await? {
        if first.len() + whole.len() + piece.len() > limit {
            return Err(Error::too_large(limit));
        }
        share.take(piece.len())?;
        // Most bodies are one piece, and stay where they are.
        if first.is_empty() && whole.is_empty() {
            first = piece;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(promised.max(first.len() + piece.len()));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

#[cfg(test)]
mod tests;
