//! What the operator may do to objects: make its own, mend its own, and leave everybody else's alone.

mod common;

use common::{Cluster, Operator, OperatorOptions, Place, condition, wait};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use modelwright::api::ModelDeployment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

impl Place {
    async fn open(namespace: &'static str) -> Self {
        let cluster = Cluster::open().await;
        let identity = cluster.administrator(namespace, "operator").await;
        Self { cluster, identity, namespace }
    }

    async fn until_ready(&self, name: &str) {
        self.until(name, "Ready", common::ready).await;
    }

    async fn uid<K>(&self, name: &str) -> Option<String>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>().get_opt(name).await.expect("get").and_then(|object| object.uid())
    }
}

#[tokio::test]
async fn an_operator_with_other_defaults_restarts_no_pod() {
    let place = Place::open("upgrade").await;
    let operator = Operator::start(&place.options());
    place.create("model").await;
    place.until_ready("model").await;
    operator.terminate().await;
    let sets = place.api::<ReplicaSet>();
    let before = sets.get("model-r1").await.expect("the ReplicaSet");
    let pods = pod_names(&place).await;

    let options = OperatorOptions {
        loader_image: "example.test/modelwright:2".into(),
        runtime_version: "2.0.0".into(),
        ..place.options()
    };
    let _operator = Operator::start(&options);
    let verdict = |d: &ModelDeployment| condition(d, "RuntimeCurrent").is_some_and(|c| c.status == "False");
    let deployment = place.until("model", "RuntimeCurrent=False", verdict).await;
    let current = condition(&deployment, "RuntimeCurrent").expect("the condition");
    assert_eq!(current.reason, "NewerRuntimeAvailable");
    assert!(current.message.contains("set runtime.version: 2.0.0 to roll"), "{}", current.message);
    // What the new operator does to another object shows that it has gone on to work.
    place.create("other").await;
    place.until_ready("other").await;

    let after = sets.get("model-r1").await.expect("the ReplicaSet");
    assert_eq!(after.metadata.generation, before.metadata.generation);
    assert_eq!(after.spec, before.spec);
    assert!(sets.get_opt("model-r2").await.expect("get").is_none(), "a new revision");
    let still = pod_names(&place).await;
    assert!(pods.iter().all(|pod| still.contains(pod)), "{pods:?} became {still:?}");
    let set = sets.get("other-r1").await.expect("the ReplicaSet");
    let set = json!(set.spec);
    let images = &set["template"]["spec"]["containers"];
    assert_eq!(images[0]["image"], "example.test/modelwright:2", "a new object takes the new defaults");
}

async fn pod_names(place: &Place) -> Vec<String> {
    let params = ListParams::default().labels("modelwright.dev/role=serve");
    let mut names: Vec<_> =
        place.api::<Pod>().list(&params).await.expect("pods").iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}

/// An object that somebody else has, under a name that a child needs. With our label: only the owner counts.
fn foreign(name: &str, rest: Value) -> Value {
    let mut object = json!({ "metadata": { "name": name, "labels": { "modelwright.dev/deployment": "x" } } });
    for (key, value) in rest.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

/// Without what others write into the status of any object.
fn touchable<K: Serialize>(object: &K) -> Value {
    let mut object = json!(object);
    for (part, name) in [("", "status"), ("/metadata", "resourceVersion"), ("/metadata", "managedFields")] {
        object.pointer_mut(part).and_then(Value::as_object_mut).and_then(|fields| fields.remove(name));
    }
    object
}

async fn conflict<K>(place: &Place, deployment: &str, child: &str, rest: Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(foreign(child, rest)).expect("an object");
    let api = place.api::<K>();
    let theirs = api.create(&PostParams::default(), &object).await.expect("create");
    place.create_of(deployment, 2).await; // one pod has no budget

    let kind = K::kind(&());
    let found = place.until(deployment, "NameConflict", |d| degraded(d, "NameConflict")).await;
    let degraded = condition(&found, "Degraded").expect("the condition");
    assert!(degraded.message.starts_with(&format!("{kind} {child} exists")), "{}", degraded.message);
    let ready = condition(&found, "Ready").expect("the condition");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "NameConflict"));

    let still = api.get(child).await.expect("the foreign object");
    assert_eq!(still.uid(), theirs.uid(), "{kind} {child} was replaced");
    assert_eq!(touchable(&still), touchable(&theirs), "{kind} {child} was touched");
    api.delete(child, &DeleteParams::background()).await.expect("delete");
    place.until_ready(deployment).await;
    if let Some(ours) = api.get_opt(child).await.expect("get") {
        assert_ne!(ours.uid(), theirs.uid());
        assert_eq!(ours.owner_references().len(), 1);
    }
}

