use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::json;

use super::faults::{of_pod, of_refusal};
use super::*;
use crate::api::{ModelDeployment, Reason};
use crate::formats::{
    GraphSummary, Pin, PinnedFile, PinnedSource, ResolveReport, Resolved, Slot, SourceRequest,
};
use crate::observe::{ContainerView, Family, Meta, PodPhase, PodView, ServiceView, Settings, Terminated};

pub(super) fn mk_snapshot(spec: serde_json::Value) -> Snapshot {
    let deployment: ModelDeployment = serde_json::from_value(json!({
        "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": { "name": "fraud", "namespace": "payments", "uid": "u0", "generation": 1 },
        "spec": spec,
    }))
    .unwrap();
    Snapshot {
        deployment: Arc::new(deployment),
        family: Family::default(),
        pod_states: HashMap::new(),
        gpu_holders: BTreeMap::new(),
        evidence: Default::default(),
        gateways: Default::default(),
        scaling: None,
        settings: Arc::new(Settings {
            loader_image: "registry.example/modelwright:1.0".into(),
            server_image: "registry.example/modelwright-server".into(),
            server_digests: BTreeMap::new(),
            server_environment: Vec::new(),
            runtime_version: "1.0".into(),
            node_cache: None,
            image_pull_policy: "IfNotPresent".into(),
            image_pull_secrets: vec!["mirror".into()],
            cluster_domain: "cluster.local".into(),
            crd_outdated: false,
        }),
    }
}

fn full_spec() -> serde_json::Value {
    json!({
        "model": { "uri": "s3://models/fraud/8/model.onnx", "secretRef": { "name": "store" },
            "s3": { "endpoint": "https://minio:9000" }, "caBundleRef": { "name": "corp-ca" } },
        "serviceAccountName": "model-reader",
        "runtime": { "executionProviders": [{ "name": "CUDA", "options": { "arena_extend_strategy": "kSameAsRequested" } }],
            "sessionOptions": { "intra_op_num_threads": "1" }, "startupTimeoutSeconds": 900 },
        "resources": { "requests": { "cpu": "2", "memory": "4Gi" }, "limits": { "memory": "4Gi", "nvidia.com/gpu": 1 } },
        "pod": { "runtimeClassName": "nvidia", "nodeSelector": { "gpu": "h100" }, "labels": { "team": "fraud" },
            "tolerations": [{ "key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule" }] },
        "terminationGracePeriodSeconds": 90,
    })
}

pub(super) fn mk_resolved(snapshot: &Snapshot) -> Resolved {
    let request: SourceRequest = revision::source_request(&snapshot.deployment.spec.model);
    let pin = Some(Pin::VersionId("3sL4".into()));
    let files = vec![PinnedFile { path: "model.onnx".into(), size: 400 << 20, pin }];
    Resolved {
        source: PinnedSource { request, files, immutable: true, sha256: None },
        graph: GraphSummary::default(),
    }
}

/// A changed template is a restart of every pod that an operator upgrade creates anew: change it knowingly.
#[test]
fn the_rendered_objects_are_as_they_were() {
    let snapshot = mk_snapshot(full_spec());
    let data = children::revision_data(&snapshot, 8, mk_resolved(&snapshot));
    let revision = children::recorded(&snapshot, 8, data);
    let world = world::World::of(&snapshot, Some(&revision), Timestamp::UNIX_EPOCH);
    let Some(Write::Create { body: replica_set, .. }) = children::replica_set(&world, None, 8, 3) else {
        panic!("nothing to create");
    };
    let objects = json!({
        "replicaSet": replica_set,
        "service": children::service(&snapshot, None),
        "podDisruptionBudget": children::disruption_budget(&snapshot),
        "resolvePod": children::resolve_pod(&snapshot).1,
    });
    let text = serde_json::to_string_pretty(&objects).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/children.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap_or_default(), "see {path}");
}

#[test]
fn names_stay_below_what_kubernetes_allows() {
    let mut snapshot = mk_snapshot(full_spec());
    Arc::make_mut(&mut snapshot.deployment).metadata.name = Some("a".repeat(40));
    assert!(children::resolve_pod(&snapshot).0.len() <= 63, "a pod's name is its host name");
    assert!(children::revision_name(&snapshot, 1_000_000).len() <= 63 - 6);
}

