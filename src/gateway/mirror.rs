//! Requests that are also sent to a candidate, whose answers nobody gets: they are compared with what the client got.
//!
//! ```text
//! forward ──> Tee, beside the answer on its way to the client ──whole──> queue ──> candidate ──> compare ──> report
//! ```
//!
//! No request waits for anything here: what finds no room is dropped and counted. A request is sent to the candidate
//! when its client has its answer, so that one that failed is not sent at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::{PodBody, Unread};
use super::forward::{Job, Sent, connect, is_refusal, send};
use super::message::{self, Compression};
use super::metrics::{Metrics, Outcome, ShadowMetrics};
use super::pick;
use super::pod::{Flight, Pod, now};
use crate::api::RouteShadow;
use crate::bodies::{Bodies, Share};
use crate::formats::{OutputReport, ShadowReport};
use crate::protocol::compare::{Difference, MAX_ELEMENTS, compare};
use crate::protocol::{Tensor, grpc, rest};

/// Samples of one deployment that wait, and that are on their way. A candidate that hangs holds these and no more.
const WAITING: usize = 64;
const AT_ONCE: usize = 4;
/// Of an answer. Larger ones are not compared.
pub const MAX_ANSWER: usize = 4 << 20;

/// The part of a route that says who else gets the requests.
#[derive(Clone, Debug)]
pub struct Shadow {
    pub percent: u32,
    pub mirror: Arc<Mirror>,
}

/// One attempt's comparison, as long as its routes say so.
#[derive(Debug)]
pub struct Mirror {
    pub revision: i64,
    pub attempt: i64,
    requests: AtomicU64,
    queue: mpsc::Sender<Sample>,
    pub bodies: Arc<Bodies>,
    found: Arc<Found>,
}

/// What its worker shares with it.
#[derive(Debug)]
struct Found {
    pods: ArcSwap<Vec<Arc<Pod>>>,
    report: Mutex<ShadowReport>,
    metrics: ShadowMetrics,
}

/// A request, and what its client got.
#[derive(Debug)]
pub struct Sample {
    pub job: Job,
    pub answer: Whole,
    pub share: Share,
    /// For the candidate's answer.
    pub timeout: Duration,
}

/// An answer in one piece.
#[derive(Debug)]
pub struct Whole {
    pub head: HeaderMap,
    pub body: Bytes,
}

impl Shadow {
    /// Of any hundred in a row, `percent`.
    pub fn samples(&self) -> bool {
        let number = self.mirror.requests.fetch_add(1, Ordering::Relaxed);
        let weights = [self.percent, 100u32.saturating_sub(self.percent)];
        pick::by_weight(weights.into_iter(), number) == Some(0)
    }
}

impl Mirror {
    /// `bodies`: of all mirrored requests of this gateway.
    pub fn start(
        deployment: &str,
        wanted: &RouteShadow,
        bodies: Arc<Bodies>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let (queue, samples) = mpsc::channel(WAITING);
        let metrics = metrics.shadow(deployment, wanted.revision);
        let found = Arc::new(Found { pods: ArcSwap::default(), report: Mutex::default(), metrics });
        tokio::spawn(work(samples, found.clone()));
        Arc::new(Self {
            revision: wanted.revision,
            attempt: wanted.attempt,
            requests: AtomicU64::new(0),
            queue,
            bodies,
            found,
        })
    }

    /// Those that are ready.
    pub fn set_pods(&self, pods: Vec<Arc<Pod>>) {
        self.found.pods.store(Arc::new(pods));
    }

    pub fn offer(&self, sample: Sample) {
        if self.queue.try_send(sample).is_err() {
            self.drop_one(Outcome::NoRoom);
        }
    }

    pub fn drop_one(&self, why: Outcome) {
        self.found.dropped(why);
    }

    pub fn report(&self) -> ShadowReport {
        self.found.lock().clone()
    }
}

impl Found {
    fn lock(&self) -> MutexGuard<'_, ShadowReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dropped(&self, why: Outcome) {
        self.metrics.count(why);
        self.lock().dropped += 1;
    }

    /// `example`: a sentence.
    fn bad(&self, outcome: Outcome, example: String) {
        self.metrics.count(outcome);
        let mut report = self.lock();
        match outcome {
            Outcome::Failed => report.failed += 1,
            _ => report.mismatched += 1,
        }
        report.example.get_or_insert(example);
    }

    fn compared(&self, outputs: Vec<(String, Difference)>) {
        self.metrics.count(Outcome::Compared);
        let mut report = self.lock();
        report.compared += 1;
        for (name, found) in outputs {
            let output = OutputReport {
                samples: 1,
                max_absolute: found.max_absolute,
                max_relative: found.max_relative,
                min_cosine: found.cosine,
                rows: found.rows,
                agreeing: found.agreeing,
                nan: found.nan,
            };
            report.add_output(&name, output);
            if let Some(all) = report.outputs.get(&name) {
                self.metrics.output(&name, all);
            }
        }
    }
}

/// Until no route names the attempt any more.
async fn work(samples: mpsc::Receiver<Sample>, found: Arc<Found>) {
    let samples = stream::unfold(samples, |mut samples| async move {
        let sample = samples.recv().await?;
        Some((sample, samples))
    });
    samples.for_each_concurrent(AT_ONCE, |sample| one(sample, &found)).await;
    found.metrics.forget();
}