#[tokio::test]
async fn a_foreign_object_with_a_childs_name_is_reported_and_never_touched() {
    let place = Place::open("conflict").await;
    // The resolve pod's name holds a hash of the question: a quota in another namespace quotes it.
    let probe = Place::open("conflict-probe").await;
    let quotas = probe.api::<ResourceQuota>();
    no_pods(&quotas).await;
    let operator = Operator::start(&probe.options());
    probe.create("with-pod").await;
    let quoted = probe.until("with-pod", "QuotaExceeded", |d| degraded(d, "QuotaExceeded")).await;
    let message = &condition(&quoted, "Degraded").expect("the condition").message;
    let pod = message.split('"').nth(1).expect("the name of the pod");
    assert!(pod.starts_with("with-pod-resolve-"), "{message}");
    operator.terminate().await;

    let _operator = Operator::start(&place.options());
    let template = json!({
        "metadata": { "labels": { "app": "foreign" } },
        "spec": { "containers": [{ "name": "c", "image": "example.test/c" }] },
    });
    let mut bound = template["spec"].clone();
    bound["nodeName"] = json!("node-1"); // or the fake scheduler would touch it
    let selector = json!({ "matchLabels": { "app": "foreign" } });
    tokio::join!(
        conflict::<Service>(
            &place,
            "with-service",
            "with-service",
            json!({ "spec": { "ports": [{ "port": 80 }] } })
        ),
        conflict::<PodDisruptionBudget>(&place, "with-budget", "with-budget", json!({ "spec": {} })),
        conflict::<ControllerRevision>(
            &place,
            "with-revision",
            "with-revision-r1",
            json!({ "revision": 1, "data": {} })
        ),
        conflict::<ReplicaSet>(
            &place,
            "with-set",
            "with-set-r1",
            json!({ "spec": { "replicas": 0, "selector": selector, "template": template } })
        ),
        conflict::<Pod>(&place, "with-pod", pod, json!({ "spec": bound })),
    );
}

#[tokio::test]
async fn children_that_somebody_deletes_or_changes_are_mended() {
    let place = Place::open("mend").await;
    let _operator = Operator::start(&place.options());
    place.create_of("model", 2).await;
    place.until_ready("model").await;

    again::<Service>(&place, "model").await;
    again::<PodDisruptionBudget>(&place, "model").await;
    again::<ReplicaSet>(&place, "model-r1").await;
    place.until_ready("model").await;

    let sets = place.api::<ReplicaSet>();
    let five = Patch::Merge(json!({ "spec": { "replicas": 5 } }));
    sets.patch("model-r1", &PatchParams::default(), &five).await.expect("patch");
    wait("ReplicaSet scaled back", async || {
        let set = sets.get("model-r1").await.map_err(|e| e.to_string())?;
        match set.spec.and_then(|s| s.replicas) {
            Some(2) => Ok(()),
            other => Err(format!("{other:?} replicas")),
        }
    })
    .await;

    let services = place.api::<Service>();
    let elsewhere = Patch::Merge(json!({ "spec": { "selector": { "modelwright.dev/set": "r77" } } }));
    services.patch("model", &PatchParams::default(), &elsewhere).await.expect("patch");
    wait("Service that leads to the gateways again", async || {
        let service = services.get("model").await.map_err(|e| e.to_string())?;
        let selector = service.spec.and_then(|s| s.selector).unwrap_or_default();
        if selector.len() == 1 && selector["modelwright.dev/component"] == "gateway" {
            return Ok(());
        }
        Err(format!("{selector:?}"))
    })
    .await;
    place.until_ready("model").await;
}

/// Deleted by somebody, made again by the operator.
async fn again<K>(place: &Place, name: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let former = place.uid::<K>(name).await;
    assert!(former.is_some(), "no {} {name}", K::kind(&()));
    place.api::<K>().delete(name, &DeleteParams::background()).await.expect("delete");
    wait("new child", async || match place.uid::<K>(name).await {
        Some(uid) if Some(&uid) != former.as_ref() => Ok(()),
        other => Err(format!("{} {name}: {other:?}", K::kind(&()))),
    })
    .await;
}

#[tokio::test]
async fn a_lost_record_makes_a_new_revision_while_the_old_pods_serve_on() {
    let place = Place::open("record").await;
    let _operator = Operator::start(&place.options());
    place.create("model").await;
    place.until_ready("model").await;
    let records = place.api::<ControllerRevision>();
    records.delete("model-r1", &DeleteParams::background()).await.expect("delete");
    let moved = |d: &ModelDeployment| {
        let status = d.status.as_ref();
        common::ready(d) && status.is_some_and(|s| s.stable_revision.as_deref() == Some("model-r2"))
    };
    place.until("model", "Ready at r2", moved).await;
    // The former pods drain; nothing took them away before.
    assert!(place.uid::<ReplicaSet>("model-r1").await.is_some());
}

