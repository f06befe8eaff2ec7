//! One request: its connection, its attempts, its answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::book::{Book, Outcome, Way};
use super::model;

/// A model's address.
#[derive(Clone, Debug)]
pub struct Target {
    pub rest: SocketAddr,
    pub grpc: SocketAddr,
    /// As a user would write it.
    pub host: String,
    pub name: String,
}

type Rest = http1::SendRequest<Full<Bytes>>;
type Grpc = http2::SendRequest<Full<Bytes>>;

/// Connections that are kept for gRPC.
const CHANNELS: usize = 2;
/// A connection that had closed before it took the request costs nothing but another one.
const RESENDS: u8 = 8;

pub struct Client {
    target: Target,
    retries: u8,
    book: Arc<Mutex<Book>>,
    idle: Mutex<Vec<Rest>>,
    channels: [tokio::sync::Mutex<Option<Grpc>>; CHANNELS],
}

pub struct Told {
    pub outcome: Outcome,
    pub retries: u8,
    pub resent: u8,
}

/// An attempt that has no answer.
enum Broken {
    /// Nobody can have seen the request.
    Unsent(String),
    /// The connection broke before an answer began.
    Silent(String),
    /// An answer began, or somebody said no.
    Failed(String),
}

impl Client {
    pub fn new(target: Target, retries: u8, book: Arc<Mutex<Book>>) -> Self {
        Self { target, retries, book, idle: Mutex::default(), channels: Default::default() }
    }

    pub async fn ask(&self, nonce: u64, way: Way, patience: Duration) -> Told {
        let (mut retries, mut resent) = (0, 0);
        let asking = async {
            loop {
                let attempt = match way {
                    Way::RestNew | Way::RestKept => self.rest(nonce, way).await,
                    Way::GrpcNew | Way::GrpcKept => self.grpc(nonce, way).await,
                };
                match attempt {
                    Ok(outcome) => return outcome,
                    Err(Broken::Unsent(_)) if resent < RESENDS => resent += 1,
                    Err(Broken::Silent(_) | Broken::Unsent(_)) if retries < self.retries => {
                        retries += 1;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(Broken::Unsent(why) | Broken::Silent(why) | Broken::Failed(why)) => {
                        return Outcome::Lost(why.into());
                    }
                }
            }
        };
        let outcome = tokio::time::timeout(patience, asking).await;
        let outcome = outcome.unwrap_or_else(|_| Outcome::Lost(format!("no answer in {patience:?}").into()));
        Told { outcome, retries, resent }
    }

    async fn rest(&self, nonce: u64, way: Way) -> Result<Outcome, Broken> {
        let mut kept = None;
        while way == Way::RestKept && kept.is_none() {
            let Some(mut sender) = self.idle.lock().expect("no panic").pop() else { break };
            if sender.ready().await.is_ok() {
                kept = Some(sender);
            }
        }
        let used = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.dial_rest().await.map_err(Broken::Silent)?,
        };
        let (body, json) = model::rest(nonce);
        let request = Request::post(format!("/v2/models/{}/infer", self.target.name))
            .header("host", &self.target.host)
            .header("content-type", "application/octet-stream")
            .header("inference-header-content-length", json)
            .body(Full::new(body))
            .expect("a request");
        let response = sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = used && error.take_message().is_some();
            let why = format!("{:#}", chain(error.error()));
            if unsent { Broken::Unsent(why) } else { Broken::Silent(why) }
        })?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|e| Broken::Failed(format!("mid-answer: {}", chain(&e))))?;
        let body = body.to_bytes();
        if way == Way::RestKept && !sender.is_closed() {
            self.idle.lock().expect("no panic").push(sender);
        }
        if head.status != 200 {
            return Err(Broken::Failed(format!("{}: {}", head.status, String::from_utf8_lossy(&body))));
        }
        let json = text(&head.headers, "inference-header-content-length").parse().ok();
        Ok(self.outcome(model::rest_answer(nonce, &body, json), &head.headers))
    }

    async fn grpc(&self, nonce: u64, way: Way) -> Result<Outcome, Broken> {
        let mut sender = match way {
            Way::GrpcKept => self.channel(nonce as usize % CHANNELS).await?,
            _ => self.dial_grpc().await.map_err(Broken::Silent)?,
        };
        let request =
            Request::post(format!("http://{}/inference.GRPCInferenceService/ModelInfer", self.target.host))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(model::grpc(nonce, &self.target.name)))
                .expect("a request");
        let response = sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().is_some() || is_refused(error.error());
            let why = chain(error.error());
            if unsent && way == Way::GrpcKept { Broken::Unsent(why) } else { Broken::Silent(why) }
        })?;
        self.grpc_answer(nonce, response).await
    }

    async fn grpc_answer(&self, nonce: u64, response: Response<Incoming>) -> Result<Outcome, Broken> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|e| match is_refused(&e) {
            true => Broken::Unsent(chain(&e)),
            false => Broken::Failed(format!("mid-answer: {}", chain(&e))),
        })?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = [&trailers, &head.headers].map(|headers| text(headers, "grpc-status"));
        if head.status != 200 || !status.contains(&"0") {
            let said = [&trailers, &head.headers].map(|headers| text(headers, "grpc-message"));
            return Err(Broken::Failed(format!("{}, grpc-status {status:?}: {said:?}", head.status)));
        }
        Ok(self.outcome(model::grpc_answer(nonce, &body.to_bytes()), &head.headers))
    }

    fn outcome(&self, version: Result<i64, String>, headers: &HeaderMap) -> Outcome {
        match version {
            Err(why) => Outcome::Wrong(why.into()),
            Ok(version) => {
                let mut book = self.book.lock().expect("no panic");
                let [revision, digest] =
                    ["modelwright-revision", "modelwright-digest"].map(|name| book.name(text(headers, name)));
                Outcome::Answered { version, revision, digest }
            }
        }
    }

    async fn channel(&self, place: usize) -> Result<Grpc, Broken> {
        let mut channel = self.channels[place].lock().await;
        if let Some(sender) = channel.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.dial_grpc().await.map_err(Broken::Silent)?;
        *channel = Some(sender.clone());
        Ok(sender)
    }

    async fn dial_rest(&self) -> Result<Rest, String> {
        let stream = dial(self.target.rest).await?;
        let (sender, connection) = http1::handshake(stream).await.map_err(|e| chain(&e))?;
        let book = self.book.clone();
        tokio::spawn(async move {
            // hyper tells what it means only in words.
            if let Err(error) = connection.await
                && error.to_string().contains("unexpected message")
            {
                book.lock().expect("no panic").unasked(error.to_string());
            }
        });
        Ok(sender)
    }

    async fn dial_grpc(&self) -> Result<Grpc, String> {
        let stream = dial(self.target.grpc).await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.map_err(|e| chain(&e))?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

async fn dial(address: SocketAddr) -> Result<TokioIo<TcpStream>, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| format!("connect: {e}"))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(TokioIo::new(stream))
}

/// The server said that it has not begun with this request: every gRPC client sends it again.
fn is_refused(error: &hyper::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let graceful = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            return error.is_remote() && (graceful || error.reason() == Some(h2::Reason::REFUSED_STREAM));
        }
        source = error.source();
    }
    false
}

fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
