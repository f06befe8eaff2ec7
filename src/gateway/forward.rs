//! A request on its way to a pod, and again to another where that is safe.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::http::header::{HOST, RETRY_AFTER};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use bytes::Bytes;
use tokio::time::Instant;

use super::answer::{Answer, FromPod, PodBody};
use super::deployment::{Active, Deployment, Waits};
use super::headers;
use super::hold::unavailable;
use super::metrics::{ArmMetrics, Code};
use super::mirror::is_comparable;
use super::outgoing::Outgoing;
use super::pod::{Flight, Pod, Rest, now};
use super::refused::Refused;
use super::route::Sending;
use super::table::Table;
use super::tee::Tee;
use super::trial::Part;
use crate::bodies::Share;
use crate::protocol::{Error, Kind};

/// Of one request: the first and two more.
const SENDS: usize = 3;

#[derive(Debug)]
pub struct Job {
    pub method: Method,
    pub path: PathAndQuery,
    pub authority: Option<Authority>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What the body takes. None: others count it.
    pub _shares: Option<[Share; 2]>,
    pub is_grpc: bool,
    /// It asks for an inference.
    pub infers: bool,
    /// A revision that the request names.
    pub target: Option<i64>,
    pub started: Duration,
    /// The client's own deadline.
    pub patience: Option<Instant>,
}

pub enum Sent {
    Answer(Response<PodBody>),
    /// `stale`: a connection that had been idle; `unsent`: nothing of it has left.
    Broken {
        stale: bool,
        unsent: bool,
    },
    Late,
}

pub enum Connection {
    Rest(Box<Rest>),
    Grpc(h2::client::SendRequest<Outgoing>),
}

/// # Errors
/// What the client is told.
pub async fn forward(
    table: &Table,
    deployment: &Arc<Deployment>,
    job: Job,
) -> Result<Response<Answer>, (Refused, Error)> {
    let mut waits = Waits::default();
    // Those that took a connection just as it closed, and never left, are no attempts.
    let (mut sends, mut frees) = (0, 0);
    let mut last: Option<Arc<Pod>> = None;
    let mut admitted = None;
    loop {
        let active: Active = match admitted.take() {
            Some(active) => active,
            None => deployment.admit(job.target, job.body.len(), &mut waits, job.patience).await?,
        };
        let route = deployment.route();
        let picked = route.pick(job.target, deployment.ticket(), last.as_deref(), now());
        let Some((arm, pod)) = picked else { continue };
        let (pod, metrics, part) = (pod.clone(), arm.metrics.clone(), arm.part.clone());
        let shadow = route.shadow_of(arm).filter(|_| job.infers && job.target.is_none()).cloned();
        let limit = u64::try_from(route.limits.request_timeout_seconds).unwrap_or(0);
        drop(route);
        let timeout = Duration::from_secs(limit);
        let deadline = Instant::now() + timeout;
        let deadline = job.patience.map_or(deadline, |patience| patience.min(deadline));

        let flight = Flight::begin(&pod, Some(&metrics));
        let connection = match reach(deployment, &pod, &job).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(pod = %pod.address, %error, "can't connect");
                last = Some(pod);
                drop(flight);
                drop(active);
                waits.go_on(&deployment.route().limits, job.patience)?;
                continue;
            }
        };
        // Connecting took its time: the route may be another by now. From here to the end of the request's head, a
        // change of the route waits for us.
        let current = deployment.route();
        let Some(sending) = current.begin().filter(|_| current.allows(job.target, &pod)) else {
            if let Connection::Rest(rest) = connection {
                pod.give_back(rest);
            }
            continue;
        };
        drop(current);

        sends += 1;
        waits.since = None;
        let sent_at = now();
        let unanswered = Unanswered { metrics: &metrics, started: job.started, came: false };
        let sent = unanswered.until(send(&job, connection, Some(sending), deadline)).await;
        let (retry, refusal) = match sent {
            Sent::Answer(response) => {
                let refused = is_refusal(&response, job.is_grpc);
                if !refused {
                    pod.answered();
                }
                if let Some(depth) = response.headers().get("modelwright-queue").and_then(number) {
                    pod.tell_queue(depth);
                }
                if !refused || sends >= SENDS || !deployment.may_retry() {
                    let part = part.map(|part| (part, now().saturating_sub(sent_at)));
                    let tee = shadow
                        .filter(|shadow| is_comparable(&response, job.is_grpc) && shadow.samples())
                        .and_then(|shadow| Tee::begin(&shadow.mirror, &job, response.headers(), timeout));
                    return Ok(answer(response, &job, deadline, metrics, part, flight, active, tee));
                }
                // It has not been run.
                distrust(deployment, &pod);
                (true, None)
            }
            Sent::Broken { stale, unsent } => {
                if let Some(part) = part.filter(|_| !unsent) {
                    part.failed();
                }
                if stale {
                    pod.forget_connections();
                } else {
                    distrust(deployment, &pod);
                }
                let free = unsent && stale && frees < SENDS;
                if free {
                    sends -= 1;
                    frees += 1;
                }
                let retry = free || (sends < SENDS && deployment.may_retry());
                (
                    retry,
                    Some((
                        Refused::Unreachable,
                        unavailable(
                            "the pod broke the connection, more than once or with too many other requests: try again",
                        ),
                    )),
                )
            }
            Sent::Late => {
                if let Some(part) = part {
                    part.failed();
                }
                let message = format!("no answer within {limit} s, or the client's own deadline");
                (false, Some((Refused::Deadline, Error::new(Kind::DeadlineExceeded, message))))
            }
        };
        if let Some((reason, error)) = refusal.filter(|_| !retry) {
            metrics.answered(Code::Server, now().saturating_sub(job.started));
            return Err((reason, error));
        }
        table.metrics.retried(&deployment.name);
        last = Some(pod);
        drop(flight);
        admitted = deployment.is_ready(job.target).then_some(active);
    }
}