#[tokio::test]
async fn a_new_object_waits_for_the_children_of_a_former_one_of_its_name() {
    let place = Place::open("namesake").await;
    let _operator = Operator::start(&place.options());
    place.create("model").await;
    place.until_ready("model").await;
    let former = [place.uid::<ReplicaSet>("model-r1").await, place.uid::<Service>("model").await];

    // Held as a slow garbage collector would.
    hold::<ReplicaSet>(&place, "model-r1", json!(["example.test/hold"])).await;
    hold::<Service>(&place, "model", json!(["example.test/hold"])).await;
    let api = place.api::<ModelDeployment>();
    api.delete("model", &DeleteParams::background()).await.expect("delete");
    wait("former children that are being deleted", async || {
        let set = place.api::<ReplicaSet>().get("model-r1").await.map_err(|e| e.to_string())?;
        let service = place.api::<Service>().get("model").await.map_err(|e| e.to_string())?;
        let going = |meta: &kube::api::ObjectMeta| meta.deletion_timestamp.is_some();
        if going(&set.metadata) && going(&service.metadata) { Ok(()) } else { Err("not marked".to_string()) }
    })
    .await;
    place.create("model").await;
    // It resolves anew, up to where the former children stand in the way.
    let started = |d: &ModelDeployment| d.status.is_some();
    let waiting = place.until("model", "status of the new object", started).await;
    assert!(
        condition(&waiting, "Degraded").is_none_or(|c| c.reason != "NameConflict"),
        "{:?}",
        waiting.status
    );
    assert!(!common::ready(&waiting));

    hold::<ReplicaSet>(&place, "model-r1", Value::Null).await;
    hold::<Service>(&place, "model", Value::Null).await;
    place.until_ready("model").await;
    let now = [place.uid::<ReplicaSet>("model-r1").await, place.uid::<Service>("model").await];
    assert!(
        now.iter().zip(&former).all(|(now, former)| now.is_some() && now != former),
        "{former:?} {now:?}"
    );
}

async fn hold<K>(place: &Place, name: &str, finalizers: Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
    place.api::<K>().patch(name, &PatchParams::default(), &patch).await.expect("patch");
}

fn degraded(deployment: &ModelDeployment, reason: &str) -> bool {
    condition(deployment, "Degraded").is_some_and(|c| c.status == "True" && c.reason == reason)
}

async fn no_pods(quotas: &Api<ResourceQuota>) {
    let none = json!({ "metadata": { "name": "none" }, "spec": { "hard": { "pods": "0" } } });
    let none = serde_json::from_value(none).expect("a quota");
    quotas.create(&PostParams::default(), &none).await.expect("create");
    wait("counted quota", async || {
        let status = quotas.get("none").await.map_err(|e| e.to_string())?.status;
        status.and_then(|s| s.hard).map(drop).ok_or_else(|| "not yet".to_string())
    })
    .await;
}

#[tokio::test]
async fn a_quota_that_leaves_no_room_for_the_resolve_pod_is_named_and_recovered_from() {
    let place = Place::open("quota").await;
    let quotas = place.api::<ResourceQuota>();
    no_pods(&quotas).await;
    let _operator = Operator::start(&place.options());
    place.create("model").await;
    let found = place.until("model", "QuotaExceeded", |d| degraded(d, "QuotaExceeded")).await;
    for kind in ["Degraded", "Ready", "ModelResolved"] {
        let told = condition(&found, kind).expect("the condition");
        assert_eq!(told.reason, "QuotaExceeded", "{kind}");
        assert!(told.message.contains("exceeded quota: none"), "{}", told.message);
    }
    quotas.delete("none", &DeleteParams::default()).await.expect("delete");
    place.until_ready("model").await;
}

#[tokio::test]
async fn a_resolve_pod_goes_once_its_report_is_recorded() {
    let place = Place::open("resolvers").await;
    let _operator = Operator::start(&place.options());
    place.create("model").await;
    place.until_ready("model").await;
    let params = ListParams::default().labels("modelwright.dev/role=resolve");
    wait("end of the resolve pod", async || {
        let pods = place.api::<Pod>().list(&params).await.map_err(|e| e.to_string())?;
        if pods.items.is_empty() { Ok(()) } else { Err(format!("{:?}", pods.items[0].name_any())) }
    })
    .await;
    assert!(place.uid::<ControllerRevision>("model-r1").await.is_some());
}