async fn one(mut sample: Sample, found: &Found) {
    let deadline = Instant::now() + sample.timeout;
    let answer = match ask(&mut sample, found, deadline).await {
        Ok(answer) => answer,
        Err((Outcome::Failed, why)) => return found.bad(Outcome::Failed, why),
        Err((why, _)) => return found.dropped(why),
    };
    let is_grpc = sample.job.is_grpc;
    // Not on the thread of the sockets.
    let compared = tokio::task::spawn_blocking(move || {
        let _share = sample.share;
        let Ok(stable) = tensors(sample.answer, is_grpc) else { return Err(None) };
        let candidate = tensors(answer, is_grpc).map_err(Some)?;
        let outputs = compare(&stable, &candidate, MAX_ELEMENTS).map_err(Some)?;
        Ok(outputs.into_iter().map(|(name, found)| (name.to_string(), found)).collect())
    });
    match compared.await {
        Ok(Ok(outputs)) => found.compared(outputs),
        Ok(Err(Some(sentence))) => found.bad(Outcome::Mismatched, sentence),
        Ok(Err(None)) | Err(_) => found.dropped(Outcome::Unreadable),
    }
}

/// The candidate's answer.
async fn ask(sample: &mut Sample, found: &Found, deadline: Instant) -> Result<Whole, (Outcome, String)> {
    let nobody = || (Outcome::NoPod, String::new());
    let pods = found.pods.load_full();
    let job = &sample.job;
    let random = pick::mixed(now().as_nanos() as u64);
    let pod = pick::of_two(&pods, |pod| pod.load(now()), random).ok_or_else(nobody)?;
    let flight = Flight::begin(pod, None);
    let connection = connect(pod, job.is_grpc).await.map_err(|_| nobody())?;
    let response = match send(job, connection, None, deadline).await {
        Sent::Answer(response) => response,
        Sent::Broken { stale: true, .. } | Sent::Broken { unsent: true, .. } => {
            pod.forget_connections();
            return Err(nobody());
        }
        Sent::Broken { .. } => return Err(failed("the pod broke the connection")),
        Sent::Late => return Err(late()),
    };
    if is_refusal(&response, job.is_grpc) {
        return Err(nobody());
    }
    let (head, mut body) = response.into_parts();
    let read = tokio::time::timeout_at(deadline, body.read(MAX_ANSWER, &mut sample.share)).await;
    let (bytes, trailers) = match read {
        Err(_) => return Err(late()),
        Ok(Err(Unread::TooLarge)) => return Err((Outcome::TooLarge, String::new())),
        Ok(Err(Unread::NoRoom)) => return Err((Outcome::NoRoom, String::new())),
        Ok(Err(Unread::Broken)) => return Err(failed("the pod broke off its answer")),
        Ok(Ok(read)) => read,
    };
    if let PodBody::Rest(_, rest) = &mut body
        && let Some(rest) = rest.take()
    {
        flight.pod.give_back(rest);
    }
    status(&head.status, &head.headers, &trailers, job.is_grpc).map_err(|what| failed(&what))?;
    Ok(Whole { head: head.headers, body: bytes })
}

fn late() -> (Outcome, String) {
    failed("no answer in time")
}

fn failed(what: &str) -> (Outcome, String) {
    (Outcome::Failed, what.into())
}

/// # Errors
/// An answer that is none.
fn status(code: &StatusCode, head: &HeaderMap, trailers: &HeaderMap, is_grpc: bool) -> Result<(), String> {
    if !is_grpc {
        return if code.is_success() { Ok(()) } else { Err(format!("status {}", code.as_u16())) };
    }
    let status = trailers.get("grpc-status").or(head.get("grpc-status"));
    match status.map(|status| status.to_str().unwrap_or_default()) {
        Some("0") => Ok(()),
        Some(status) => Err(format!("gRPC status {status}")),
        None => Err("no gRPC status".into()),
    }
}

/// # Errors
/// A sentence.
fn tensors(answer: Whole, is_grpc: bool) -> Result<Vec<Tensor>, String> {
    let Whole { head, body } = answer;
    let text = |name: &str| head.get(name).and_then(|value| value.to_str().ok());
    let unpacked = |body: &Bytes, encoding: Option<&str>| {
        let how = encoding.and_then(|name| Compression::of(name.as_bytes()));
        let how = how.ok_or("the answer is compressed in an unknown way")?;
        message::unpacked(body, how, MAX_ANSWER).map(Bytes::from).map_err(|e| e.message)
    };
    if is_grpc {
        let (packed, message) = message::unframed(&body, MAX_ANSWER).map_err(|e| e.message)?;
        let message = if packed { unpacked(&message, text("grpc-encoding"))? } else { message };
        return grpc::decode_response(message).map_err(|e| e.message);
    }
    let encoding = text("content-encoding").filter(|encoding| *encoding != "identity");
    let body = if encoding.is_some() { unpacked(&body, encoding)? } else { body };
    let header_length = text(rest::HEADER_LENGTH).map(|length| length.parse().unwrap_or(usize::MAX));
    rest::decode_response(&body, header_length).map_err(|e| e.message)
}

/// Whether an answer of the stable revision can be compared. gRPC's trailers tell the rest.
pub fn is_comparable<B>(response: &Response<B>, is_grpc: bool) -> bool {
    match is_grpc {
        true => !response.headers().contains_key("grpc-status"),
        false => response.status().is_success(),
    }
}