/// Counts a request whose client goes before the answer comes.
struct Unanswered<'a> {
    metrics: &'a ArmMetrics,
    started: Duration,
    came: bool,
}

impl Unanswered<'_> {
    async fn until<T>(mut self, answer: impl Future<Output = T>) -> T {
        let answer = answer.await;
        self.came = true;
        answer
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.came {
            self.metrics.answered(Code::Cancelled, now().saturating_sub(self.started));
        }
    }
}

/// A pod that fails gets nothing for a while; then whoever waits tries it again.
fn distrust(deployment: &Arc<Deployment>, pod: &Arc<Pod>) {
    if let Some(pause) = pod.suspect(now()) {
        let deployment = deployment.clone();
        tokio::spawn(async move {
            // Past the millisecond that the pod remembers.
            tokio::time::sleep(pause + Duration::from_millis(2)).await;
            deployment.pump();
        });
    }
}

/// # Errors
/// The pod can't be reached, or not while the client waits: nothing was sent.
async fn reach(deployment: &Arc<Deployment>, pod: &Arc<Pod>, job: &Job) -> std::io::Result<Connection> {
    if let Some(connection) = kept(pod, job.is_grpc).await {
        return Ok(connection);
    }
    // In a task of its own: that nobody answers must be found out also where every client goes before that.
    let (deployment, pod, is_grpc) = (deployment.clone(), pod.clone(), job.is_grpc);
    let dialed = tokio::spawn(async move {
        let dialed = dial(&pod, is_grpc).await;
        if dialed.is_err() {
            distrust(&deployment, &pod);
        }
        dialed
    });
    match job.patience {
        Some(patience) => tokio::time::timeout_at(patience, dialed).await??,
        None => dialed.await?,
    }
}

/// # Errors
/// The pod can't be reached: nothing was sent.
pub async fn connect(pod: &Pod, is_grpc: bool) -> std::io::Result<Connection> {
    match kept(pod, is_grpc).await {
        Some(connection) => Ok(connection),
        None => dial(pod, is_grpc).await,
    }
}

async fn kept(pod: &Pod, is_grpc: bool) -> Option<Connection> {
    match is_grpc {
        true => pod.open_grpc().await.map(Connection::Grpc),
        false => pod.idle_rest().await.map(Connection::Rest),
    }
}

