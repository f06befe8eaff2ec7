//! What a ModelDeployment leaves: nothing. And what it never touches: what is not its own.

use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Resource};
use modelwright::api::{ModelDeployment, ModelRoute};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{NEG, RELU, Space, in_namespace, neg, relu, wait};

const OURS: &str = "modelwright.dev/deployment=model";
const RESOLVERS: &str = "modelwright.dev/role=resolve";

async fn names<K>(space: &Space) -> Vec<String>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = space.api();
    let list = api.list(&ListParams::default().labels(OURS)).await.expect("a list");
    let kind = K::kind(&()).into_owned();
    list.items.iter().map(|o| format!("{kind} {}", o.meta().name.as_deref().unwrap_or_default())).collect()
}

async fn children(space: &Space) -> Vec<String> {
    let mut all = names::<ControllerRevision>(space).await;
    all.extend(names::<ReplicaSet>(space).await);
    all.extend(names::<Pod>(space).await);
    all.extend(names::<Service>(space).await);
    all.extend(names::<PodDisruptionBudget>(space).await);
    all
}

async fn delete(space: &Space) {
    space.api::<ModelDeployment>().delete("model", &DeleteParams::default()).await.expect("a delete");
    wait("end of the children", async || {
        let left = children(space).await;
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_deletion_in_the_middle_of_a_rollout_leaves_nothing() {
    in_namespace("deletion", async |space| {
        let good = space.serve_first("model").await;
        let mut bad = good.clone();
        bad["runtime"] = json!({ "version": "9.9.9" });
        space.apply("model", &bad).await;
        space.until_degraded("model", "ImagePullFailed", &[]).await;
        assert!(children(space).await.len() >= 6);
        delete(space).await;
        // And in the middle of resolving.
        let uri = space.file_with("slow/model.onnx", &relu(), &[("X-Status", "503")]).await;
        space.apply("model", &space.with_uri(&good, &uri)).await;
        wait("resolve pod", async || {
            let pods = space.pods(RESOLVERS).await;
            (!pods.is_empty()).then_some(()).ok_or("none".to_string())
        })
        .await;
        delete(space).await;
        // The name is free.
        space.apply("model", &good).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
    })
    .await;
}

/// Creates an object of somebody else's, and says its uid.
async fn foreign<K>(space: &Space, body: Value) -> String
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(body).expect("an object");
    let api: Api<K> = space.api();
    api.create(&Default::default(), &object).await.expect("a create").meta().uid.clone().unwrap_or_default()
}

async fn conflict<K>(space: &Space, name: &str, uid: &str)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let said = format!("{} {name} exists and does not belong to this ModelDeployment", K::kind(&()));
    // Not Ready: what waits for the last of them, the budget, serves already.
    space.until("model", |d| crate::support::says(d, "Degraded", "True", "NameConflict", &[&said])).await;
    let api: Api<K> = space.api();
    let object = api.get(name).await.expect("it is still there");
    assert_eq!(object.meta().uid.as_deref(), Some(uid), "{name} is another");
    assert!(object.meta().owner_references.is_none(), "{name} was adopted");
    api.delete(name, &DeleteParams::background()).await.expect("a delete");
}

#[tokio::test]
async fn a_foreign_object_of_a_childs_name_is_never_touched() {
    in_namespace("conflict", async |space| {
        // The resolve pod's name follows from the question: asked once, it is known.
        let uri = space.file_with("model.onnx", &relu(), &[("X-Status", "404")]).await;
        let mut spec = space.spec(&uri);
        spec["replicas"] = json!(2); // one pod has no budget
        space.apply("model", &spec).await;
        space.until_degraded("model", "SourceNotFound", &[]).await;
        let resolver = space.pods(RESOLVERS).await[0].metadata.name.clone().expect("a name");
        delete(space).await;

        let pod = json!({
            "schedulingGates": [{ "name": "example.test/never" }],
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{ "name": "c", "image": "none", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
        });
        let meta = |name: &str| json!({ "name": name });
        let template = json!({ "metadata": { "labels": { "app": "other" } }, "spec": pod });
        let other = json!({ "metadata": meta(&resolver), "spec": pod });
        let revision =
            json!({ "metadata": meta("model-r1"), "revision": 1, "data": { "somebody": "else's" } });
        let set = json!({ "metadata": meta("model-r1"), "spec": {
            "replicas": 0, "selector": { "matchLabels": { "app": "other" } }, "template": template } });
        let service = json!({ "metadata": meta("model"), "spec": { "ports": [{ "port": 80 }] } });
        let budget = json!({ "metadata": meta("model"), "spec": {
            "maxUnavailable": 1, "selector": { "matchLabels": { "app": "other" } } } });
        let route = json!({ "metadata": meta("model"), "spec": { "mode": "Forward" } });
        let route = foreign::<ModelRoute>(space, route).await;
        let other = foreign::<Pod>(space, other).await;
        let revision = foreign::<ControllerRevision>(space, revision).await;
        let set = foreign::<ReplicaSet>(space, set).await;
        let service = foreign::<Service>(space, service).await;
        let budget = foreign::<PodDisruptionBudget>(space, budget).await;
        space.file("model.onnx", &relu()).await;
        space.apply("model", &spec).await;
        conflict::<Pod>(space, &resolver, &other).await;
        conflict::<ControllerRevision>(space, "model-r1", &revision).await;
        // In the order of the plan: pods start before the Service waits for its address.
        conflict::<ReplicaSet>(space, "model-r1", &set).await;
        conflict::<ModelRoute>(space, "model", &route).await;
        conflict::<Service>(space, "model", &service).await;
        conflict::<PodDisruptionBudget>(space, "model", &budget).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn a_service_from_before_tls_gets_its_port() {
    in_namespace("ports", async |space| {
        space.serve_first("model").await;
        let services = space.api::<Service>();
        let before = services.get("model").await.expect("the Service").spec.unwrap_or_default();
        let mut ports = before.ports.clone().unwrap_or_default();
        ports.retain(|port| port.name.as_deref() != Some("https"));
        let without = Patch::Merge(json!({ "spec": { "ports": ports } }));
        services.patch("model", &PatchParams::default(), &without).await.expect("a patch");
        wait("the port for TLS", async || {
            let now = services.get("model").await.map_err(|e| e.to_string())?.spec.unwrap_or_default();
            (now.ports == before.ports).then_some(()).ok_or(format!("{:?}", now.ports))
        })
        .await;
        space.answers("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn revisions_beyond_the_history_limit_go() {
    in_namespace("history", async |space| {
        let mut good = space.serve_first("model").await;
        good["revisionHistoryLimit"] = json!(0);
        let uri = space.file("second/model.onnx", &neg()).await;
        space.apply("model", &space.with_uri(&good, &uri)).await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
        wait("end of the first revision", async || {
            let revisions = names::<ControllerRevision>(space).await;
            (revisions == ["ControllerRevision model-r2"]).then_some(()).ok_or(format!("{revisions:?}"))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn failed_pods_do_not_pile_up() {
    in_namespace("failed", async |space| {
        space.serve_first("model").await;
        let set = space.api::<ReplicaSet>().get("model-r1").await.expect("the ReplicaSet");
        // As evictions leave them. A ReplicaSet replaces such pods, and keeps them for ever. No node has these: a
        // kubelet would take the status back.
        let pods = space.api::<Pod>();
        for count in 1..=5 {
            let name = format!("evicted-{count}");
            let pod = json!({
                "metadata": { "name": name },
                "spec": {
                    "nodeSelector": { "no": "node" },
                    "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                    "containers": [{ "name": "server", "image": "none", "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
                },
            });
            space.create::<Pod>(&pod).await;
            let failed = json!({ "status": { "phase": "Failed", "reason": "Evicted", "message": "by a test" } });
            let params = PatchParams::default();
            pods.patch_status(&name, &params, &Patch::Merge(&failed)).await.expect("a status");
            let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "model-r1",
                "uid": set.metadata.uid, "controller": true }]);
            let labels = set.spec.as_ref().and_then(|s| s.template.as_ref()?.metadata.as_ref()?.labels.clone());
            let ours = json!({ "metadata": { "labels": labels, "ownerReferences": owner } });
            pods.patch(&name, &params, &Patch::Merge(&ours)).await.expect("labels");
        }
        wait("two failed pods fewer", async || {
            let left = space.pods("modelwright.dev/role=serve").await;
            let failed = left.iter().filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed"));
            let failed = failed.count();
            (failed == 3).then_some(()).ok_or(format!("{failed}"))
        })
        .await;
        space.until_ready("model").await;
        space.serves_on("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn a_resolve_pod_that_somebody_deletes_is_made_again_and_goes_when_it_is_done() {
    in_namespace("resolver", async |space| {
        let uri = space.file_with("model.onnx", &relu(), &[("X-Status", "503")]).await;
        space.apply("model", &space.spec(&uri)).await;
        space.until_degraded("model", "SourceUnavailable", &[]).await;
        let former = space.pods(RESOLVERS).await[0].metadata.clone();
        let name = former.name.as_deref().expect("a name");
        space.api::<Pod>().delete(name, &DeleteParams::default()).await.expect("a delete");
        wait("another resolve pod", async || {
            let uids: Vec<_> = space.pods(RESOLVERS).await.into_iter().map(|p| p.metadata.uid).collect();
            (!uids.is_empty() && !uids.contains(&former.uid)).then_some(()).ok_or(format!("{uids:?}"))
        })
        .await;
        space.file("model.onnx", &relu()).await;
        space.until_ready("model").await;
        wait("end of the resolve pod", async || {
            let pods = space.pods(RESOLVERS).await;
            pods.is_empty().then_some(()).ok_or(format!("{} resolve pods", pods.len()))
        })
        .await;
    })
    .await;
}
