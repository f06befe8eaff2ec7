use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, Request, ValidationDirective};
use kube::core::Status;
use kube::{Client, Resource};
use serde::Deserialize;
use serde_json::Value;

use crate::api::{ModelDeployment, ModelRoute, Reason, labels};
use crate::operator::{Lease, Metrics};
use crate::plan::{self, Finding, Kind, Write};

/// kube's read time-out defaults to none: a silent connection would hold a reconcile for ever.
const DEADLINE: Duration = Duration::from_secs(15);
const FIELD_MANAGER: &str = "modelwright";

/// The one way to the API server for everything that changes it.
pub struct Writer {
    client: Client,
    lease: Arc<Lease>,
    metrics: Arc<Metrics>,
    number: AtomicU64,
}

/// What the API server said of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub uid: String,
    pub resource_version: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("not the leader")]
    NotLeader,
    #[error("the API server did not answer {0} within {1} s")]
    Timeout(String, u64),
    /// The object is gone, or another, or newer than what was seen: look again.
    #[error("{0} changed meanwhile")]
    Stale(String),
    #[error("{kind} {name} exists and does not belong to this ModelDeployment: rename one of them")]
    NameConflict { kind: &'static str, name: String },
    #[error("the namespace is being deleted")]
    NamespaceTerminating,
    /// The resolve pod, by quota, pod security or another rule: what the API server would tell a controller of ours.
    #[error("{message}")]
    PodRefused { message: String },
    #[error("{what}: {message}")]
    Refused { what: String, code: u16, message: String },
    #[error("{what}: {source}")]
    Unreachable { what: String, source: Box<kube::Error> },
}

#[derive(Deserialize)]
struct Object {
    metadata: ObjectMeta,
}

impl Writer {
    pub fn new(client: Client, lease: Arc<Lease>, metrics: Arc<Metrics>) -> Self {
        Self { client, lease, metrics, number: AtomicU64::new(0) }
    }

    /// Sends one write. Checks first that the lease is still ours, on the monotonic clock.
    pub async fn send(&self, namespace: &str, write: &Write) -> Result<Written, WriteError> {
        if !self.lease.held() {
            return Err(WriteError::NotLeader);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let what = format!("{} {} {namespace}/{}", write.verb(), write.kind().as_str(), write.name());
        #[cfg(feature = "faults")]
        super::faults::point(super::faults::Moment::Before, number);
        let answer = tokio::time::timeout(DEADLINE, self.request(namespace, write)).await;
        #[cfg(feature = "faults")]
        super::faults::point(super::faults::Moment::Sent, number);
        let result = match answer {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(error)) => self.explain(namespace, write, &what, error).await,
            Err(_) => Err(WriteError::Timeout(what.clone(), DEADLINE.as_secs())),
        };
        #[cfg(feature = "faults")]
        super::faults::point(super::faults::Moment::Answered, number);
        self.metrics.wrote(write.kind(), write.verb(), result.is_ok());
        match &result {
            Ok(_) => tracing::debug!(number, write = what, "wrote"),
            Err(error) => tracing::info!(number, write = what, %error, "write failed"),
        }
        result
    }