#[test]
fn what_means_the_same_is_no_new_revision() {
    let spec = |value| RevisionSpec::of(&mk_snapshot(value).deployment.spec);
    let model = json!({ "uri": "s3://models/fraud/8/model.onnx" });
    let cases = [
        (
            "an absent field and an empty one",
            json!({ "model": model, "resources": {}, "pod": { "labels": {} } }),
        ),
        (
            "false and absent",
            json!({ "model": { "uri": "s3://models/fraud/8/model.onnx", "insecureHTTP": false } }),
        ),
        ("the default service account by name", json!({ "model": model, "serviceAccountName": "default" })),
        ("replicas", json!({ "model": model, "replicas": 7 })),
        ("live fields", json!({ "model": model, "revisionHistoryLimit": 3, "progressDeadlineSeconds": 60 })),
    ];
    let plain = spec(json!({ "model": model }));
    for (name, value) in cases {
        assert!(plain.same(&spec(value)), "{name}");
    }
    let cpu = |amount: serde_json::Value| {
        spec(json!({ "model": model, "resources": { "requests": { "cpu": amount, "memory": "1Gi" } } }))
    };
    assert!(cpu(json!("1")).same(&cpu(json!("1000m"))));
    assert!(cpu(json!(1)).same(&cpu(json!("1"))));
    assert!(!cpu(json!("1")).same(&cpu(json!("1001m"))));
    let runtime = |runtime: serde_json::Value| spec(json!({ "model": model, "runtime": runtime }));
    let gib = runtime(json!({ "gpuMemoryLimit": "1Gi" }));
    assert!(gib.same(&runtime(json!({ "gpuMemoryLimit": "1024Mi" }))));
    assert!(!gib.same(&runtime(json!({ "gpuMemoryLimit": "2Gi" }))));
    assert!(!plain.same(&runtime(json!({ "cpuFallback": "Allow" }))));
    assert!(!plain.same(&spec(json!({ "model": { "uri": "s3://models/fraud/9/model.onnx" } }))));
}

/// The server's arguments and the pod's volumes, of the full spec with another `runtime`.
fn rendered(runtime: serde_json::Value) -> (Vec<String>, serde_json::Value) {
    let mut spec = full_spec();
    spec["runtime"] = runtime;
    let snapshot = mk_snapshot(spec);
    let template = children::revision_data(&snapshot, 8, mk_resolved(&snapshot)).template.to_value();
    let arguments = serde_json::from_value(template["spec"]["containers"][1]["args"].clone()).unwrap();
    (arguments, template["spec"].clone())
}

#[test]
fn a_loader_gets_a_token_for_the_nodes_cache_where_there_is_one_and_the_source_is_further_away() {
    let of = |uri: &str, address: Option<&str>| {
        let mut snapshot = mk_snapshot(json!({ "model": { "uri": uri } }));
        Arc::make_mut(&mut snapshot.settings).node_cache = address.map(str::to_string);
        let template = children::revision_data(&snapshot, 1, mk_resolved(&snapshot)).template.to_value();
        let has =
            |list: &serde_json::Value| list.as_array().unwrap().iter().any(|v| v["name"] == "node-cache");
        let containers = &template["spec"]["containers"];
        let mounts = [&containers[0], &containers[1]].map(|container| has(&container["volumeMounts"]));
        (containers[0]["env"].clone(), mounts, has(&template["spec"]["volumes"]))
    };
    let address = "http://cache:8080";
    let env = json!([{ "name": "MODELWRIGHT_NODE_CACHE", "value": address }]);
    let none = (serde_json::Value::Null, [false, false], false);
    assert_eq!(of("s3://models/fraud/8/model.onnx", Some(address)), (env, [true, false], true));
    assert_eq!(of("s3://models/fraud/8/model.onnx", None), none);
    assert_eq!(of("pvc://claim/model.onnx", Some(address)), none);
}

