use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::events::condition;
use super::*;
use crate::api::{ConditionType, Reason, RolloutRecord};
use crate::apply::WriteError;
use crate::formats::{GraphSummary, PodState, Slot};
use crate::observe::{
    Family, GatewayView, Meta, PodPhase, PodView, ReplicaSetView, RouteView, ServiceView, Settings,
};
use crate::plan::Report;
use crate::plan::scale::{self, Active, Decision, Limit};

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
        set: "r1".into(),
        number: 1,
        replicas: desired,
        observed: true,
        live: available,
        ready: available,
        available,
        failure: None,
    };
    let service =
        ServiceView { meta: mk_meta("fraud"), number: Some(1), to_gateways: false, has_https: false };
    Snapshot {
        deployment: Arc::new(deployment),
        family: Family {
            replica_sets: vec![Arc::new(set)],
            service: Some(Arc::new(service)),
            ..Default::default()
        },
        pod_states: HashMap::new(),
        gpu_holders: BTreeMap::new(),
        evidence: Default::default(),
        gateways: Default::default(),
        scaling: None,
        settings: Arc::new(Settings {
            loader_image: String::new(),
            server_image: String::new(),
            server_digests: BTreeMap::new(),
            server_environment: Vec::new(),
            runtime_version: "1".into(),
            node_cache: None,
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
    let revision = RevisionView {
        meta: mk_meta("fraud-r1"),
        number: 1,
        data: Some(data),
        resolve_at: None,
        restarted_at: None,
        measured: None,
    };
    snapshot.family.revisions = vec![Arc::new(revision)];
    let pod = PodView {
        meta: mk_meta("fraud-r1-x7k2p"),
        slots: vec![Slot { revision: 1, port: 8080, fetch_only: false }],
        proven: None,
        ends_by: None,
        phase: PodPhase::Running,
        failure: None,
        unschedulable: None,
        scheduled_at: None,
        ready: true,
        ready_at: None,
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

/// A canary of r2 with 5 %, by a route of generation 4, and gateways that forward by these.
fn mk_canary(gateways: &[Option<i64>]) -> Snapshot {
    let mut snapshot = mk_snapshot(2, 2);
    let route = serde_json::from_value(json!({
        "mode": "Forward",
        "backends": [{ "revision": 1, "weight": 95 }, { "revision": 2, "weight": 5 }],
        "rollout": {
            "stable": 1, "candidate": 2, "attempt": 3, "step": 1, "stepStartedAt": now().to_string(),
            "startedAt": now().to_string(), "replacement": "Surge",
            "steps": [{ "setWeight": 5 }, { "pause": { "durationSeconds": 300 } }, { "setWeight": 50 }],
        },
    }));
    let route = RouteView { meta: mk_meta("fraud"), generation: 4, spec: route.unwrap() };
    snapshot.family.route = Some(Arc::new(route));
    let mut candidate = ReplicaSetView::clone(&snapshot.family.replica_sets[0]);
    (candidate.meta, candidate.number, candidate.available) = (mk_meta("fraud-r2"), 2, 1);
    snapshot.family.replica_sets.push(Arc::new(candidate));
    snapshot.family.service = Some(Arc::new(ServiceView {
        meta: mk_meta("fraud"),
        number: None,
        to_gateways: true,
        has_https: true,
    }));
    let view = |applied: &Option<i64>| GatewayView {
        name: "gateway".into(),
        ready: true,
        leaving: false,
        applied: *applied,
        held: 0,
    };
    snapshot.gateways.pods = gateways.iter().map(view).collect();
    snapshot
}

#[test]
fn a_rollout_says_where_it_is_and_what_verbs_call_it() {
    let status = derive(&mk_canary(&[Some(4)]), &mk_plan(2, false, None), &Applied::default(), now());
    let rollout = serde_json::to_value(status.rollout.unwrap()).unwrap();
    assert_eq!(
        rollout,
        json!({
            "id": "fraud-r2.3", "from": "fraud-r1", "to": "fraud-r2", "replacement": "Surge",
            "currentStepIndex": 1, "stepCount": 3, "weight": 5,
            "startTime": "2026-01-01T00:00:00Z", "pauseEndTime": "2026-01-01T00:05:00Z",
        })
    );
    assert_eq!(status.available_replicas, 3, "of both that share the traffic");

    let mut snapshot = mk_canary(&[Some(4)]);
    let mut route = RouteView::clone(snapshot.family.route.as_ref().unwrap());
    route.spec.rollout = RolloutRecord { stable: Some(1), ..Default::default() };
    snapshot.family.route = Some(Arc::new(route));
    let status = derive(&snapshot, &mk_plan(1, true, None), &Applied::default(), now());
    assert_eq!(status.rollout, None, "nothing is rolled out");
}

#[test]
fn weights_are_told_as_every_gateway_has_acknowledged_them() {
    let told = |gateways: &[Option<i64>]| {
        let status = derive(&mk_canary(gateways), &mk_plan(2, false, None), &Applied::default(), now());
        let gateway = status.gateway.unwrap();
        let shares = status.traffic.into_iter().map(|t| (t.revision, t.percent, t.ready_replicas));
        (shares.collect::<Vec<_>>(), (gateway.route_generation, gateway.replicas, gateway.acknowledged))
    };
    let shares = vec![("fraud-r1".to_string(), 95, 2), ("fraud-r2".to_string(), 5, 1)];
    assert_eq!(told(&[Some(4), Some(5)]), (shares, (4, 2, 2)));
    assert_eq!(told(&[Some(4), Some(3)]), (vec![], (4, 2, 1)), "one lags behind");
    assert_eq!(told(&[Some(4), None]), (vec![], (4, 2, 1)), "one was not heard");
    assert_eq!(told(&[]), (vec![], (4, 0, 0)), "there is none");
}

#[test]
fn of_requests_that_are_refused_nobody_has_a_share() {
    let shares = |mode| {
        let mut snapshot = mk_canary(&[Some(4)]);
        let mut route = RouteView::clone(snapshot.family.route.as_ref().unwrap());
        route.spec.mode = mode;
        snapshot.family.route = Some(Arc::new(route));
        derive(&snapshot, &mk_plan(2, false, None), &Applied::default(), now()).traffic.len()
    };
    assert_eq!([RouteMode::Forward, RouteMode::Hold, RouteMode::Refuse].map(shares), [2, 2, 0]);
}

#[test]
fn without_a_gateway_nothing_is_available_whatever_the_pods_say() {
    let mut snapshot = mk_canary(&[]);
    let plan = mk_plan(1, true, None);
    let told = |snapshot: &Snapshot, kind| {
        let status = derive(snapshot, &plan, &Applied::default(), now());
        let (is, why, message) = verdict(&status, kind);
        assert_eq!((is.as_str(), why.as_str()), ("False", "GatewayUnavailable"));
        message
    };
    for kind in [ConditionType::Available, ConditionType::Ready] {
        assert_eq!(told(&snapshot, kind), "no gateway is ready");
    }
    snapshot.gateways.fault = Some("gateway pod a does not start: ErrImagePull".into());
    let message = "no gateway is ready: gateway pod a does not start: ErrImagePull";
    assert_eq!(told(&snapshot, ConditionType::Available), message);

    // An older operator's Service leads to the pods themselves.
    let direct = mk_snapshot(2, 2);
    let status = derive(&direct, &plan, &Applied::default(), now());
    assert_eq!(verdict(&status, ConditionType::Available).0, "True");
}

#[test]
fn every_condition_carries_the_generation_it_speaks_of() {
    let status = derive(&mk_snapshot(1, 1), &mk_plan(1, true, None), &Applied::default(), now());
    assert_eq!(status.observed_generation, Some(3));
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(3)));
}

fn autoscaled(desired: u32, available: i32, limited: Limit) -> Snapshot {
    let mut snapshot = mk_snapshot(desired as i32, available);
    let spec = &mut Arc::make_mut(&mut snapshot.deployment).spec;
    spec.replicas = None;
    let autoscaling = json!({ "minReplicas": 0, "maxReplicas": 4, "metric": "Concurrency", "target": 16 });
    spec.autoscaling = serde_json::from_value(autoscaling).unwrap();
    snapshot.scaling = Some(Decision {
        desired,
        reason: scale::Reason::DemandRose,
        message: "1 to 3: demand is 2.1 pods' worth".into(),
        current: Some(11.24),
        active: Active::DemandReported,
        limited,
        wake_at: None,
    });
    snapshot
}

#[test]
fn a_model_at_zero_is_ready_and_one_that_wakes_is_available() {
    let told = |snapshot: &Snapshot, complete, kind| {
        let status = derive(snapshot, &mk_plan(1, complete, None), &Applied::default(), now());
        let (is, why, _) = verdict(&status, kind);
        format!("{is} {why}")
    };
    let asleep = autoscaled(0, 0, Limit::WithinRange);
    assert_eq!(told(&asleep, true, ConditionType::Ready), "True ScaledToZero");
    assert_eq!(told(&asleep, true, ConditionType::Available), "True ScaledToZero");
    let mut waking = autoscaled(1, 0, Limit::WithinRange);
    assert_eq!(told(&waking, false, ConditionType::Available), "False NoReplicas", "nobody waits");
    waking.gateways.pods.push(crate::observe::GatewayView {
        name: "gateway".into(),
        ready: true,
        leaving: false,
        applied: None,
        held: 3,
    });
    assert_eq!(told(&waking, false, ConditionType::Available), "True Activating");
    assert_eq!(told(&waking, false, ConditionType::Ready), "Unknown Starting");
}

#[test]
fn a_decision_is_told_with_its_sentence_and_an_event() {
    let derived = |snapshot: &Snapshot| derive(snapshot, &mk_plan(1, true, None), &Applied::default(), now());
    let status = derived(&autoscaled(3, 2, Limit::NoGpuAvailable));
    let told = status.autoscaling.clone().unwrap();
    let shown = (told.metric.as_str(), told.current.as_deref(), told.target.as_deref());
    assert_eq!(shown, ("Concurrency", Some("11.2"), Some("16")));
    assert_eq!((told.desired_replicas, status.desired_replicas, told.reason.as_str()), (3, 3, "DemandRose"));
    let (is, why, message) = verdict(&status, ConditionType::ScalingActive);
    assert_eq!((is.as_str(), why.as_str()), ("True", "DemandReported"));
    assert_eq!(message, "1 to 3: demand is 2.1 pods' worth");
    assert_eq!(verdict(&status, ConditionType::ScalingLimited).1, "NoGPUAvailable");
    let ready = verdict(&status, ConditionType::Ready);
    assert_eq!(ready.2, "fraud-r1 serves with 2 of 3 replicas");
    let notes = super::events::transitions(&derived(&autoscaled(1, 1, Limit::WithinRange)), &status);
    let reasons: Vec<_> = notes.iter().map(|note| note.reason.as_str()).collect();
    assert_eq!(reasons, ["Rescaled"]);
}

#[test]
fn who_scales_a_model_without_autoscaling_is_named() {
    let told = |snapshot: &Snapshot| {
        let status = derive(snapshot, &mk_plan(1, true, None), &Applied::default(), now());
        assert!(condition(&status, ConditionType::ScalingLimited).is_none());
        verdict(&status, ConditionType::ScalingActive)
    };
    let mut snapshot = mk_snapshot(2, 2);
    assert_eq!(told(&snapshot).1, "Disabled");
    let deployment = Arc::make_mut(&mut snapshot.deployment);
    let entry = json!([{ "manager": "kube-controller-manager", "subresource": "scale" }]);
    deployment.metadata.managed_fields = serde_json::from_value(entry).unwrap();
    let (is, why, message) = told(&snapshot);
    assert_eq!((is.as_str(), why.as_str()), ("False", "ExternallyScaled"));
    assert_eq!(message, "kube-controller-manager writes spec.replicas through the scale subresource");
    let deployment = Arc::make_mut(&mut snapshot.deployment);
    deployment.metadata.managed_fields = serde_json::from_value(json!([{ "manager": "kubectl" }])).unwrap();
    assert_eq!(told(&snapshot).1, "Disabled", "it is in a manifest");
    Arc::make_mut(&mut snapshot.deployment).metadata.managed_fields = Some(Vec::new());
    let (_, why, message) = told(&snapshot);
    assert_eq!(why, "ExternallyScaled", "nobody's: the API server notes none who scales a custom resource");
    assert!(message.starts_with("kubectl scale, a HorizontalPodAutoscaler or KEDA writes"), "{message}");
    Arc::make_mut(&mut snapshot.deployment).spec.replicas = None;
    let (_, why, message) = told(&snapshot);
    assert_eq!(why, "Disabled");
    assert!(message.ends_with("kubectl scale mdep fraud --replicas=1"), "{message}");
}

#[test]
fn an_autoscaler_counts_the_pods_that_serve() {
    let status = derive(&mk_snapshot(2, 2), &mk_plan(1, true, None), &Applied::default(), now());
    assert_eq!(
        status.selector.as_deref(),
        Some("modelwright.dev/deployment=fraud,modelwright.dev/role=serve")
    );
}
