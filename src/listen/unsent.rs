//! Answers that HTTP/2 clients don't take: one that keeps its windows shut is alive to TCP and to pings, and has us
//! keep its answers.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// A large answer that makes progress must not look like one that is stuck.
const PIECE: usize = 64 << 10;

/// What is in memory of one connection's answers: each piece holds the token of the turn in which it was handed over.
#[derive(Default)]
pub struct Unsent {
    turns: Mutex<Turns>,
}

#[derive(Default)]
struct Turns {
    this: Arc<()>,
    last: Arc<()>,
}

impl Unsent {
    fn token(&self) -> Arc<()> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).this.clone()
    }

    /// Begins the next turn. Whether a piece was there for the whole of the one that ends.
    pub fn turn(&self) -> bool {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = Arc::strong_count(&turns.last) > 1;
        turns.last = std::mem::take(&mut turns.this);
        stuck
    }
}

/// An answer's body in pieces, each known until it has been sent.
pub struct Pieces<B> {
    body: B,
    rest: Bytes,
    /// None: over HTTP/1 TCP itself tells that a client takes nothing.
    unsent: Option<Arc<Unsent>>,
}

impl<B> Pieces<B> {
    pub fn new(body: B, unsent: Option<Arc<Unsent>>) -> Self {
        Self { body, rest: Bytes::new(), unsent }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Pieces<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            let data = match frame {
                Some(Ok(frame)) if self.unsent.is_some() => frame.into_data(),
                other => return Poll::Ready(other),
            };
            match data {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PIECE);
        let bytes = self.rest.split_to(length);
        let token = self.unsent.as_deref().map(Unsent::token);
        let piece = Bytes::from_owner(Piece { bytes, _token: token });
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (of_body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

struct Piece {
    bytes: Bytes,
    _token: Option<Arc<()>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
