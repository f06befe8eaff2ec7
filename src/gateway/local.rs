//! What the gateway answers itself: questions that name no model, and whether one is ready when none of its pods is.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use bytes::Bytes;
use prost::Message;
use serde_json::json;

use super::answer::{self, Answer};
use super::choose;
use super::deployment::Deployment;
use super::message;
use super::table::Table;
use crate::api::Authentication;
use crate::protocol::grpc::proto;
use crate::protocol::rest::only_ready;
use crate::protocol::{EXTENSIONS, Error, Kind, refusal};

const SERVER: &str = "modelwright-gateway";

/// What a gRPC method is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Fields 1 and 2 of its message are a model's name and version. `ready`: that is the question.
    Model {
        ready: bool,
    },
    Server,
    Health,
    Other,
}

impl Asked {
    /// Probes ask it, and they have no key.
    pub fn is_health(self, path: &str) -> bool {
        matches!(self, Self::Health | Self::Model { ready: true })
            || matches!(choose::method(path), Some("ServerLive" | "ServerReady"))
    }

    pub fn of(path: &str) -> Self {
        match choose::method(path) {
            Some("ServerLive" | "ServerReady" | "ServerMetadata" | "RepositoryIndex") => Self::Server,
            Some("ModelReady") => Self::Model { ready: true },
            Some("ModelInfer" | "ModelMetadata" | "ModelConfig" | "ModelStatistics") => {
                Self::Model { ready: false }
            }
            Some(_) => Self::Other,
            None if path == "/grpc.health.v1.Health/Check" => Self::Health,
            None => Self::Other,
        }
    }
}

/// What no pod does. Requests are read whole before they are sent on: what talks back and forth can't pass, either.
///
/// # Errors
/// `Kind::MethodNotAllowed`
pub fn refuse(path: &str) -> Result<(), Error> {
    let message = match path {
        "/grpc.health.v1.Health/Watch" => Some("the gateway answers Check only"),
        _ if path.starts_with("/grpc.reflection.") => Some(
            "the gateway has no reflection: ask a pod of the model, or give the client the protocol's .proto",
        ),
        _ => choose::method(path).and_then(refusal::of_method),
    };
    message.map_or(Ok(()), |message| Err(Error::new(Kind::MethodNotAllowed, message)))
}

/// None: for a pod to answer.
pub fn rest(head: &Parts, by_host: Option<&Arc<Deployment>>) -> Option<Response<Answer>> {
    let path = head.uri.path();
    let get = head.method == Method::GET || head.method == Method::HEAD;
    match path {
        "/" | "/healthz" if get => Some(answer::text(StatusCode::OK, "ok\n")),
        "/v2/health/live" if get => Some(answer::text(StatusCode::OK, "")),
        "/v2/health/ready" if get => Some(match by_host {
            Some(deployment) if !deployment.is_ready(None) => not_ready(deployment, false),
            _ => answer::text(StatusCode::OK, ""),
        }),
        "/v2" | "/v2/" if get && by_host.is_none() => Some(answer::json(StatusCode::OK, &metadata())),
        // A worker's own metrics, and whatever else it has, are not for clients.
        _ if !path.starts_with("/v2/") && path != "/v2" => {
            let error = Error::not_found("unknown path: the protocol's begin with /v2");
            Some(answer::failure(&error, false))
        }
        _ => None,
    }
}

/// Whether it is a question that names no model and has a body.
pub fn asks_index(head: &Parts) -> bool {
    head.uri.path() == "/v2/repository/index" && head.method == Method::POST
}

/// # Errors
/// `Kind::Invalid`: the body is no index request.
pub fn rest_index(table: &Table, head: &Parts, body: &Bytes) -> Result<Response<Answer>, Error> {
    let models = permitted(table, head, only_ready(body)?);
    let entry = |deployment: &Arc<Deployment>| json!({"name": deployment.name, "state": state(deployment), "reason": ""});
    let models: Vec<_> = models.iter().map(entry).collect();
    Ok(answer::json(StatusCode::OK, &models.into()))
}

