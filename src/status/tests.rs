use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::events::condition;
use super::*;
use crate::api::{ConditionType, Reason};
use crate::apply::WriteError;
use crate::formats::{GraphSummary, PodState};
use crate::observe::{Family, Meta, PodPhase, ReplicaSetView, ServiceView, Settings};
use crate::plan::Report;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn mk_meta(name: &str) -> Meta {
    Meta {
        family: ("ns".into(), "fraud".into()),
        name: name.into(),
        uid: name.into(),
        resource_version: 1,
        owner_uid: Some("u0".into()),
        created: now(),
        deleting: false,
    }
}

/// `fraud` with r1 behind its address and `available` of `desired` replicas of it.
fn mk_snapshot(desired: i32, available: i32) -> Snapshot {
    let deployment = serde_json::from_value(json!({
        "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": { "name": "fraud", "namespace": "ns", "uid": "u0", "generation": 3 },
        "spec": { "model": { "uri": "s3://a/b" }, "replicas": desired },
    }))
    .unwrap();
    let set = ReplicaSetView {
        meta: mk_meta("fraud-r1"),
        number: 1,
        replicas: desired,
        observed: true,
        live: available,
        ready: available,
        available,
        failure: None,
    };
    let service = ServiceView { meta: mk_meta("fraud"), number: Some(1), moved_at: None };
    Snapshot {
        deployment: Arc::new(deployment),
        family: Family {
            replica_sets: vec![Arc::new(set)],
            service: Some(Arc::new(service)),
            ..Default::default()
        },
        pod_states: HashMap::new(),
        gpu_holders: BTreeMap::new(),
        settings: Arc::new(Settings {
            loader_image: String::new(),
            server_image: String::new(),
            server_digests: BTreeMap::new(),
            server_environment: Vec::new(),
            runtime_version: "1".into(),
            image_pull_policy: String::new(),
            image_pull_secrets: vec![],
            cluster_domain: "cluster.local".into(),
            crd_outdated: false,
        }),
    }
}

fn mk_plan(target: u64, complete: bool, fault: Option<Finding>) -> Plan {
    let progress = Some(Finding::new(
        if complete { Reason::RolloutComplete } else { Reason::LoadingModel },
        "pod x loads the model",
    ));
    let report = Report { progress, complete, fault, ..Default::default() };
    Plan { target: Some(target), report, ..Default::default() }
}

fn verdict(status: &ModelDeploymentStatus, kind: ConditionType) -> (String, String, String) {
    let c = condition(status, kind).unwrap();
    (c.status.clone(), c.reason.clone(), c.message.clone())
}

#[test]
fn ready_means_that_the_newest_spec_is_rolled_out_and_answers() {
    let fault = || Some(Finding::new(Reason::DigestMismatch, "sha256 differs"));
    let cases = [
        ("all there", (2, 2), mk_plan(1, true, None), "True", "Serving"),
        ("first pods on their way", (2, 0), mk_plan(1, false, None), "Unknown", "Starting"),
        ("a new revision on its way", (2, 2), mk_plan(2, false, None), "Unknown", "RolloutInProgress"),
        ("a new revision failed", (2, 2), mk_plan(2, false, fault()), "False", "DigestMismatch"),
        ("nothing wanted", (0, 0), mk_plan(1, true, None), "False", "NoReplicas"),
    ];
    for (name, (desired, available), plan, value, reason) in cases {
        let status = derive(&mk_snapshot(desired, available), &plan, &Applied::default(), now());
        let (is, why, _) = verdict(&status, ConditionType::Ready);
        assert_eq!((is.as_str(), why.as_str()), (value, reason), "{name}");
    }
}

#[test]
fn a_failed_rollout_says_what_still_answers() {
    let fault = Finding::new(Reason::DigestMismatch, "sha256 differs");
    let plan = mk_plan(2, false, Some(fault));
    let status = derive(&mk_snapshot(2, 2), &plan, &Applied::default(), now());
    assert_eq!(verdict(&status, ConditionType::Ready).2, "sha256 differs; fraud-r1 serves on");
    assert_eq!(verdict(&status, ConditionType::Available).0, "True");
    assert_eq!(verdict(&status, ConditionType::Degraded).0, "True");
    assert_eq!(status.stable_revision.as_deref(), Some("fraud-r1"));
    assert_eq!(status.updated_revision.as_deref(), Some("fraud-r2"));
}

