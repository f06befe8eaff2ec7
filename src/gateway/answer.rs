//! What clients get: a pod's answer as it comes, or the gateway's own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::deployment::Active;
use super::metrics::{ArmMetrics, Code};
use super::pod::{Flight, Rest, now};
use super::tee::Tee;
use super::trial::Part;
use crate::bodies::Share;
use crate::protocol::{Error, Kind};

const SOON: HeaderValue = HeaderValue::from_static("1");
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"modelwright\"");

pub enum Answer {
    Own(Bytes),
    /// Of gRPC: a message and its status.
    OwnGrpc(Option<Bytes>, bool),
    Pod(Box<FromPod>),
}

pub enum PodBody {
    /// The connection is driven here.
    Rest(Incoming, Option<Box<Rest>>),
    /// Whether all data, and all, has come.
    Grpc(RecvStream, bool, bool),
}

impl PodBody {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            PodBody::Rest(body, rest) => {
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                    return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
                }
                // What it reads is there at once; that it has ended shows in the body.
                if let Some(rest) = rest {
                    rest.connection.poll(context);
                }
                Pin::new(body).poll_frame(context).map_err(BoxError::from)
            }
            PodBody::Grpc(_, _, true) => Poll::Ready(None),
            PodBody::Grpc(stream, data, all) => {
                if !*data {
                    match ready!(stream.poll_data(context)) {
                        Some(Ok(bytes)) => {
                            stream.flow_control().release_capacity(bytes.len())?;
                            return Poll::Ready(Some(Ok(Frame::data(bytes))));
                        }
                        Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                        None => *data = true,
                    }
                }
                let trailers = ready!(stream.poll_trailers(context))?;
                *all = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    /// All of it, and its trailers.
    ///
    /// # Errors
    /// Why it isn't whole.
    pub async fn read(&mut self, limit: usize, share: &mut Share) -> Result<(Bytes, HeaderMap), Unread> {
        let (mut whole, mut trailers) = (BytesMut::new(), HeaderMap::new());
        while let Some(frame) = std::future::poll_fn(|context| self.poll(context)).await {
            match frame.map_err(|_| Unread::Broken)?.into_data() {
                Ok(piece) if whole.len() + piece.len() > limit => return Err(Unread::TooLarge),
                Ok(piece) => {
                    share.take(piece.len()).map_err(|_| Unread::NoRoom)?;
                    whole.extend_from_slice(&piece);
                }
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok((whole.freeze(), trailers))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            PodBody::Rest(body, _) => body.is_end_stream(),
            PodBody::Grpc(stream, _, all) => *all || stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            PodBody::Rest(body, _) => body.size_hint(),
            PodBody::Grpc(..) => SizeHint::default(),
        }
    }
}

pub enum Unread {
    TooLarge,
    /// Of the bytes that mirrored requests may take.
    NoRoom,
    Broken,
}

/// A pod's answer, with everything that is given back at its end.
pub struct FromPod {
    body: PodBody,
    deadline: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    code: Option<Code>,
    broken: bool,
    /// Of an answer in chunks nothing but its end tells.
    ended: bool,
    started: Duration,
    metrics: Arc<ArmMetrics>,
    /// And how long the answer's beginning took.
    part: Option<(Part, Duration)>,
    flight: Flight,
    _active: Active,
    tee: Option<Box<Tee>>,
}

impl FromPod {
    /// `code`: None: trailers tell.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        body: PodBody,
        code: Option<Code>,
        deadline: Instant,
        started: Duration,
        metrics: Arc<ArmMetrics>,
        part: Option<(Part, Duration)>,
        flight: Flight,
        active: Active,
        tee: Option<Box<Tee>>,
    ) -> Self {
        let (sleep, broken, ended, _active) = (None, false, false, active);
        Self { body, deadline, sleep, code, broken, ended, started, metrics, part, flight, _active, tee }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.body.poll(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(|t| t.get("grpc-status")) {
                    self.code = Some(Code::of_grpc(status.as_bytes()));
                }
                if let (Some(tee), Some(piece)) = (&mut self.tee, frame.data_ref())
                    && !tee.see(piece)
                {
                    self.tee = None;
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(other) => {
                (self.broken, self.ended) = (other.is_some(), other.is_none());
                return Poll::Ready(other);
            }
            Poll::Pending => {}
        }
        let deadline = self.deadline;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.as_mut().poll(context).is_ready() {
            self.broken = true;
            return Poll::Ready(Some(Err("the answer did not come to its end in time".into())));
        }
        Poll::Pending
    }
}

impl Drop for FromPod {
    fn drop(&mut self) {
        // Of gRPC, the status is the end.
        let whole = !self.broken
            && (self.ended
                || self.body.is_end_stream()
                || (self.code.is_some() && matches!(self.body, PodBody::Grpc(..))));
        let code = match self.code {
            _ if self.broken => Code::Server,
            Some(code) if whole => code,
            _ => Code::Cancelled,
        };
        self.metrics.answered(code, now().saturating_sub(self.started));
        if let Some((part, took)) = &self.part {
            part.answered(code, *took, now());
        }
        if let Some(tee) = self.tee.take().filter(|_| whole && code == Code::Ok) {
            tee.finish();
        }
        if whole
            && let PodBody::Rest(_, rest) = &mut self.body
            && let Some(rest) = rest.take()
        {
            self.flight.pod.give_back(rest);
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Answer::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Answer::OwnGrpc(message, ended) => {
                if let Some(message) = message.take() {
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                if std::mem::replace(ended, true) {
                    return Poll::Ready(None);
                }
                let status = HeaderValue::from_static("0");
                let trailers =
                    HeaderMap::from_iter([("grpc-status".parse().map_err(BoxError::from)?, status)]);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Answer::Pod(answer) => answer.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Own(bytes) => bytes.is_empty(),
            Answer::OwnGrpc(_, ended) => *ended,
            Answer::Pod(answer) => answer.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Answer::OwnGrpc(..) => SizeHint::default(),
            Answer::Pod(answer) => answer.body.size_hint(),
        }
    }
}

pub fn text(status: StatusCode, text: &'static str) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(value.to_string().into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A message, framed.
pub fn grpc(message: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer::OwnGrpc(Some(message), false));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An error, as the server would word it.
pub fn failure(error: &Error, is_grpc: bool) -> Response<Answer> {
    let mut response = match is_grpc {
        false => {
            let status = StatusCode::from_u16(error.kind.http_status());
            json(status.unwrap_or(StatusCode::BAD_GATEWAY), &serde_json::json!({ "error": error.message }))
        }
        true => {
            let mut response = Response::new(Answer::Own(Bytes::new()));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from_static(grpc_code(error.kind)));
            if let Ok(message) = HeaderValue::from_str(&percent(&error.message)) {
                headers.insert("grpc-message", message);
            }
            response
        }
    };
    match error.kind {
        Kind::Unavailable => response.headers_mut().insert(RETRY_AFTER, SOON),
        Kind::Unauthenticated => response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE),
        _ => None,
    };
    response
}

fn grpc_code(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid | Kind::UnsupportedMedia => "3",
        Kind::SlowRequest | Kind::DeadlineExceeded => "4",
        Kind::NotFound => "5",
        Kind::PermissionDenied => "7",
        Kind::TooLarge => "8",
        Kind::MethodNotAllowed => "12",
        Kind::Internal => "13",
        Kind::Unavailable => "14",
        Kind::Unauthenticated => "16",
    }
}

/// As gRPC writes messages into headers.
fn percent(message: &str) -> String {
    let mut written = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => written.push(char::from(byte)),
            _ => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}