    async fn request(&self, namespace: &str, write: &Write) -> Result<Written, kube::Error> {
        let request = Request::new(path(write.kind(), namespace));
        let bytes = |body: &Value| serde_json::to_vec(body).map_err(kube::Error::SerdeError);
        let build = |e: kube::core::request::Error| kube::Error::BuildRequest(e);
        let request = match write {
            Write::Create { body, .. } => {
                let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
                request.create(&params, bytes(body)?).map_err(build)?
            }
            Write::Apply { kind: Kind::ModelDeployment, name, body } => {
                let params = PatchParams::apply("modelwright-status").force();
                request.patch_subresource("status", name, &params, &Patch::Apply(body)).map_err(build)?
            }
            Write::Apply { name, body, .. } => {
                let mut params = PatchParams::apply(FIELD_MANAGER).force();
                params.field_validation = Some(ValidationDirective::Strict);
                request.patch(name, &params, &Patch::Apply(body)).map_err(build)?
            }
            Write::Delete { kind, name, uid, resource_version } => {
                let mut params = DeleteParams::background();
                // The pods that we delete have ended or only read: nobody waits for a kubelet, which may be gone.
                params.grace_period_seconds = (*kind == Kind::Pod).then_some(0);
                params.preconditions = Some(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: Some(resource_version.to_string()),
                });
                let request = request.delete(name, &params).map_err(build)?;
                self.client.request::<serde::de::IgnoredAny>(request).await?;
                return Ok(Written { uid: uid.clone(), resource_version: 0 });
            }
        };
        self.client.request::<Object>(request).await.map(Written::from)
    }

    /// Says what an error means; a create that met an object of ours has succeeded before.
    async fn explain(
        &self,
        namespace: &str,
        write: &Write,
        what: &str,
        error: kube::Error,
    ) -> Result<Written, WriteError> {
        let status = match error {
            kube::Error::Api(status) => status,
            other => {
                return Err(WriteError::Unreachable { what: what.into(), source: Box::new(other) });
            }
        };
        match (write, status.code) {
            // The namespace's own: no watch shows it as ours, so no read is needed (and no right to one).
            (Write::Create { kind, name, body }, 409)
                if status.reason == "AlreadyExists"
                    && body["metadata"]["labels"][labels::COMPONENT] == labels::GATEWAY =>
            {
                Err(WriteError::NameConflict { kind: kind.as_str(), name: name.clone() })
            }
            (Write::Create { kind, name, body }, 409) if status.reason == "AlreadyExists" => {
                self.existing(namespace, *kind, name, body).await
            }
            (Write::Delete { uid, .. }, 404) => Ok(Written { uid: uid.clone(), resource_version: 0 }),
            (_, 404 | 409) => Err(WriteError::Stale(what.into())),
            _ if is_terminating(&status) => Err(WriteError::NamespaceTerminating),
            (Write::Create { kind: Kind::Pod, .. }, 400..=428) => {
                Err(WriteError::PodRefused { message: status.message })
            }
            _ => Err(WriteError::Refused { what: what.into(), code: status.code, message: status.message }),
        }
    }

    /// One read: did we create it before a crash, does it wait for the garbage collector, or is it somebody else's?
    async fn existing(
        &self,
        namespace: &str,
        kind: Kind,
        name: &str,
        body: &Value,
    ) -> Result<Written, WriteError> {
        let what = format!("get {} {namespace}/{name}", kind.as_str());
        let request = Request::new(path(kind, namespace)).get(name, &Default::default());
        let request = request.map_err(|e| WriteError::Unreachable {
            what: what.clone(),
            source: Box::new(kube::Error::BuildRequest(e)),
        })?;
        let object = match tokio::time::timeout(DEADLINE, self.client.request::<Object>(request)).await {
            Err(_) => return Err(WriteError::Timeout(what, DEADLINE.as_secs())),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Err(WriteError::Stale(what)),
            Ok(Err(error)) => return Err(WriteError::Unreachable { what, source: Box::new(error) }),
            Ok(Ok(object)) => object,
        };
        let ours = &body["metadata"]["ownerReferences"][0];
        let owner = object.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        match owner {
            Some(owner) if ours["uid"] == owner.uid.as_str() => {
                if object.metadata.deletion_timestamp.is_some() {
                    return Err(WriteError::Stale(what));
                }
                Ok(Written::from(object))
            }
            // Of a former ModelDeployment of this name: the garbage collector is on its way.
            Some(owner) if owner.kind == "ModelDeployment" && ours["name"] == owner.name.as_str() => {
                Err(WriteError::Stale(what))
            }
            _ => Err(WriteError::NameConflict { kind: kind.as_str(), name: name.into() }),
        }
    }
}

impl From<Object> for Written {
    fn from(object: Object) -> Self {
        let version = object.metadata.resource_version.and_then(|v| v.parse().ok());
        Self { uid: object.metadata.uid.unwrap_or_default(), resource_version: version.unwrap_or(0) }
    }
}

impl WriteError {
    /// None where it passes by itself.
    pub fn finding(&self) -> Option<Finding> {
        match self {
            WriteError::NameConflict { .. } => Some(Finding::new(Reason::NameConflict, self.to_string())),
            WriteError::PodRefused { message } => Some(plan::of_refusal(message)),
            WriteError::Refused { code: 429 | 500.., .. } => None,
            WriteError::Refused { message, .. } if message.contains("exceeded quota") => {
                Some(Finding::new(Reason::QuotaExceeded, self.to_string()))
            }
            WriteError::Refused { .. } => Some(Finding::new(Reason::WriteFailed, self.to_string())),
            _ => None,
        }
    }
}

fn is_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    status.code == 403 && causes.clone().any(|c| c.reason == "NamespaceTerminating")
}

fn path(kind: Kind, namespace: &str) -> String {
    let namespace = Some(namespace);
    match kind {
        Kind::ModelDeployment => ModelDeployment::url_path(&(), namespace),
        Kind::ControllerRevision => ControllerRevision::url_path(&(), namespace),
        Kind::ReplicaSet => ReplicaSet::url_path(&(), namespace),
        Kind::ModelRoute => ModelRoute::url_path(&(), namespace),
        Kind::Service => Service::url_path(&(), namespace),
        Kind::PodDisruptionBudget => PodDisruptionBudget::url_path(&(), namespace),
        Kind::Pod => Pod::url_path(&(), namespace),
        Kind::Event => Event::url_path(&(), namespace),
        Kind::Deployment => Deployment::url_path(&(), namespace),
        Kind::ServiceAccount => ServiceAccount::url_path(&(), namespace),
        Kind::Role => Role::url_path(&(), namespace),
        Kind::RoleBinding => RoleBinding::url_path(&(), namespace),
        Kind::NetworkPolicy => NetworkPolicy::url_path(&(), namespace),
    }
}
