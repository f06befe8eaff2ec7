//! What is kept of each object: the fields that decisions read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::objects::{
    ContainerStatus, ControllerRevision, Pod, PodDisruptionBudget, ReplicaSet, Service, Terminated,
};
use super::shelf::{Key, View};
use crate::api::{ModelRoute, ModelRouteSpec, annotations, labels};
use crate::formats::{Assignments, Slot};
use crate::plan::{Measured, RevisionData};

#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// The ModelDeployment whose label the object carries.
    pub family: Key,
    pub name: String,
    pub uid: String,
    /// Comparable as a number since Kubernetes 1.35 (KEP-5504), and in practice since etcd.
    pub resource_version: u64,
    /// The uid of the owner reference with `controller: true`.
    pub owner_uid: Option<String>,
    pub created: Timestamp,
    pub deleting: bool,
}

impl Meta {
    /// None without our label: not ours to know. Nor is one that names nobody: under that key stands what a namespace's
    /// ModelDeployments share.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let deployment = meta.labels.as_ref()?.get(labels::DEPLOYMENT).filter(|name| !name.is_empty())?;
        Some(Self::within(meta, deployment.clone()))
    }

    /// Of what all ModelDeployments of a namespace share: none of them is named.
    pub fn of_gateway(meta: &ObjectMeta) -> Option<Self> {
        let component = meta.labels.as_ref()?.get(labels::COMPONENT)?;
        (component == labels::GATEWAY).then(|| Self::within(meta, String::new()))
    }

    pub fn within(meta: &ObjectMeta, deployment: String) -> Self {
        let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        Self {
            family: (meta.namespace.clone().unwrap_or_default(), deployment),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0),
            owner_uid: owner.map(|o| o.uid.clone()),
            created: meta.creation_timestamp.as_ref().map(|t| t.0).unwrap_or(Timestamp::UNIX_EPOCH),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

/// The revision that a set was made for.
fn set_of(labels: &Option<BTreeMap<String, String>>) -> Option<u64> {
    Assignments::revision_of(labels.as_ref()?.get(labels::SET)?)
}

#[derive(Clone, Debug, PartialEq)]
pub struct RevisionView {
    pub meta: Meta,
    pub number: u64,
    /// None: written by somebody else, or unreadable.
    pub data: Option<RevisionData>,
    /// The value of the verb `resolve-at` that this revision's source was last resolved for.
    pub resolve_at: Option<String>,
    /// The value of the verb `restarted-at` when this revision was made: it is obeyed.
    pub restarted_at: Option<String>,
    /// What is known of its pods when none is left.
    pub measured: Option<Measured>,
}

impl RevisionView {
    pub fn of(object: ControllerRevision) -> Option<Self> {
        let data = object.data.and_then(|data| serde_json::from_value(data).ok());
        let verb = |key| object.metadata.annotations.as_ref()?.get(key).cloned();
        Some(Self {
            meta: Meta::of(&object.metadata)?,
            number: object.revision?.try_into().ok()?,
            data,
            resolve_at: verb(annotations::RESOLVE_AT),
            restarted_at: verb(annotations::RESTARTED_AT),
            measured: verb(annotations::MEASURED).and_then(|text| serde_json::from_str(&text).ok()),
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSetView {
    pub meta: Meta,
    /// The label of its pods, which never changes: `r<N>` after the revision that it was made for, or `r<N>-2`.
    pub set: String,
    /// The revision that new pods get: an in-place swap changes it.
    pub number: u64,
    /// Asked for.
    pub replicas: i32,
    /// Status speaks of the newest spec.
    pub observed: bool,
    pub live: i32,
    pub ready: i32,
    pub available: i32,
    /// The message of `ReplicaFailure`: quota, pod security, a missing ServiceAccount.
    pub failure: Option<String>,
}

impl ReplicaSetView {
    pub fn of(object: ReplicaSet) -> Option<Self> {
        let set = object.metadata.labels.as_ref()?.get(labels::SET)?.clone();
        let spec = object.spec.unwrap_or_default();
        let template = &spec.template.metadata;
        let assigned = Slot::assigned(&template.labels, &template.annotations);
        let status = object.status.unwrap_or_default();
        let failure = status
            .conditions
            .into_iter()
            .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")
            .map(|c| c.message);
        Some(Self {
            meta: Meta::of(&object.metadata)?,
            number: assigned.first().map(|slot| slot.revision).or_else(|| Assignments::revision_of(&set))?,
            set,
            replicas: spec.replicas.unwrap_or(1),
            observed: status.observed_generation >= object.metadata.generation,
            live: status.replicas,
            ready: status.ready_replicas,
            available: status.available_replicas,
            failure,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    pub meta: Meta,
    /// The revision that the selector names: an older operator's choice.
    pub number: Option<u64>,
    /// It selects the gateways.
    pub to_gateways: bool,
    /// It has a port for TLS: an older operator's has not.
    pub has_https: bool,
}

impl ServiceView {
    pub fn of(object: Service) -> Option<Self> {
        let spec = object.spec.unwrap_or_default();
        let selector = spec.selector;
        Some(Self {
            meta: Meta::of(&object.metadata)?,
            number: set_of(&selector),
            has_https: spec.ports.iter().any(|port| port.name == "https"),
            to_gateways: selector.is_some_and(|s| {
                s.len() == 1 && s.get(labels::COMPONENT).is_some_and(|value| value == labels::GATEWAY)
            }),
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    pub meta: Meta,
    pub generation: i64,
    pub spec: ModelRouteSpec,
}

impl RouteView {
    pub fn of(object: ModelRoute) -> Option<Self> {
        Some(Self {
            meta: Meta::of(&object.metadata)?,
            generation: object.metadata.generation?,
            spec: object.spec,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct BudgetView {
    pub meta: Meta,
}

impl BudgetView {
    pub fn of(object: PodDisruptionBudget) -> Option<Self> {
        Some(Self { meta: Meta::of(&object.metadata)? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    pub meta: Meta,
    /// What a serving pod is to hold; empty for a resolve pod.
    pub slots: Vec<Slot>,
    /// Those revisions of it that answer when it is ready. None: all, since it was never assigned anew.
    pub proven: Option<Vec<u64>>,
    /// It is being deleted, and its node should be done by then.
    pub ends_by: Option<Timestamp>,
    pub phase: PodPhase,
    /// Why the kubelet or the scheduler gave up on it: `Evicted`, `UnexpectedAdmissionError`, …
    pub failure: Option<String>,
    /// The scheduler's message while there is no room.
    pub unschedulable: Option<String>,
    pub scheduled_at: Option<Timestamp>,
    pub ready: bool,
    /// Since when it is.
    pub ready_at: Option<Timestamp>,
    pub ip: Option<String>,
    pub containers: Vec<ContainerView>,
    /// Extended resources (GPUs) that it holds or waits for.
    pub devices: BTreeMap<String, i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ContainerView {
    pub name: String,
    pub started_at: Option<Timestamp>,
    /// Reason and message.
    pub waiting: Option<(String, String)>,
    /// How it last ended.
    pub terminated: Option<Terminated>,
    pub restarts: i32,
}

impl PodView {
    pub fn of(object: Pod) -> Option<Self> {
        Some(Self::with(Meta::of(&object.metadata)?, object))
    }

    pub fn of_gateway(object: Pod) -> Option<Self> {
        Some(Self::with(Meta::of_gateway(&object.metadata)?, object))
    }

    fn with(meta: Meta, object: Pod) -> Self {
        let given = object.metadata.labels.unwrap_or_default();
        let slots = Slot::assigned(&given, &object.metadata.annotations.unwrap_or_default());
        let serving = || Slot::serving(&given, &slots).iter().map(|slot| slot.revision).collect();
        let proven = given.contains_key(labels::SERVES).then(serving);
        let status = object.status.unwrap_or_default();
        let phase = match status.phase.as_str() {
            "Running" => PodPhase::Running,
            "Succeeded" => PodPhase::Succeeded,
            "Failed" => PodPhase::Failed,
            _ => PodPhase::Pending,
        };
        let failure = (phase == PodPhase::Failed).then(|| format!("{}: {}", status.reason, status.message));
        let mut view = Self {
            meta,
            slots,
            proven,
            ends_by: object.metadata.deletion_timestamp.map(|t| t.0),
            phase,
            failure,
            unschedulable: None,
            scheduled_at: None,
            ready: false,
            ready_at: None,
            ip: status.pod_ip,
            containers: status.container_statuses.into_iter().map(ContainerView::of).collect(),
            devices: BTreeMap::new(),
        };
        // Collected in place: it has the room that four whole statuses took.
        view.containers.shrink_to_fit();
        for condition in status.conditions {
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("PodScheduled", "True") => view.scheduled_at = condition.last_transition_time.map(|t| t.0),
                ("PodScheduled", _) if condition.reason == "Unschedulable" => {
                    view.unschedulable = Some(condition.message);
                }
                ("Ready", "True") => {
                    view.ready = true;
                    view.ready_at = condition.last_transition_time.map(|t| t.0);
                }
                _ => {}
            }
        }
        let limits = object.spec.into_iter().flat_map(|s| s.containers).flat_map(|c| c.resources.limits);
        for (name, quantity) in limits.filter(|(name, _)| name.contains('/')) {
            *view.devices.entry(name).or_default() += quantity.0.parse().unwrap_or(0);
        }
        view
    }

    pub fn holds(&self, number: u64) -> bool {
        self.slots.iter().any(|slot| slot.revision == number)
    }

    /// It is to have a worker of this revision.
    pub fn runs(&self, number: u64) -> bool {
        self.slots.iter().any(|slot| slot.revision == number && !slot.fetch_only)
    }

    /// It answers for this revision, once it is ready.
    pub fn serves(&self, number: u64) -> bool {
        self.runs(number) && self.proven.as_ref().is_none_or(|proven| proven.contains(&number))
    }

    pub fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// Seconds until it was bound (`schedule`), and from then until its server ran (`pull`: the image, and the container).
    pub fn started(&self) -> Vec<(&'static str, f64)> {
        let seconds = |from: Timestamp, to: Timestamp| (to.as_second() - from.as_second()).max(0) as f64;
        let Some(scheduled) = self.scheduled_at else { return Vec::new() };
        let mut phases = vec![("schedule", seconds(self.meta.created, scheduled))];
        let server = self.container("server").filter(|c| c.restarts == 0);
        if let Some(running) = server.and_then(|c| c.started_at) {
            phases.push(("pull", seconds(scheduled, running)));
        }
        phases
    }
}

impl ContainerView {
    fn of(status: ContainerStatus) -> Self {
        let state = status.state;
        let ended = state.terminated.or(status.last_state.terminated);
        Self {
            name: status.name,
            started_at: state.running.and_then(|r| r.started_at).map(|t| t.0),
            waiting: state.waiting.map(|w| (w.reason, w.message)),
            terminated: ended,
            restarts: status.restart_count,
        }
    }
}

macro_rules! has_meta {
    ($($view:ty),+) => { $(impl View for $view {
        fn meta(&self) -> &Meta { &self.meta }
    })+ };
}
has_meta!(RevisionView, ReplicaSetView, RouteView, ServiceView, BudgetView, PodView);