#[test]
fn a_pod_runs_no_request_longer_than_it_has_to_finish_it_and_keeps_to_that_when_the_time_out_is_raised() {
    let of = |snapshot: &Snapshot| {
        let template = children::revision_data(snapshot, 1, mk_resolved(snapshot)).template.to_value();
        let pod = &template["spec"];
        let arguments = pod["containers"][1]["args"].as_array().unwrap();
        let longest = arguments.iter().find_map(|a| a.as_str()?.strip_prefix("--request-timeout-seconds="));
        (pod["terminationGracePeriodSeconds"].clone(), longest.map(str::to_string))
    };
    let spec = |timeout: serde_json::Value, grace: serde_json::Value| {
        mk_snapshot(json!({ "model": { "uri": "s3://models/fraud/8/model.onnx" },
            "traffic": { "requestTimeoutSeconds": timeout }, "terminationGracePeriodSeconds": grace }))
    };
    let none = serde_json::Value::Null;
    for (timeout, grace, has, longest) in [
        (none.clone(), none.clone(), 60, "50"),
        (json!(300), none.clone(), 330, "320"),
        (json!(300), json!(310), 310, "300"),
        (json!(1), json!(10), 10, "1"),
    ] {
        let said = of(&spec(timeout.clone(), grace.clone()));
        assert_eq!(said, (json!(has), Some(longest.to_string())), "{timeout} {grace}");
    }

    // Raised on a revision that stands: no new revision, the same pods, and the gateways wait as long as is asked.
    let mut snapshot = spec(none.clone(), none.clone());
    let data = children::revision_data(&snapshot, 1, mk_resolved(&snapshot));
    let template = data.template.clone();
    snapshot.family.revisions = vec![Arc::new(children::recorded(&snapshot, 1, data))];
    snapshot.deployment = spec(json!(300), none).deployment;
    let plan = plan(&snapshot, "2026-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(plan.target, Some(1));
    let created = |kind: Kind| {
        plan.writes.iter().find_map(|write| match write {
            Write::Create { kind: is, body, .. } if *is == kind => Some(body.clone()),
            _ => None,
        })
    };
    let pods = created(Kind::ReplicaSet).expect("the first pods");
    assert_eq!(pods["spec"]["template"]["spec"], template.to_value()["spec"]);
    let route = created(Kind::ModelRoute).expect("a route");
    assert_eq!(route["spec"]["limits"]["requestTimeoutSeconds"], 300);
}

#[test]
fn a_service_of_an_operator_that_knew_no_tls_gets_its_port() {
    let mut snapshot = mk_snapshot(json!({ "model": { "uri": "s3://models/fraud/8/model.onnx" } }));
    let data = children::revision_data(&snapshot, 1, mk_resolved(&snapshot));
    let revision = children::recorded(&snapshot, 1, data);
    let meta = Meta { name: "fraud".into(), ..revision.meta.clone() };
    snapshot.family.revisions = vec![Arc::new(revision)];
    for (has_https, writes) in [(false, 1), (true, 0)] {
        let service = ServiceView { meta: meta.clone(), number: None, to_gateways: true, has_https };
        snapshot.family.service = Some(Arc::new(service));
        let plan = plan(&snapshot, "2026-01-01T00:00:00Z".parse().unwrap());
        let written = plan.writes.iter().filter(|write| write.kind() == Kind::Service).count();
        assert_eq!(written, writes, "{has_https}");
    }
}

#[test]
fn what_a_gpus_model_may_take_reaches_the_server() {
    let cuda = json!([{ "name": "CUDA" }]);
    for (limit, bytes) in [
        (json!("8Gi"), 8u64 << 30),
        (json!("1.5Gi"), 3 << 29),
        (json!("2G"), 2_000_000_000),
        (json!(1 << 20), 1 << 20),
    ] {
        let (arguments, _) = rendered(json!({ "executionProviders": cuda, "gpuMemoryLimit": limit }));
        assert_eq!(arguments.last(), Some(&format!("--gpu-memory-limit={bytes}")), "{limit}");
    }
    for policy in ["Forbid", "ShapeOpsOnly", "Allow"] {
        let (arguments, _) = rendered(json!({ "executionProviders": cuda, "cpuFallback": policy }));
        assert_eq!(arguments.last(), Some(&format!("--cpu-fallback={policy}")));
    }
    let (arguments, _) = rendered(json!({ "executionProviders": cuda }));
    assert_eq!(arguments.last().map(String::as_str), Some("--execution-provider=CUDA"), "nothing unasked");
}

#[test]
fn only_tensorrt_gets_room_for_its_engines() {
    let volume = |pod: &serde_json::Value| {
        pod["volumes"].as_array().unwrap().iter().find(|v| v["name"] == "cache").cloned()
    };
    let (arguments, pod) = rendered(json!({ "executionProviders": [{ "name": "TensorRT" }] }));
    assert_eq!(arguments.last().map(String::as_str), Some("--cache-dir=/var/cache/modelwright"));
    assert_eq!(volume(&pod).unwrap()["emptyDir"]["sizeLimit"], "4896Mi", "4 GiB and the model twice");
    let mounts = pod["containers"][1]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts.last(), Some(&json!({ "name": "cache", "mountPath": "/var/cache/modelwright" })));
    let (arguments, pod) = rendered(json!({ "executionProviders": [{ "name": "CUDA" }] }));
    assert!(volume(&pod).is_none() && !arguments.iter().any(|a| a.contains("cache")), "{arguments:?}");
}

