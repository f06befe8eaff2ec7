//! A request from its arrival to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Request, Response, Version};
use bytes::Bytes;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::answer::{Answer, failure};
use super::deployment::Deployment;
use super::forward::{Job, forward};
use super::message::{self, Compression};
use super::pod::now;
use super::refused::Refused;
use super::table::Table;
use super::{choose, headers, local};
use crate::bodies::{Share, join};
use crate::listen::App;
use crate::protocol::{Error, Kind, grpc_timeout};

/// Of a request whose deployment is not known before its message is read.
const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The data port.
#[derive(Clone)]
pub struct Proxy(pub Arc<Table>);

impl App for Proxy {
    type Body = Answer;

    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let (mut head, body) = request.into_parts();
        let id = headers::identified(&mut head.headers);
        let is_grpc = head.version == Version::HTTP_2
            && head.headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
        let by_host = by_host(&self.0, &head);
        let known = by_host.clone();
        let mut response = match handle(&self.0, head, body, is_grpc, by_host).await {
            Ok(response) => response,
            Err(Failure { deployment, reason, error }) => {
                let deployment = deployment.or(known);
                let name = deployment.as_ref().map_or("", |deployment| &deployment.name);
                self.0.metrics.refused(name, reason);
                failure(&error, is_grpc)
            }
        };
        if let Some(id) = id.filter(|_| !matches!(response.body(), Answer::Pod(_))) {
            response.headers_mut().insert(headers::REQUEST_ID, id);
        }
        response
    }
}

pub(super) struct Failure {
    pub deployment: Option<Arc<Deployment>>,
    pub reason: Refused,
    pub error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = match error.kind {
            Kind::TooLarge => Refused::TooLarge,
            Kind::Unauthenticated => Refused::Unauthenticated,
            Kind::PermissionDenied => Refused::Forbidden,
            Kind::NotFound => Refused::Unknown,
            Kind::Unavailable => Refused::Memory,
            Kind::SlowRequest | Kind::DeadlineExceeded => Refused::Slow,
            _ => Refused::Invalid,
        };
        Self { deployment: None, reason, error }
    }
}

fn by_host(table: &Table, head: &Parts) -> Option<Arc<Deployment>> {
    let host = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(HOST)?.to_str().ok()?,
    };
    let label = choose::first_label(host);
    match label.bytes().any(|byte| byte.is_ascii_uppercase()) {
        false => table.get(label),
        true => table.get(&label.to_ascii_lowercase()),
    }
}

