use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::tests::{mk_container, mk_pod, mk_resolved, mk_snapshot};
use super::super::{Kind, Plan, Write};
use super::*;
use crate::formats::{PodState, RevisionPhase, RevisionState};
use crate::observe::{Meta, ReplicaSetView, RouteView};

const CAPACITY: Capacity = Capacity { concurrency: 16.0, per_second: 50.0 };

fn mk_meta(name: &str) -> Meta {
    Meta { name: name.into(), ..mk_pod().meta }
}

/// r8 is stable, and its ReplicaSet is to have `replicas`.
fn mk_world(autoscaling: Value, replicas: i32) -> Snapshot {
    let model = json!({ "uri": "s3://models/fraud/8/model.onnx" });
    let mut snapshot = mk_snapshot(json!({ "model": model, "autoscaling": autoscaling }));
    let data = children::revision_data(&snapshot, 8, mk_resolved(&snapshot));
    let revision = children::recorded(&snapshot, 8, data);
    snapshot.family.revisions = vec![Arc::new(revision)];
    let mut route = crate::api::ModelRouteSpec::default();
    route.rollout.stable = Some(8);
    snapshot.family.route = Some(Arc::new(RouteView { meta: mk_meta("fraud"), generation: 1, spec: route }));
    snapshot.family.replica_sets = vec![Arc::new(ReplicaSetView {
        meta: mk_meta("fraud-r8"),
        set: "r8".into(),
        number: 8,
        replicas,
        observed: true,
        live: replicas,
        ready: 0,
        available: 0,
        failure: None,
    })];
    snapshot
}

/// One that was ready `seconds` after its creation, and says what it takes.
fn add_pod(snapshot: &mut Snapshot, seconds: i64, phases: f64, capacity: Option<Capacity>) {
    let at = |seconds: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
    let mut pod = mk_pod();
    pod.meta.name = format!("fraud-r8-{}", snapshot.family.pods.len());
    pod.meta.uid = pod.meta.name.clone();
    (pod.ready, pod.ready_at) = (true, Some(at(seconds)));
    let mut server = mk_container("server");
    (server.restarts, server.started_at) = (0, Some(at(1)));
    pod.containers = vec![server];
    let state = RevisionState {
        deployment: "fraud".into(),
        revision: "fraud-r8".into(),
        port: None,
        phase: RevisionPhase::Proven,
        reason: None,
        message: None,
        digest: None,
        device: None,
        graph_nodes: BTreeMap::new(),
        batching: None,
        capacity,
        seconds: BTreeMap::from([("load".to_string(), phases)]),
    };
    let state = PodState { format_version: 1, ready: true, fetches_only: true, revisions: vec![state] };
    snapshot.pod_states.insert(pod.meta.uid.clone(), Arc::new(state));
    snapshot.family.pods.push(Arc::new(pod));
}

fn note_of(snapshot: &Snapshot) -> Option<Measured> {
    let mut plan = Plan::default();
    note(snapshot, &mut plan);
    let Write::Apply { kind: Kind::ControllerRevision, body, .. } = plan.writes.first()? else {
        panic!("{:?}", plan.writes)
    };
    let text = body["metadata"]["annotations"]["modelwright.dev/measured"].as_str().unwrap();
    Some(serde_json::from_str(text).unwrap())
}

#[test]
fn without_a_target_the_servers_own_measure_counts() {
    let mut snapshot = mk_world(json!({ "maxReplicas": 5 }), 1);
    assert_eq!(settings(&snapshot).unwrap().target, Target::Unmeasured);
    add_pod(&mut snapshot, 9, 4.0, Some(CAPACITY));
    let found = settings(&snapshot).unwrap();
    assert_eq!(found.target, Target::Measured { concurrency: 16.0, per_second: 50.0 });
    assert_eq!((found.min, found.max, found.is_measured), (1, 5, true));
    let mut by_metric = mk_world(json!({ "maxReplicas": 5, "metric": "Concurrency" }), 1);
    add_pod(&mut by_metric, 9, 4.0, Some(CAPACITY));
    assert_eq!(settings(&by_metric).unwrap().target, Target::Concurrency(16.0 * 0.79));
    let asked = mk_world(json!({ "maxReplicas": 5, "metric": "RequestsPerSecond", "target": 7 }), 1);
    let asked = settings(&asked).unwrap();
    assert_eq!((asked.target, asked.is_measured), (Target::RequestsPerSecond(7.0), false));
}

