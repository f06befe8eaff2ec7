//! A copy of an answer that is on its way to its client.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use bytes::{Bytes, BytesMut};

use super::forward::Job;
use super::metrics::Outcome;
use super::mirror::{MAX_ANSWER, Mirror, Sample, Whole};
use crate::bodies::Share;

pub struct Tee {
    mirror: Arc<Mirror>,
    job: Job,
    head: HeaderMap,
    pieces: Vec<Bytes>,
    length: usize,
    share: Share,
    timeout: Duration,
}

impl Tee {
    /// None: there is no room for it.
    pub fn begin(mirror: &Arc<Mirror>, job: &Job, head: &HeaderMap, timeout: Duration) -> Option<Box<Self>> {
        let mut share = mirror.bodies.share();
        if share.take(job.body.len()).is_err() {
            mirror.drop_one(Outcome::NoRoom);
            return None;
        }
        let mut headers = job.headers.clone();
        // Ours to choose: the client's deadline may be over, and nobody else reads the answer.
        for name in [ACCEPT_ENCODING.as_str(), "grpc-accept-encoding", "grpc-timeout"] {
            headers.remove(name);
        }
        let job = Job {
            method: job.method.clone(),
            path: job.path.clone(),
            authority: job.authority.clone(),
            headers,
            body: job.body.clone(),
            _shares: None,
            ..*job
        };
        let (mirror, head) = (mirror.clone(), head.clone());
        Some(Box::new(Self { mirror, job, head, pieces: Vec::new(), length: 0, share, timeout }))
    }

    /// Whether it goes on.
    #[must_use]
    pub fn see(&mut self, piece: &Bytes) -> bool {
        self.length += piece.len();
        let why = if self.length > MAX_ANSWER {
            Outcome::TooLarge
        } else if self.share.take(piece.len()).is_err() {
            Outcome::NoRoom
        } else {
            self.pieces.push(piece.clone());
            return true;
        };
        self.mirror.drop_one(why);
        false
    }

    /// The client has it all, and it is no error.
    pub fn finish(mut self) {
        let body = match self.pieces.len() {
            1 => self.pieces.swap_remove(0),
            _ => {
                let mut body = BytesMut::with_capacity(self.length);
                self.pieces.iter().for_each(|piece| body.extend_from_slice(piece));
                body.freeze()
            }
        };
        let answer = Whole { head: self.head, body };
        self.mirror.offer(Sample { job: self.job, answer, share: self.share, timeout: self.timeout });
    }
}