#[test]
fn a_write_that_failed_is_told_when_a_person_must_act() {
    let conflict = WriteError::NameConflict { kind: "Service", name: "fraud".into() };
    let applied = Applied { done: 1, failure: Some(conflict) };
    let status = derive(&mk_snapshot(1, 0), &mk_plan(1, false, None), &applied, now());
    let (is, why, message) = verdict(&status, ConditionType::Degraded);
    assert_eq!((is.as_str(), why.as_str()), ("True", "NameConflict"));
    assert!(message.contains("Service fraud exists and does not belong"), "{message}");

    let busy = Applied { done: 0, failure: Some(WriteError::Stale("x".into())) };
    let status = derive(&mk_snapshot(1, 1), &mk_plan(1, true, None), &busy, now());
    assert_eq!(verdict(&status, ConditionType::Degraded).0, "False", "a stale view passes by itself");
}

#[test]
fn a_refused_resolve_pod_is_a_fault_of_the_source() {
    let resolving = Finding::new(Reason::Resolving, "the resolve pod is being created");
    let report =
        Report { resolution: Some(resolving.clone()), progress: Some(resolving), ..Default::default() };
    let plan = Plan { report, ..Default::default() };
    let message = "pods \"fraud-resolve-1\" is forbidden: exceeded quota: q, requested: pods=1";
    let refused = WriteError::PodRefused { message: message.into() };
    let applied = Applied { done: 0, failure: Some(refused) };
    let status = derive(&mk_snapshot(2, 2), &plan, &applied, now());
    let fails = |kind| verdict(&status, kind);
    let quota = |value: &str, rest: &str| (value.into(), "QuotaExceeded".into(), format!("{message}{rest}"));
    assert_eq!(fails(ConditionType::Ready), quota("False", "; fraud-r1 serves on"));
    assert_eq!(fails(ConditionType::Degraded), quota("True", ""));
    assert_eq!(fails(ConditionType::ModelResolved), quota("False", ""));
    assert_eq!(fails(ConditionType::Progressing).2, message);
    assert_eq!(status.last_failure.unwrap().message, message);
}

#[test]
fn a_revision_says_what_its_ready_pods_run_on() {
    let mut snapshot = mk_snapshot(1, 1);
    let data = serde_json::from_value(json!({
        "formatVersion": 1, "spec": { "model": { "uri": "s3://a/b" } }, "image": "server:1", "runtimeVersion": "1",
        "resolved": { "source": { "uri": "s3://a/b", "files": [], "immutable": true },
            "graph": GraphSummary::default() },
        "template": {},
    }))
    .unwrap();
    let revision = RevisionView { meta: mk_meta("fraud-r1"), number: 1, data: Some(data), resolve_at: None };
    snapshot.family.revisions = vec![Arc::new(revision)];
    let pod = PodView {
        meta: mk_meta("fraud-r1-x7k2p"),
        number: Some(1),
        ends_by: None,
        phase: PodPhase::Running,
        failure: None,
        unschedulable: None,
        scheduled_at: None,
        ready: true,
        ip: None,
        containers: vec![],
        devices: BTreeMap::new(),
    };
    snapshot.family.pods = vec![Arc::new(pod)];
    let state: PodState = serde_json::from_value(json!({
        "formatVersion": 1, "ready": true, "revisions": [{
            "deployment": "fraud", "revision": "fraud-r1", "phase": "Proven",
            "device": "CUDA", "graphNodes": { "CUDA": 120, "CPU": 3 },
        }],
    }))
    .unwrap();
    snapshot.pod_states = HashMap::from([("fraud-r1-x7k2p".to_string(), Arc::new(state))]);
    let status = derive(&snapshot, &mk_plan(1, true, None), &Applied::default(), now());
    assert_eq!(status.device.as_deref(), Some("CUDA"));
    assert_eq!(status.revisions[0].graph_nodes, BTreeMap::from([("CPU".into(), 3), ("CUDA".into(), 120)]));
}

#[test]
fn every_condition_carries_the_generation_it_speaks_of() {
    let status = derive(&mk_snapshot(1, 1), &mk_plan(1, true, None), &Applied::default(), now());
    assert_eq!(status.observed_generation, Some(3));
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(3)));
}
