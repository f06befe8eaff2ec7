//! A request's body on its way to a pod. It tells the route when the request has really been sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};

use super::route::Sending;

/// hyper asks for the body, or drops it, when it has written the head; h2 takes from it, or drops it.
#[derive(Debug)]
pub struct Outgoing {
    body: Bytes,
    sending: Option<Sending>,
}

impl Outgoing {
    /// `sending`: None where no route waits for it.
    pub fn new(body: Bytes, sending: Option<Sending>) -> Self {
        Self { body, sending }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.sending = None;
        let body = std::mem::take(&mut self.body);
        Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.body.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.body
    }

    fn advance(&mut self, count: usize) {
        self.sending = None;
        self.body.advance(count);
    }
}
