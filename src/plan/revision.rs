//! Which revision a spec is. "New" means a semantic difference from what was stored, never a hash over our structs:
//! an operator with new fields or defaults must find its old revisions again.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube_quantity::ParsedQuantity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::api::{
    BatchingSpec, ModelDeploymentSpec, ModelSpec, PodOptions, ResourcesSpec, RuntimeSpec, annotations,
};
use crate::formats::{HubSettings, Resolved, S3Settings, SourceRequest};
use crate::observe::{RevisionView, Snapshot};

/// The part of the spec whose change makes a revision, as the user wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSpec {
    pub model: ModelSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOptions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<BatchingSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
}

/// The data of a ControllerRevision: enough to run the revision again as it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionData {
    pub format_version: u32,
    pub spec: RevisionSpec,
    pub resolved: Resolved,
    pub image: String,
    pub runtime_version: String,
    /// Never rendered again: an upgrade of the operator restarts no pod.
    pub template: PodTemplate,
}

/// A rendered pod template. Kept as text: as a tree it takes several times the room, and there is one a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTemplate(Box<str>);

impl From<&Value> for PodTemplate {
    fn from(template: &Value) -> Self {
        Self(template.to_string().into())
    }
}

impl PodTemplate {
    pub fn to_value(&self) -> Value {
        // It was made from a value.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl Serialize for PodTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PodTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self::from(&value))
    }
}

/// What a spec means, given the revisions there are.
pub(super) enum Choice {
    Known(Arc<RevisionView>),
    /// A new revision of a source that is resolved already.
    Resolved(Box<Resolved>),
    /// `fallback`: the revision that stands until a re-resolve says otherwise.
    Resolve {
        fallback: Option<Arc<RevisionView>>,
    },
}

pub(super) fn choose(snapshot: &Snapshot) -> Choice {
    let wanted = RevisionSpec::of(&snapshot.deployment.spec);
    let verb = resolve_at(snapshot);
    let done = |r: &RevisionView| verb.is_none() || r.resolve_at.as_deref() == verb;
    let newest = |matches: &dyn Fn(&RevisionData) -> bool| {
        let revisions = snapshot.family.revisions.iter().rev();
        revisions.clone().find(|r| r.data.as_ref().is_some_and(matches)).cloned()
    };
    // Every revision that is made notes the verb: the newest ones know it even after a way back to an older one.
    let restart = restarted_at(snapshot);
    let restarted = restart.is_none()
        || snapshot.family.revisions.iter().any(|revision| revision.restarted_at.as_deref() == restart);
    if let Some(equal) = newest(&|data| restarted && data.spec.same(&wanted)) {
        return if done(&equal) { Choice::Known(equal) } else { Choice::Resolve { fallback: Some(equal) } };
    }
    match newest(&|data| same_source(&data.spec, &wanted)) {
        Some(donor) if done(&donor) => match &donor.data {
            Some(data) => Choice::Resolved(Box::new(data.resolved.clone())),
            None => Choice::Resolve { fallback: None },
        },
        _ => Choice::Resolve { fallback: None },
    }
}

/// The verb's value, when it is said.
pub(super) fn resolve_at(snapshot: &Snapshot) -> Option<&str> {
    verb(snapshot, annotations::RESOLVE_AT)
}

pub(super) fn restarted_at(snapshot: &Snapshot) -> Option<&str> {
    verb(snapshot, annotations::RESTARTED_AT)
}

fn verb<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a str> {
    let annotations = snapshot.deployment.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

pub(super) fn same_bytes(revision: &RevisionView, resolved: &Resolved) -> bool {
    let Some(data) = &revision.data else { return false };
    let (ours, theirs) = (&data.resolved.source, &resolved.source);
    ours.files == theirs.files && ours.sha256 == theirs.sha256 && ours.immutable == theirs.immutable
}

fn same_source(a: &RevisionSpec, b: &RevisionSpec) -> bool {
    source_request(&a.model) == source_request(&b.model)
}

/// What the resolver and the loader are told.
pub(super) fn source_request(model: &ModelSpec) -> SourceRequest {
    SourceRequest {
        uri: model.uri.clone(),
        digest: model.digest.clone(),
        s3: model.s3.as_ref().map(|s| S3Settings { endpoint: s.endpoint.clone(), region: s.region.clone() }),
        hf: model.hf.as_ref().map(|h| HubSettings { endpoint: h.endpoint.clone() }),
        insecure_http: model.insecure_http.unwrap_or(false),
        secret_name: model.secret_ref.as_ref().map(|r| r.name.clone()),
        ca_bundle_name: model.ca_bundle_ref.as_ref().map(|r| r.name.clone()),
    }
}

impl RevisionSpec {
    pub fn of(spec: &ModelDeploymentSpec) -> Self {
        // Destructured without `..`: a new field must be sorted into revision or live before this compiles.
        let ModelDeploymentSpec {
            model,
            replicas: _,
            autoscaling: _,
            suspend: _,
            paused: _,
            strategy: _,
            traffic: _,
            security: _,
            service_account_name,
            runtime,
            resources,
            pod,
            batching,
            termination_grace_period_seconds,
            revision_history_limit: _,
            progress_deadline_seconds: _,
            progress_deadline_abort: _,
        } = spec;
        Self {
            model: model.clone(),
            service_account_name: service_account_name.clone(),
            runtime: runtime.clone(),
            resources: resources.clone(),
            pod: pod.clone(),
            batching: batching.clone(),
            termination_grace_period_seconds: *termination_grace_period_seconds,
        }
    }

    /// Means the same: `1` and `1000m` are one quantity; an absent field, an empty one and `false` are one thing.
    pub fn same(&self, other: &Self) -> bool {
        // Most differ in what has one spelling only.
        self == other || (self.model.uri == other.model.uri && self.normal() == other.normal())
    }

    fn normal(&self) -> Value {
        let mut spec = self.clone();
        spec.model.compatibility = None; // what may be rolled out, not what runs
        spec.service_account_name = spec.service_account_name.filter(|name| name != "default");
        if let Some(batching) = &mut spec.batching {
            batching.max_queue_delay_microseconds =
                batching.max_queue_delay_microseconds.filter(|delay| *delay > 0);
        }
        if let Some(limit) = spec.runtime.as_mut().and_then(|r| r.gpu_memory_limit.as_mut()) {
            *limit = normal_quantity(limit);
        }
        if let Some(resources) = &mut spec.resources {
            for quantity in resources.requests.values_mut().chain(resources.limits.values_mut()) {
                *quantity = normal_quantity(quantity);
            }
        }
        let mut value = serde_json::to_value(spec).unwrap_or_default();
        prune(&mut value);
        value
    }
}

/// In base units with trailing zeros off, so that equal amounts have equal text.
fn normal_quantity(quantity: &Quantity) -> Quantity {
    match ParsedQuantity::try_from(quantity) {
        Ok(parsed) => match parsed.to_bytes_f64() {
            Some(amount) => Quantity(amount.to_string()),
            None => quantity.clone(),
        },
        Err(_) => quantity.clone(),
    }
}

fn prune(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(prune);
        fields.retain(|_, field| match field {
            Value::Null | Value::Bool(false) => false,
            Value::Object(inner) => !inner.is_empty(),
            Value::Array(inner) => !inner.is_empty(),
            _ => true,
        });
    }
}