#[test]
fn gpu_providers_choose_their_image() {
    let settings = mk_snapshot(full_spec()).settings;
    let image = |runtime| {
        let spec = json!({ "model": { "uri": "s3://a/b" }, "runtime": runtime });
        image_for(&settings, &RevisionSpec::of(&mk_snapshot(spec).deployment.spec))
    };
    let repository = "registry.example/modelwright-server";
    assert_eq!(image(json!({})), (format!("{repository}:1.0"), "1.0".into()));
    let cuda = json!({ "executionProviders": [{ "name": "CUDA" }], "version": "1.28" });
    assert_eq!(image(cuda), (format!("{repository}:1.28-cuda"), "1.28".into()));
    let both = json!({ "executionProviders": [{ "name": "TensorRT" }, { "name": "CUDA" }] });
    assert_eq!(image(both).0, format!("{repository}:1.0-tensorrt"));
}

#[test]
fn a_digest_pins_the_image_of_the_shipped_version_and_of_no_other() {
    let mut settings = (*mk_snapshot(full_spec()).settings).clone();
    settings.server_digests = BTreeMap::from([("cuda".into(), "sha256:abc".into())]);
    let image = |runtime| {
        let spec = json!({ "model": { "uri": "s3://a/b" }, "runtime": runtime });
        image_for(&settings, &RevisionSpec::of(&mk_snapshot(spec).deployment.spec)).0
    };
    let repository = "registry.example/modelwright-server";
    let cuda = json!([{ "name": "CUDA" }]);
    assert_eq!(image(json!({ "executionProviders": cuda })), format!("{repository}@sha256:abc"));
    assert_eq!(image(json!({})), format!("{repository}:1.0"), "the flavour without a digest");
    let other = json!({ "executionProviders": cuda, "version": "1.28" });
    assert_eq!(image(other), format!("{repository}:1.28-cuda"));
}

