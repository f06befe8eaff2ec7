//! Requests on their way while things change: none is lost, none answered twice, by a version that nobody asked for, or
//! wrongly. `make test-e2e` runs it on a cluster of its own, in that cluster's network: `traffic.sh`.

#[path = "../ledger/mod.rs"]
mod ledger;
#[allow(dead_code, unused_imports)] // the bench uses its part
#[path = "traffic/mod.rs"]
mod scenes;
#[allow(dead_code, unused_imports)]
mod support;

use ledger::HEAVY;
use scenes::{Scene, play};
use serde_json::json;

/// Where clients' own retries count apart: their connection ends with the gateway that they spoke to, and until every node
/// knows, a second later, half of the new ones are refused. They wait 50 ms before each.
const CLIENTS_RETRY: u8 = 40;

#[tokio::test]
async fn no_change_loses_a_request() {
    play(&[
        Scene::new("a rolling update", scenes::rollout),
        Scene::new("a rollback while the old pods live", scenes::rollback),
        Scene::new("more replicas, and fewer", scenes::scale).drawn(),
        Scene::new("a serving process is killed", scenes::server_killed),
        Scene::new("a node is drained", scenes::node_drained),
        Scene::new("the gateways are rolled", scenes::gateways_restarted),
        Scene::new("a gateway's process is killed", scenes::gateway_killed).retries(CLIENTS_RETRY),
        Scene::new("no API server for a while", scenes::no_api_server).drawn(),
        Scene::new("the operator is killed in the middle of a rollout", scenes::operator_killed).drawn(),
        Scene::new("a canary, step by step to the end", scenes::canary),
        Scene::new("a canary that is aborted", scenes::canary_aborted),
        Scene::new("a canary that its analysis lets pass", scenes::canary_analysed).drawn(),
        Scene::new("a canary that fails is aborted by its analysis", scenes::canary_failing).fails(),
        Scene::new("a shadow step finds other answers", scenes::shadow_differing).drawn(),
        Scene::new("blue/green", scenes::blue_green),
        Scene::new("pods are recreated while requests wait", scenes::recreate).drawn(),
        Scene::new("every GPU taken, and the new pod needs them", scenes::rollout)
            .of("gpu", gpus(1, "Recreate")),
        Scene::new("every GPU taken, and the new model comes into the pod", scenes::in_place)
            .of("gpu", gpus(1, "Recreate")),
        Scene::new("in a pod with both GPUs, a candidate aborts and hangs", scenes::in_place_misbehaving)
            .drawn()
            .of("gpu", gpus(1, "Recreate")),
        Scene::new("in a pod with both GPUs, a candidate fails its requests", scenes::in_place_failing)
            .drawn()
            .of("gpu", gpus(1, "Recreate"))
            .fails(),
        Scene::new(
            "in a pod with both GPUs, two models, and the container is killed",
            scenes::in_place_killed,
        )
        .drawn()
        .of("gpu", gpus(1, "Recreate")),
        Scene::new("memory for one model in each pod, and another comes", scenes::one_for_another)
            .drawn()
            .of("heavy", json!({ "replicas": 2, "strategy": { "replacement": "InPlace" } }))
            .from(HEAVY),
        Scene::new("no pods for a while", scenes::to_zero_and_back).drawn(),
        Scene::new("pods follow the demand, up and down", scenes::follow_demand).of("scaled", autoscaled(1)),
        Scene::new(
            "a node is drained while pods follow the demand",
            scenes::node_drained_while_following_demand,
        )
        .drawn()
        .of("scaled", autoscaled(1)),
        // After the drains: its pods have no other node to go to.
        Scene::new("a GPU for each of two pods, and none for a third", scenes::no_gpu_left)
            .drawn()
            .of("gpus", gpus(2, "Auto")),
        Scene::new("to zero and back, again and again", scenes::through_zero).of("sleepy", autoscaled(0)),
        Scene::new("to zero and back, ten times", scenes::to_zero_ten_times)
            .drawn()
            .of("sleepy", autoscaled(0)),
        Scene::new("the operator is killed at each step of a canary", scenes::operator_killed_at_each_step),
        Scene::new("the chart is upgraded in the middle of a rollout", scenes::chart_upgraded),
    ])
    .await;
}

fn autoscaled(least: i32) -> serde_json::Value {
    let mut autoscaling = json!({
        "minReplicas": least, "maxReplicas": 3, "metric": "RequestsPerSecond", "target": 1000,
        "behavior": { "scaleDown": { "stabilizationWindowSeconds": 5 } },
    });
    if least == 0 {
        autoscaling["scaleToZeroAfterSeconds"] = json!(1);
    }
    json!({ "autoscaling": autoscaling })
}

/// Each node has two, and one node is for pods that take both, the other for pods that take one.
fn gpus(replicas: i32, replacement: &str) -> serde_json::Value {
    let (node, each) = if replicas == 1 { ("node-1", "2") } else { ("node-2", "1") };
    json!({
        "replicas": replicas,
        "pod": { "nodeSelector": { "kubernetes.io/hostname": node } },
        "resources": { "limits": { "nvidia.com/gpu": each } },
        "strategy": { "replacement": replacement, "surgeTimeoutSeconds": 1 },
    })
}