#[test]
fn the_cold_start_is_the_shorter_of_what_the_api_server_and_the_pod_say() {
    let mut snapshot = mk_world(json!({ "maxReplicas": 5 }), 3);
    add_pod(&mut snapshot, 9, 4.0, None);
    assert_eq!(settings(&snapshot).unwrap().cold_start, Some(5.0), "a second until it ran, four to load");
    // One was unready for a moment long after; one overlapped fetch and pull.
    add_pod(&mut snapshot, 4000, 6.0, None);
    add_pod(&mut snapshot, 6, 100.0, None);
    assert_eq!(settings(&snapshot).unwrap().cold_start, Some(6.0), "the median of 5, 7 and 6");
}

#[test]
fn what_was_measured_is_kept_with_the_revision_and_written_again_only_when_it_is_other() {
    let mut snapshot = mk_world(json!({ "maxReplicas": 5 }), 1);
    assert_eq!(note_of(&snapshot), None, "nothing was measured");
    add_pod(&mut snapshot, 9, 4.0, Some(CAPACITY));
    let kept = note_of(&snapshot).unwrap();
    assert_eq!(kept, Measured { cold_start: Some(5.0), capacity: Some(CAPACITY) });
    let mut revision = (*snapshot.family.revisions[0]).clone();
    revision.measured = Some(kept);
    snapshot.family.revisions = vec![Arc::new(revision)];
    assert_eq!(note_of(&snapshot), None, "it stands there");
    snapshot.family.pods.clear();
    let found = settings(&snapshot).unwrap();
    assert_eq!(found.cold_start, Some(5.0), "no pod is left, and it is known");
    assert_eq!(found.target, Target::Measured { concurrency: 16.0, per_second: 50.0 });
    assert_eq!(note_of(&snapshot), None);
    add_pod(&mut snapshot, 60, 40.0, None);
    let changed = note_of(&snapshot).unwrap();
    assert_eq!(changed, Measured { cold_start: Some(41.0), capacity: Some(CAPACITY) });
}

#[test]
fn requests_wait_longer_for_a_model_that_loads_long() {
    let mut snapshot = mk_world(json!({ "maxReplicas": 5 }), 0);
    assert_eq!(patience(&snapshot), None);
    let mut revision = (*snapshot.family.revisions[0]).clone();
    revision.measured = Some(Measured { cold_start: Some(250.0), capacity: None });
    snapshot.family.revisions = vec![Arc::new(revision)];
    assert_eq!(patience(&snapshot), Some(780), "whole minutes");
}

#[test]
fn pods_are_counted_by_what_they_wait_for() {
    let mut snapshot = mk_world(json!({ "maxReplicas": 9 }), 4);
    add_pod(&mut snapshot, 9, 4.0, None);
    let mut waits = mk_pod();
    waits.meta.uid = "waits".into();
    waits.unschedulable = Some("no GPU".into());
    snapshot.family.pods.push(Arc::new(waits));
    assert_eq!(pods(&snapshot), Pods { ready: 1, starting: 2, unschedulable: 1 });
    let mut set = (*snapshot.family.replica_sets[0]).clone();
    (set.live, set.failure) = (2, Some("exceeded quota".into()));
    snapshot.family.replica_sets = vec![Arc::new(set)];
    assert_eq!(pods(&snapshot), Pods { ready: 1, starting: 0, unschedulable: 3 });
}

#[test]
fn a_model_that_never_ran_is_tried_and_one_at_zero_is_not_woken_by_a_new_leader() {
    let mut fresh = mk_world(json!({ "minReplicas": 0, "maxReplicas": 5 }), 0);
    assert_eq!((pods(&fresh).all(), desired(&fresh)), (0, 0), "it is at zero, and nobody has decided");
    fresh.family.route = None;
    fresh.family.replica_sets.clear();
    assert_eq!((pods(&fresh).all(), desired(&fresh)), (1, 1));
    assert!(!settings(&fresh).unwrap().proven);
}