#[test]
fn what_the_administrator_sets_is_in_the_servers_environment_and_nowhere_else() {
    let mut snapshot = mk_snapshot(full_spec());
    let set = ("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), "http://collector:4317".to_string());
    Arc::make_mut(&mut snapshot.settings).server_environment = vec![set];
    let template = children::revision_data(&snapshot, 8, mk_resolved(&snapshot)).template.to_value();
    let [loader, server] = &template["spec"]["containers"].as_array().unwrap()[..] else {
        panic!("{template}")
    };
    assert_eq!(loader.get("env"), None);
    let names: Vec<_> = server["env"].as_array().unwrap().iter().map(|v| v["name"].clone()).collect();
    let own = ["POD_NAME", "POD_NAMESPACE", "POD_UID", "POD_IP", "MODELWRIGHT_GATEWAYS"];
    assert_eq!(names, [&own[..], &["OTEL_EXPORTER_OTLP_ENDPOINT"]].concat());
    assert_eq!(server["env"][5]["value"], "http://collector:4317");
}

#[test]
fn a_refused_pod_is_named_by_its_cause() {
    let cases = [
        (
            "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
            Reason::QuotaExceeded,
        ),
        ("pods \"x\" is forbidden: failed quota: q: must specify limits.cpu", Reason::QuotaExceeded),
        (
            "pods \"x\" is forbidden: error looking up service account a/b: serviceaccount \"b\" not found",
            Reason::ServiceAccountNotFound,
        ),
        ("pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"", Reason::PodRejected),
        ("admission webhook \"w\" denied the request", Reason::PodRejected),
    ];
    for (message, reason) in cases {
        assert_eq!(of_refusal(message).reason, reason, "{message}");
    }
}

pub(super) fn mk_pod() -> PodView {
    PodView {
        meta: Meta {
            family: ("payments".into(), "fraud".into()),
            name: "fraud-r8-x7k2p".into(),
            uid: "p0".into(),
            resource_version: 1,
            owner_uid: Some("s0".into()),
            created: Timestamp::UNIX_EPOCH,
            deleting: false,
        },
        slots: vec![Slot { revision: 8, port: 8080, fetch_only: false }],
        proven: None,
        ends_by: None,
        phase: PodPhase::Running,
        failure: None,
        unschedulable: None,
        scheduled_at: None,
        ready: false,
        ready_at: None,
        ip: None,
        containers: vec![],
        devices: BTreeMap::new(),
    }
}

pub(super) fn mk_container(name: &str) -> ContainerView {
    ContainerView { name: name.into(), started_at: None, waiting: None, terminated: None, restarts: 4 }
}

#[test]
fn a_pod_that_waits_for_a_gpu_says_how_many_and_who_has_them() {
    let mut snapshot = mk_snapshot(full_spec());
    let holders = BTreeMap::from([("payments/other".to_string(), 1)]);
    snapshot.gpu_holders.insert("nvidia.com/gpu".into(), holders);
    let mut pod = mk_pod();
    pod.unschedulable = Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.".into());
    pod.devices.insert("nvidia.com/gpu".into(), 1);
    let fault = of_pod(&snapshot, &pod, None).unwrap();
    assert_eq!(fault.reason, Reason::Unschedulable);
    assert_eq!(
        fault.message,
        "pod fraud-r8-x7k2p: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu; it wants 1 nvidia.com/gpu; \
         held by model deployments payments/other (1)"
    );
}

#[test]
fn memory_is_blamed_before_the_crash_loop_that_it_causes() {
    let mut pod = mk_pod();
    let mut server = mk_container("server");
    server.waiting = Some(("CrashLoopBackOff".into(), "back-off".into()));
    server.terminated =
        Some(Terminated { reason: "OOMKilled".into(), exit_code: 137, message: String::new() });
    pod.containers.push(server);
    let fault = of_pod(&mk_snapshot(full_spec()), &pod, None).unwrap();
    assert_eq!(fault.reason, Reason::OutOfMemory);
    assert!(
        fault.message.ends_with("its memory limit of 4Gi; raise resources.limits.memory"),
        "{}",
        fault.message
    );
}

#[test]
fn an_image_that_cannot_be_pulled_is_named_with_its_container() {
    let mut pod = mk_pod();
    let mut server = mk_container("server");
    server.waiting = Some(("ImagePullBackOff".into(), "Back-off pulling image \"x:1\"".into()));
    pod.containers.push(server);
    let fault = of_pod(&mk_snapshot(full_spec()), &pod, None).unwrap();
    assert_eq!(fault.reason, Reason::ImagePullFailed);
    assert!(fault.message.contains("container server: Back-off pulling image"), "{}", fault.message);
}

#[test]
fn a_healthy_pod_has_no_fault() {
    assert_eq!(of_pod(&mk_snapshot(full_spec()), &mk_pod(), Some("fraud-r8")), None);
}

#[test]
fn an_object_that_is_being_deleted_is_left_to_the_garbage_collector() {
    let mut snapshot = mk_snapshot(full_spec());
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let metadata = &mut Arc::make_mut(&mut snapshot.deployment).metadata;
    metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    assert_eq!(plan(&snapshot, now).writes, vec![]);
}

fn mk_resolver(snapshot: &Snapshot, phase: PodPhase) -> PodView {
    let mut pod = mk_pod();
    pod.meta.name = children::resolve_pod(snapshot).0;
    pod.meta.owner_uid = Some("u0".into());
    pod.slots.clear();
    pod.phase = phase;
    pod
}

fn mk_ended(message: String) -> ContainerView {
    let ended = Terminated { reason: "Completed".into(), message, exit_code: 0 };
    ContainerView { terminated: Some(ended), ..mk_container("resolve") }
}

/// What the plan does to pods, and when it looks again at the latest.
fn pod_writes(snapshot: &Snapshot, seconds: i64) -> (Vec<&'static str>, Option<i64>) {
    let plan = plan(snapshot, Timestamp::from_second(seconds).unwrap());
    let writes = plan.writes.iter().filter(|w| w.kind() == Kind::Pod);
    (writes.map(Write::verb).collect(), plan.wake_at.map(Timestamp::as_second))
}

#[test]
fn a_resolve_pod_that_came_to_nothing_is_made_again_and_not_at_once() {
    let mut evicted = mk_snapshot(full_spec());
    let mut pod = mk_resolver(&evicted, PodPhase::Failed);
    pod.failure = Some("Evicted: the node was low on memory".into());
    evicted.family.pods = vec![Arc::new(pod)];
    let mut mute = mk_snapshot(full_spec());
    let mut pod = mk_resolver(&mute, PodPhase::Succeeded);
    pod.containers.push(mk_ended(String::new()));
    mute.family.pods = vec![Arc::new(pod)];
    for (name, snapshot) in [("evicted", evicted), ("without a report", mute)] {
        assert_eq!(pod_writes(&snapshot, 5), (vec![], Some(30)), "{name}: it was made five seconds ago");
        assert_eq!(pod_writes(&snapshot, 30), (vec!["delete"], None), "{name}");
    }
}

#[test]
fn what_a_resolve_pod_reported_before_it_was_evicted_counts() {
    let mut snapshot = mk_snapshot(full_spec());
    let report = ResolveReport::Resolved(Box::new(mk_resolved(&snapshot))).encode().unwrap();
    let mut pod = mk_resolver(&snapshot, PodPhase::Failed);
    pod.failure = Some("Evicted: the node was low on memory".into());
    pod.containers.push(mk_ended(report));
    snapshot.family.pods = vec![Arc::new(pod)];
    let plan = plan(&snapshot, Timestamp::from_second(60).unwrap());
    assert_eq!(plan.target, Some(1));
    assert_eq!(plan.writes[0].kind(), Kind::ControllerRevision);
}

#[test]
fn a_resolve_pod_on_a_lost_node_is_not_waited_for() {
    let mut snapshot = mk_snapshot(full_spec());
    let mut pod = mk_resolver(&snapshot, PodPhase::Running);
    pod.meta.deleting = true;
    pod.ends_by = Some(Timestamp::from_second(100).unwrap());
    snapshot.family.pods = vec![Arc::new(pod)];
    assert_eq!(pod_writes(&snapshot, 100), (vec![], Some(110)), "its node may still say that it ended");
    assert_eq!(pod_writes(&snapshot, 110), (vec!["delete"], None));
}

#[test]
fn a_resolve_pod_goes_only_when_its_report_was_seen_in_a_record() {
    let mut snapshot = mk_snapshot(full_spec());
    let resolved = mk_resolved(&snapshot);
    let mut pod = mk_resolver(&snapshot, PodPhase::Succeeded);
    pod.containers.push(mk_ended(ResolveReport::Resolved(Box::new(resolved.clone())).encode().unwrap()));
    snapshot.family.pods = vec![Arc::new(pod)];
    let first = plan(&snapshot, Timestamp::UNIX_EPOCH);
    let kinds: Vec<Kind> = first.writes.iter().map(Write::kind).collect();
    assert_eq!(kinds[0], Kind::ControllerRevision);
    assert!(!kinds.contains(&Kind::Pod), "{kinds:?}");

    let data = children::revision_data(&snapshot, 1, resolved);
    snapshot.family.revisions = vec![Arc::new(children::recorded(&snapshot, 1, data))];
    assert_eq!(pod_writes(&snapshot, 0).0, vec!["delete"]);
}

#[test]
fn whatever_a_resolve_pod_is_made_of_makes_another_name() {
    let snapshot = mk_snapshot(full_spec());
    let name = children::resolve_pod(&snapshot).0;
    assert_eq!(children::resolve_pod(&snapshot.clone()).0, name);
    let mut image = snapshot.clone();
    Arc::make_mut(&mut image.settings).loader_image = "registry.example/modelwright:1.1".into();
    let mut verb = snapshot.clone();
    let annotations =
        BTreeMap::from([(crate::api::annotations::RESOLVE_AT.to_string(), "monday".to_string())]);
    Arc::make_mut(&mut verb.deployment).metadata.annotations = Some(annotations);
    let mut account = snapshot.clone();
    Arc::make_mut(&mut account.deployment).spec.service_account_name = Some("other".into());
    let mut replicas = snapshot;
    Arc::make_mut(&mut replicas.deployment).spec.replicas = Some(7);
    for (what, other) in [("image", image), ("verb", verb), ("account", account)] {
        assert_ne!(children::resolve_pod(&other).0, name, "{what}");
    }
    assert_eq!(children::resolve_pod(&replicas).0, name, "replicas are no question");
}