/// Those that the sender of a request may use, or the ready ones among them.
fn permitted(table: &Table, head: &Parts, only_ready: bool) -> Vec<Arc<Deployment>> {
    let mut all: Vec<_> = table.all().values().cloned().collect();
    all.retain(|deployment| !only_ready || deployment.is_ready(None));
    all.retain(|deployment| permit(table, deployment, &head.headers).is_ok());
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// Whether the sender of a request may use the deployment.
///
/// # Errors
/// What it is told.
pub fn permit(table: &Table, deployment: &Deployment, headers: &HeaderMap) -> Result<(), Error> {
    match deployment.authentication() {
        Authentication::None => Ok(()),
        Authentication::ApiKey => table.keys.load().check(headers, &deployment.name),
    }
}

fn state(deployment: &Deployment) -> &'static str {
    if deployment.is_ready(None) { "READY" } else { "UNAVAILABLE" }
}

fn metadata() -> serde_json::Value {
    json!({"name": SERVER, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS})
}

/// None: for a pod to answer.
///
/// # Errors
/// `Kind::NotFound`: health of a service that is not known; `Kind::MethodNotAllowed`; `Kind::Invalid`
pub fn grpc(
    table: &Table,
    asked: Asked,
    head: &Parts,
    body: &Bytes,
    name: &str,
    by_host: Option<&Arc<Deployment>>,
) -> Result<Option<Response<Answer>>, Error> {
    const YES: &[u8] = &[0x08, 1];
    /// `NOT_SERVING`
    const NOT_SERVING: &[u8] = &[0x08, 2];
    let message: Bytes = match (asked, choose::method(head.uri.path())) {
        (Asked::Server, Some("ServerLive")) => message::frame(YES),
        (Asked::Server, Some("ServerReady")) => {
            let ready = by_host.is_none_or(|deployment| deployment.is_ready(None));
            message::frame(if ready { YES } else { &[] })
        }
        (Asked::Server, Some("ServerMetadata")) if by_host.is_none() => {
            let mut message = Vec::new();
            message::string(1, SERVER, &mut message);
            message::string(2, env!("CARGO_PKG_VERSION"), &mut message);
            EXTENSIONS.iter().for_each(|extension| message::string(3, extension, &mut message));
            message::frame(&message)
        }
        (Asked::Server, Some("RepositoryIndex")) if by_host.is_none() => grpc_index(table, head, body)?,
        (Asked::Health, _) => {
            let named = match (by_host, name) {
                (_, "" | "inference.GRPCInferenceService") => by_host.cloned(),
                (Some(deployment), name) => {
                    choose::agree(&deployment.name, name)?;
                    Some(deployment.clone())
                }
                (None, name) => {
                    let unknown = || Error::not_found("unknown service: name a model, or nothing");
                    Some(table.get(name).ok_or_else(unknown)?)
                }
            };
            let ready = named.is_none_or(|deployment| deployment.is_ready(None));
            message::frame(if ready { YES } else { NOT_SERVING })
        }
        (Asked::Other, _) if by_host.is_none() => {
            return Err(Error::new(Kind::MethodNotAllowed, "the protocol does not have this method"));
        }
        _ => return Ok(None),
    };
    Ok(Some(answer::grpc(message)))
}

fn grpc_index(table: &Table, head: &Parts, body: &Bytes) -> Result<Bytes, Error> {
    /// Of a message that holds a name and a flag.
    const LIMIT: usize = 64 << 10;
    let message = message::plain(&head.headers, body, LIMIT)?;
    let request = proto::RepositoryIndexRequest::decode(&message[..])
        .map_err(|_| Error::invalid("the message is no index request"))?;
    let models = permitted(table, head, request.ready).into_iter();
    let models = models.map(|deployment| proto::repository_index_response::ModelIndex {
        name: deployment.name.clone(),
        state: state(&deployment).into(),
        ..Default::default()
    });
    let response = proto::RepositoryIndexResponse { models: models.collect() };
    Ok(message::frame(&response.encode_to_vec()))
}

/// The answer to whether a model is ready, when it is not: such a question wakes nobody, and waits for nothing.
pub fn not_ready(deployment: &Deployment, is_grpc: bool) -> Response<Answer> {
    if is_grpc {
        return answer::grpc(message::frame(&[]));
    }
    let message = format!("model {:?} has no ready pod", deployment.name);
    answer::failure(&Error::new(Kind::Unavailable, message), false)
}

pub fn which_model(head: &Parts) -> Error {
    let path = head.uri.path();
    if let Some(message) = refusal::of_path(path) {
        return Error::not_found(message);
    }
    let path = choose::shortened(path);
    Error::not_found(format!(
        "{path} does not say which model: name it in the path (/v2/models/NAME), in the message, or as the first label \
         of the host"
    ))
}