async fn handle(
    table: &Arc<Table>,
    mut head: Parts,
    body: Incoming,
    is_grpc: bool,
    by_host: Option<Arc<Deployment>>,
) -> Result<Response<Answer>, Failure> {
    let started = now();
    let arrived = Instant::now();
    let path = head.uri.path();
    let mut deployment = by_host;
    let (mut target, mut asks_ready) = (None, false);
    let asked = local::Asked::of(path);
    let asks_index = !is_grpc && deployment.is_none() && local::asks_index(&head);
    if is_grpc {
        local::refuse(path)?;
    } else {
        if let Some(response) = local::rest(&head, deployment.as_ref()) {
            return Ok(response);
        }
        if let Some(named) = choose::in_path(path) {
            target = choose::revision(named.version.unwrap_or_default())?;
            asks_ready = named.ready;
            match &deployment {
                Some(deployment) => choose::agree(&deployment.name, named.name)?,
                None => deployment = Some(known(table, named.name)?),
            }
        }
        if deployment.is_none() && !asks_index {
            return Err(local::which_model(&head).into());
        }
    }
    let is_open = asks_ready || (is_grpc && asked.is_health(path));
    if let Some(deployment) = deployment.as_ref().filter(|_| !is_open) {
        permit(table, deployment, &head)?;
    }

    let limit = deployment.as_ref().map_or_else(|| table.largest(), max_bytes);
    let patience = is_grpc.then(|| grpc_timeout(&head.headers)).flatten().map(|timeout| arrived + timeout);
    let mut share = table.bodies.share();
    let within = deployment.as_ref().map_or(UNKNOWN_TIMEOUT, |deployment| timeout(deployment));
    let reading = join(body, if is_grpc { message::framed(limit) } else { limit }, &mut share);
    let until = patience.map_or(arrived + within, |patience| patience.min(arrived + within));
    let body = match tokio::time::timeout_at(until, reading).await {
        Ok(body) => body.map_err(|e| if e.kind == Kind::TooLarge { Error::too_large(limit) } else { e })?,
        Err(_) => return Err(Error::new(Kind::SlowRequest, "the request did not arrive in time").into()),
    };

    if asks_index {
        return Ok(local::rest_index(table, &head, &body)?);
    }
    if is_grpc {
        let (name, version) = match asked {
            local::Asked::Model { .. } | local::Asked::Health => {
                read_message(&head, &body, limit, &mut share).await?
            }
            local::Asked::Server | local::Asked::Other => (String::new(), String::new()),
        };
        if let Some(response) = local::grpc(table, asked, &head, &body, &name, deployment.as_ref())? {
            return Ok(response);
        }
        target = choose::revision(&version)?;
        match &deployment {
            // The server tells what an empty name means.
            Some(deployment) if !name.is_empty() => choose::agree(&deployment.name, &name)?,
            Some(_) => {}
            None if name.is_empty() => return Err(local::which_model(&head).into()),
            None => {
                let named = known(table, &name)?;
                if !is_open {
                    permit(table, &named, &head)?;
                }
                deployment = Some(named);
            }
        }
        asks_ready = asked == local::Asked::Model { ready: true };
    }
    let Some(deployment) = deployment else { return Err(local::which_model(&head).into()) };
    let limit = max_bytes(&deployment);
    let fails =
        |reason: Refused, error: Error| Failure { deployment: Some(deployment.clone()), reason, error };
    if body.len() > if is_grpc { message::framed(limit) } else { limit } {
        return Err(fails(Refused::TooLarge, Error::too_large(limit)));
    }
    let mut own = deployment.bodies.share();
    own.take(body.len()).map_err(|error| fails(Refused::Memory, error))?;
    if asks_ready && !deployment.is_ready(target) {
        return Ok(local::not_ready(&deployment, is_grpc));
    }

    headers::forwarded(&mut head.headers, is_grpc);
    let infers = choose::infers(head.uri.path(), is_grpc);
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let job = Job {
        method: head.method,
        path,
        authority: head.uri.authority().cloned(),
        headers: head.headers,
        body,
        _shares: Some([share, own]),
        is_grpc,
        infers,
        target,
        started,
        patience,
    };
    let forwarded = forward(table, &deployment, job).await;
    forwarded.map_err(|(reason, error)| fails(reason, error))
}

/// What needs no key is answered without a look at it.
fn permit(table: &Table, deployment: &Arc<Deployment>, head: &Parts) -> Result<(), Failure> {
    let permitted = local::permit(table, deployment, &head.headers);
    permitted.map_err(|error| Failure { deployment: Some(deployment.clone()), ..error.into() })
}

fn known(table: &Table, name: &str) -> Result<Arc<Deployment>, Error> {
    table.get(name).ok_or_else(|| {
        let name = choose::shortened(name);
        Error::not_found(format!(
            "unknown model {name:?}: there is no ModelDeployment of this name in the namespace"
        ))
    })
}

fn max_bytes(deployment: &Arc<Deployment>) -> usize {
    usize::try_from(deployment.route().limits.max_request_bytes).unwrap_or(0)
}

fn timeout(deployment: &Deployment) -> Duration {
    Duration::from_secs(u64::try_from(deployment.route().limits.request_timeout_seconds).unwrap_or(0))
}

/// The model's name and version in a call's message.
async fn read_message(
    head: &Parts,
    body: &Bytes,
    limit: usize,
    share: &mut Share,
) -> Result<(String, String), Error> {
    let (packed, message) = message::unframed(body, limit)?;
    let owned = |(name, version): (&str, &str)| (name.to_string(), version.to_string());
    if !packed {
        return message::name_and_version(&message).map(owned);
    }
    let encoding = Compression::named(&head.headers)?;
    /// deflate packs no tighter.
    const TIGHTEST: usize = 1032;
    share.take(message.len().saturating_mul(TIGHTEST).min(limit))?;
    let read = move || {
        message::unpacked(&message, encoding, limit).and_then(|m| message::name_and_version(&m).map(owned))
    };
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "unpacking failed")))
}
