//! The objects that a ModelDeployment owns. Names are deterministic: a crash after a create finds the same name again.

mod resolver;
mod revision;
mod template;

use serde_json::{Value, json};

use super::world::World;
use super::write::{Kind, Write};
use crate::api::{GROUP, ModelRouteSpec, labels};
use crate::formats::{Assignment, Assignments, PinnedSource, Slot, ports};
use crate::observe::{Meta, PodView, ReplicaSetView, Snapshot};

pub(super) use resolver::resolve_pod;
pub(super) use revision::{controller_revision, note_measured, note_resolved_at, recorded, revision_data};
pub use template::image_for;
pub(super) use template::{DEFAULT_MEMORY, SERVER, container_security, pod_security};

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

fn selector(snapshot: &Snapshot, set: &str) -> Value {
    json!({ labels::DEPLOYMENT: snapshot.name(), labels::SET: set })
}

/// Names the pods' ReplicaSet, wherever a template does; none: nowhere, so that two can be compared.
pub(super) fn name_set(template: &mut Value, set: Option<&str>) {
    template["metadata"]["labels"][labels::SET] = json!(set);
    let spreads = template.pointer_mut("/spec/topologySpreadConstraints").and_then(Value::as_array_mut);
    for spread in spreads.into_iter().flatten() {
        spread["labelSelector"]["matchLabels"][labels::SET] = json!(set);
    }
}

/// A ReplicaSet whose new pods get a revision; `set` is there already. None: a record cannot be read, so there is
/// nothing to run.
pub(super) fn replica_set(
    world: &World,
    set: Option<&ReplicaSetView>,
    number: u64,
    replicas: i32,
) -> Option<Write> {
    let snapshot = world.snapshot;
    let label = set.map_or_else(|| free_set(snapshot, number), |set| set.set.clone());
    let own = Assignments::revision_of(&label)?;
    let mut template = world.revision(own)?.data.as_ref()?.template.to_value();
    name_set(&mut template, Some(&label));
    if own != number {
        let source = &world.revision(number)?.data.as_ref()?.resolved.source;
        let slot = Slot { revision: number, port: ports::INFERENCE, fetch_only: false };
        let only = Assignments::new(vec![assignment(snapshot, slot, source)]);
        template["metadata"]["annotations"][Assignments::ANNOTATION] = written(&only);
    }
    let name = format!("{}-{label}", snapshot.name());
    let mut metadata = metadata(snapshot, &name, Some(own), set.map(|set| &set.meta));
    metadata["labels"][labels::SET] = json!(label);
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": selector(snapshot, &label) },
            "template": template,
        },
    });
    let kind = Kind::ReplicaSet;
    Some(match set {
        Some(_) => Write::Apply { kind, name, body },
        None => Write::Create { kind, name, body },
    })
}

/// `r<N>`, unless a ReplicaSet of that name went on to another revision.
fn free_set(snapshot: &Snapshot, number: u64) -> String {
    let sets = &snapshot.family.replica_sets;
    let own = format!("r{number}");
    let names = std::iter::once(own.clone()).chain((2..).map(|count| format!("{own}-{count}")));
    let mut free = names.filter(|name| sets.iter().all(|set| set.set != *name));
    free.next().unwrap_or(own)
}

fn assignment(snapshot: &Snapshot, slot: Slot, source: &PinnedSource) -> Assignment {
    Assignment {
        deployment: snapshot.name().into(),
        revision: revision_name(snapshot, slot.revision),
        model_version: slot.revision.to_string(),
        port: slot.port,
        source: source.clone(),
    }
}

fn written(assignments: &Assignments) -> Value {
    json!(serde_json::to_string(assignments).unwrap_or_default())
}

/// What a running pod is to hold, and what of it is proven. None: a record cannot be read.
pub(super) fn assign(world: &World, pod: &PodView, slots: &[Slot], proven: &[u64]) -> Option<Write> {
    let snapshot = world.snapshot;
    let mut assigned = Assignments::new(Vec::new());
    for slot in slots {
        let source = &world.revision(slot.revision)?.data.as_ref()?.resolved.source;
        let list = if slot.fetch_only { &mut assigned.fetch_only } else { &mut assigned.assignments };
        list.push(assignment(snapshot, *slot, source));
    }
    let serves: Vec<String> = proven.iter().map(|number| format!("r{number}")).collect();
    let body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.meta.name,
            "namespace": snapshot.namespace(),
            "uid": pod.meta.uid,
            "annotations": { Assignments::ANNOTATION: written(&assigned) },
            "labels": { labels::SERVES: serves.join(".") },
        },
    });
    Some(Write::Apply { kind: Kind::Pod, name: pod.meta.name.clone(), body })
}

/// The stable address: the namespace's gateways. Both ports reach the same container port: the HTTP/2 preface tells
/// them apart.
pub(super) fn service(snapshot: &Snapshot, existing: Option<&Meta>) -> Value {
    // Server-side apply: a key that an older operator wrote goes with it, since it is no longer said.
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(snapshot, snapshot.name(), None, existing),
        "spec": {
            "selector": { labels::COMPONENT: labels::GATEWAY },
            "ports": [
                { "name": "http", "port": 80, "targetPort": ports::INFERENCE, "protocol": "TCP" },
                { "name": "grpc", "port": 9000, "targetPort": ports::INFERENCE, "protocol": "TCP",
                  "appProtocol": "kubernetes.io/h2c" },
                // Refused while the gateways have no certificate.
                { "name": "https", "port": 443, "targetPort": ports::INFERENCE_TLS, "protocol": "TCP" },
            ],
        },
    })
}

pub(super) fn route(snapshot: &Snapshot, spec: &ModelRouteSpec, existing: Option<&Meta>) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": "ModelRoute",
        "metadata": metadata(snapshot, snapshot.name(), None, existing),
        "spec": spec,
    })
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