async fn dial(pod: &Pod, is_grpc: bool) -> std::io::Result<Connection> {
    match is_grpc {
        true => pod.dial_grpc().await.map(Connection::Grpc),
        false => pod.dial_rest().await.map(Connection::Rest),
    }
}

/// `sending`: None where no route waits for it.
pub async fn send(job: &Job, connection: Connection, sending: Option<Sending>, deadline: Instant) -> Sent {
    let outgoing = Outgoing::new(job.body.clone(), sending);
    let mut request = Request::new(());
    *request.method_mut() = job.method.clone();
    *request.headers_mut() = job.headers.clone();
    match connection {
        Connection::Grpc(mut sender) => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = job.uri();
            let answer = sender.send_request(request, false).and_then(|(answer, mut stream)| {
                stream.send_data(outgoing, true)?;
                Ok(answer)
            });
            let answer = match answer {
                Ok(answer) => tokio::time::timeout_at(deadline, answer).await,
                Err(error) => Ok(Err(error)),
            };
            match answer {
                Ok(Ok(response)) => Sent::Answer(response.map(|body| PodBody::Grpc(body, false, false))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a pod broke a stream");
                    // A pod that leaves says so, and which requests it has not looked at.
                    let unsent = error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
                    Sent::Broken { stale: unsent, unsent }
                }
                Err(_) => Sent::Late,
            }
        }
        Connection::Rest(mut rest) => {
            let mut request = request.map(|()| outgoing);
            *request.uri_mut() = Uri::from(job.path.clone());
            if let Some(host) = job.host() {
                request.headers_mut().insert(HOST, host);
            }
            let stale = rest.used;
            let answer = {
                let Rest { sender, connection, .. } = &mut *rest;
                let mut answer = pin!(sender.send_request(request));
                let both = std::future::poll_fn(move |context| {
                    if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                        return Poll::Ready(answer);
                    }
                    // That it has ended shows in the answer.
                    connection.poll(context);
                    answer.as_mut().poll(context)
                });
                tokio::time::timeout_at(deadline, both).await
            };
            match answer {
                Ok(Ok(response)) => Sent::Answer(response.map(|body| PodBody::Rest(body, Some(rest)))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a pod broke a connection");
                    Sent::Broken { stale, unsent: error.is_canceled() }
                }
                Err(_) => Sent::Late,
            }
        }
    }
}

impl Job {
    fn host(&self) -> Option<HeaderValue> {
        match &self.authority {
            Some(authority) if !self.headers.contains_key(HOST) => {
                HeaderValue::from_str(authority.as_str()).ok()
            }
            _ => None,
        }
    }

    fn uri(&self) -> Uri {
        let mut parts = axum::http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone().unwrap_or_else(|| Authority::from_static("model")));
        parts.path_and_query = Some(self.path.clone());
        // Three parts that were read from a URI make one.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// The server says so before it runs a request: it is loading, stopping, or full.
pub fn is_refusal<B>(response: &Response<B>, is_grpc: bool) -> bool {
    let headers = response.headers();
    let unavailable = match is_grpc {
        true => headers.get("grpc-status").is_some_and(|status| status == "14"),
        false => response.status() == StatusCode::SERVICE_UNAVAILABLE,
    };
    unavailable && headers.contains_key(RETRY_AFTER)
}

fn number(value: &HeaderValue) -> Option<usize> {
    value.to_str().ok()?.parse().ok()
}

#[allow(clippy::too_many_arguments)]
fn answer(
    response: Response<PodBody>,
    job: &Job,
    deadline: Instant,
    metrics: Arc<ArmMetrics>,
    part: Option<(Part, Duration)>,
    flight: Flight,
    active: Active,
    tee: Option<Box<Tee>>,
) -> Response<Answer> {
    let (mut head, body) = response.into_parts();
    let code = match job.is_grpc {
        false => Some(Code::of_http(head.status.as_u16())),
        true => head.headers.get("grpc-status").map(|status| Code::of_grpc(status.as_bytes())),
    };
    headers::strip(&mut head.headers);
    head.version = Version::default();
    let from_pod = FromPod::new(body, code, deadline, job.started, metrics, part, flight, active, tee);
    Response::from_parts(head, Answer::Pod(Box::new(from_pod)))
}
