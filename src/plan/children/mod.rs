//! The objects that a ModelDeployment owns. Names are deterministic: a crash after a create finds the same name again.

mod resolver;
mod revision;
mod template;

use serde_json::{Value, json};

use super::write::{Kind, Write};
use crate::api::{GROUP, annotations, labels};
use crate::formats::ports;
use crate::observe::{Meta, RevisionView, ServiceView, Snapshot};

pub(super) use resolver::resolve_pod;
pub(super) use revision::{controller_revision, note_resolved_at, recorded, revision_data};
pub use template::image_for;
pub(super) use template::{DEFAULT_MEMORY, SERVER};

pub(super) fn revision_name(snapshot: &Snapshot, number: u64) -> String {
    format!("{}-r{number}", snapshot.name())
}

/// `blockOwnerDeletion` is left out: OpenShift asks for a right on finalizers for it, and nothing here needs it.
pub fn owner_reference(snapshot: &Snapshot) -> Value {
    json!([{
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": "ModelDeployment",
        "name": snapshot.name(),
        "uid": snapshot.uid(),
        "controller": true,
    }])
}

/// Metadata of a child: our labels, our owner reference, and the uid when the child exists.
fn metadata(snapshot: &Snapshot, name: &str, number: Option<u64>, existing: Option<&Meta>) -> Value {
    let mut metadata = json!({
        "name": name,
        "namespace": snapshot.namespace(),
        "labels": common_labels(snapshot),
        "ownerReferences": owner_reference(snapshot),
    });
    if let Some(number) = number {
        metadata["labels"][labels::SET] = json!(format!("r{number}"));
    }
    if let Some(existing) = existing {
        metadata["uid"] = json!(existing.uid);
    }
    metadata
}

fn common_labels(snapshot: &Snapshot) -> Value {
    json!({
        labels::DEPLOYMENT: snapshot.name(),
        "app.kubernetes.io/name": "modelwright-server",
        "app.kubernetes.io/instance": snapshot.name(),
        "app.kubernetes.io/managed-by": "modelwright",
    })
}

fn selector(snapshot: &Snapshot, number: u64) -> Value {
    json!({ labels::DEPLOYMENT: snapshot.name(), labels::SET: format!("r{number}") })
}

/// None: the record cannot be read, so there is nothing to run.
pub(super) fn replica_set(
    snapshot: &Snapshot,
    revision: &RevisionView,
    replicas: i32,
    existing: Option<&Meta>,
) -> Option<Value> {
    let data = revision.data.as_ref()?;
    let name = revision_name(snapshot, revision.number);
    Some(json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": metadata(snapshot, &name, Some(revision.number), existing),
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": selector(snapshot, revision.number) },
            "template": data.template.to_value(),
        },
    }))
}

/// The stable address. Both ports reach the same container port: the HTTP/2 preface tells them apart.
pub(super) fn service(snapshot: &Snapshot, number: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(snapshot, snapshot.name(), None, None),
        "spec": {
            "selector": selector(snapshot, number),
            "ports": [
                { "name": "http", "port": 80, "targetPort": ports::INFERENCE, "protocol": "TCP" },
                { "name": "grpc", "port": 9000, "targetPort": ports::INFERENCE, "protocol": "TCP",
                  "appProtocol": "kubernetes.io/h2c" },
            ],
        },
    })
}

pub(super) fn move_service(
    snapshot: &Snapshot,
    service: &ServiceView,
    number: u64,
    now: jiff::Timestamp,
) -> Write {
    let mut body = self::service(snapshot, number);
    body["metadata"]["uid"] = json!(service.meta.uid);
    body["metadata"]["annotations"] = json!({ annotations::MOVED_AT: now.to_string() });
    Write::Apply { kind: Kind::Service, name: service.meta.name.clone(), body }
}

/// One for all revisions. A drain waits for one pod at a time, and never for a pod that does not work.
pub(super) fn disruption_budget(snapshot: &Snapshot) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(snapshot, snapshot.name(), None, None),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": { "matchLabels": { labels::DEPLOYMENT: snapshot.name(), labels::ROLE: "serve" } },
        },
    })
}
