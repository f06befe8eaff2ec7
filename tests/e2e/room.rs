//! No room: no GPU left, or a quota that is used up.

use k8s_openapi::api::core::v1::{Node, ResourceQuota};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use modelwright::api::ModelDeployment;
use serde_json::json;

use crate::support::{GPU, NEG, RELU, Space, in_namespace, neg, relu, wait};

async fn until_gone(space: &Space, selector: &str) {
    wait("end of the pods", async || {
        let pods = space.pods(selector).await;
        pods.is_empty().then_some(()).ok_or(format!("{} pods of {selector}", pods.len()))
    })
    .await;
}

#[tokio::test]
async fn who_holds_the_last_gpu_is_named() {
    in_namespace("gpu", async |space| {
        let gpu = GPU.lock().await;
        let nodes = Api::<Node>::all(space.client.clone()).list(&Default::default()).await.expect("nodes");
        let allocatable = nodes.items.into_iter().filter_map(|node| node.status?.allocatable);
        let gpus = allocatable.filter_map(|a| a.get("nvidia.com/gpu")?.0.parse::<u32>().ok());
        let gpus = gpus.max().expect("a node with a GPU: make cluster-up GPUS=1");
        let uri = space.file("model.onnx", &relu()).await;
        let mut spec = space.spec(&uri);
        spec["resources"]["limits"]["nvidia.com/gpu"] = json!(gpus);
        space.apply("first", &spec).await;
        space.until_ready("first").await;
        spec["resources"]["limits"]["nvidia.com/gpu"] = json!(1);
        space.apply("second", &spec).await;
        let holder = format!("held by model deployments {}/first ({gpus})", space.name);
        let parts = ["Insufficient nvidia.com/gpu", "wants 1 nvidia.com/gpu", &holder];
        space.until_degraded("second", "Unschedulable", &parts).await;
        space.serves_on("first", 1, RELU).await;
        // The cause is mended elsewhere.
        space.api::<ModelDeployment>().delete("first", &DeleteParams::default()).await.expect("a delete");
        space.until_ready("second").await;
        space.answers("second", 1, RELU).await;
        space.api::<ModelDeployment>().delete("second", &DeleteParams::default()).await.expect("a delete");
        until_gone(space, "modelwright.dev/role=serve").await;
        drop(gpu);
    })
    .await;
}

async fn set_quota(space: &Space, resource: &str, amount: &str) {
    let body = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "pods" },
        "spec": { "hard": { resource: amount } },
    });
    let params = PatchParams::apply("test").force();
    let quotas = space.api::<ResourceQuota>();
    quotas.patch("pods", &params, &Patch::Apply(&body)).await.expect("a quota");
    wait("quota in force", async || {
        let status = quotas.get("pods").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        let hard = status.hard.unwrap_or_default();
        hard.get(resource).is_some_and(|q| q.0 == amount).then_some(()).ok_or(format!("{hard:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_quota_that_leaves_no_room_for_the_resolver_is_quoted() {
    in_namespace("quota-resolver", async |space| {
        let good = space.serve_first("model").await;
        set_quota(space, "pods", "1").await;
        let uri = space.file("second/model.onnx", &neg()).await;
        space.apply("model", &space.with_uri(&good, &uri)).await;
        let parts = ["exceeded quota: pods", "limited: pods=1"];
        space.until_degraded("model", "QuotaExceeded", &parts).await;
        space.serves_on("model", 1, RELU).await;
        // Two gateways, the old and the new pod, and the resolver.
        set_quota(space, "pods", "5").await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}

#[tokio::test]
async fn a_quota_that_leaves_no_room_for_a_replica_is_quoted() {
    in_namespace("quota-pods", async |space| {
        let mut good = space.serve_first("model").await;
        good["replicas"] = json!(2);
        space.apply("model", &good).await;
        space.until_ready("model").await;
        // Two serve with 128Mi each, one resolves with 64Mi; no third fits. Not a quota of pods, where the resolver's
        // place would be free for one: the quota's controller counts late what goes, and would let two in.
        set_quota(space, "requests.memory", "330Mi").await;
        let uri = space.file("second/model.onnx", &neg()).await;
        space.apply("model", &space.with_uri(&good, &uri)).await;
        let parts = ["exceeded quota: pods", "limited: requests.memory=330Mi"];
        let degraded = space.until_degraded("model", "QuotaExceeded", &parts).await;
        assert_eq!(degraded.status.unwrap().available_replicas, 2);
        space.serves_on("model", 1, RELU).await;
        set_quota(space, "requests.memory", "1Gi").await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}
