//! What happens while requests are on their way, one function a scene.

mod incidents;
mod marathon;
mod stage;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use modelwright::api::annotations;
use serde_json::json;

pub use marathon::Marathon;
use stage::Stage;
pub use stage::{Scene, play};

pub fn rollout<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.roll().await;
    }
    .boxed()
}

pub fn rollback<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let former = stage.version();
        stage.roll().await;
        stage.back_to(former).await;
    }
    .boxed()
}

pub fn scale<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        for replicas in [1, 3, 2] {
            stage.apply_now(json!({ "replicas": replicas })).await;
            stage.until_serving(replicas).await;
        }
    }
    .boxed()
}

pub fn server_killed<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        // The supervisor, so that the container ends.
        stage.kill(&stage.serving(), "modelwright-server").await;
        stage.until_serving(2).await;
    }
    .boxed()
}

pub fn gateways_restarted<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.kubectl(&["rollout", "restart", "deployment/modelwright-gateway"]);
        stage.until_gateways_rolled().await;
    }
    .boxed()
}

pub fn gateway_killed<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.kill("modelwright.dev/component=gateway", "modelwright-gateway").await;
    }
    .boxed()
}

/// Gateways know what they knew.
pub fn no_api_server<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.without_api_server(stage.answered_more(1000)).await;
        stage.roll().await;
    }
    .boxed()
}

pub fn operator_killed<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let next = stage.apply_next().await;
        stage.kill_operators().await;
        stage.until_stable(next).await;
    }
    .boxed()
}

pub fn chart_upgraded<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.set(json!({ "strategy": {} }));
        let next = stage.apply_next().await;
        stage.upgrade_chart().await;
        stage.until_stable(next).await;
    }
    .boxed()
}

/// At each of a canary's steps.
pub fn operator_killed_at_each_step<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.set(steps(json!([{ "setWeight": 20 }, { "pause": {} }, { "setWeight": 60 }, { "pause": {} }])));
        let next = stage.apply_next().await;
        stage.kill_leader().await;
        let id = stage.until_weight(20, 1).await;
        stage.kill_leader().await;
        stage.annotate(annotations::PROMOTE, &format!("{id}/1")).await;
        stage.until_weight(60, 3).await;
        stage.annotate(annotations::PROMOTE, &format!("{id}/3")).await;
        stage.kill_leader().await;
        stage.until_stable(next).await;
    }
    .boxed()
}

pub fn node_drained<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.drain_node().await;
        stage.until_serving(2).await;
        stage.uncordon();
    }
    .boxed()
}

/// The number goes down and up again while pods leave the node.
pub fn node_drained_while_following_demand<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.apply_now(json!({ "autoscaling": { "target": 80 } })).await;
        stage.until_serving(3).await;
        let follow = async {
            stage.apply_now(json!({ "autoscaling": { "target": 1000 } })).await;
            stage.until_serving(1).await;
            stage.apply_now(json!({ "autoscaling": { "target": 80 } })).await;
        };
        tokio::join!(stage.drain_node(), follow);
        stage.until_serving(3).await;
        stage.uncordon();
        stage.apply_now(json!({ "autoscaling": { "target": 1000 } })).await;
        stage.until_serving(1).await;
    }
    .boxed()
}

pub fn to_zero_and_back<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.apply_now(json!({ "replicas": 0 })).await;
        stage.until_none().await;
        stage.apply_now(json!({ "replicas": 2 })).await;
        stage.until_serving(2).await;
    }
    .boxed()
}

/// The load is the same throughout; what a pod is said to take is not.
pub fn follow_demand<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.until_serving(1).await;
        stage.apply_now(json!({ "autoscaling": { "target": 80 } })).await;
        stage.until_serving(3).await;
        stage.apply_now(json!({ "autoscaling": { "target": 1000 } })).await;
        stage.until_serving(1).await;
    }
    .boxed()
}

/// Requests come back before, at and after the moment in which the last pod is given up, and at last when none is left.
pub fn through_zero<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    const CYCLES: u64 = 12;
    async {
        for cycle in 0..CYCLES {
            stage.rest(Duration::from_millis(800 + 200 * cycle)).await;
            stage.answered_more(100).await;
        }
        stage.rest_until_none().await;
        stage.answered_more(100).await;
    }
    .boxed()
}

/// To the end each time: requests come when no pod is left, and those before are still ending.
pub fn to_zero_ten_times<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        for _ in 0..10 {
            stage.rest_until_none().await;
            stage.answered_more(100).await;
        }
    }
    .boxed()
}

/// To the end, by a pause that ends by itself and one that somebody ends.
pub fn canary<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.set(steps(json!([
            { "setWeight": 20 },
            { "pause": { "durationSeconds": 2 } },
            { "setWeight": 50 },
            { "pause": {} },
        ])));
        let next = stage.apply_next().await;
        let id = stage.until_weight(50, 3).await;
        stage.annotate(annotations::PROMOTE, &format!("{id}/3")).await;
        stage.until_stable(next).await;
    }
    .boxed()
}

pub fn canary_aborted<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let former = stage.version();
        stage.set(steps(json!([{ "setWeight": 30 }, { "pause": {} }])));
        let next = stage.apply_next().await;
        let id = stage.until_weight(30, 1).await;
        stage.annotate(annotations::ABORT, &id).await;
        stage.until_aborted(next).await;
        stage.back_to(former).await;
    }
    .boxed()
}

/// Held for want of requests, then passed.
pub fn canary_analysed<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let metrics = json!([
            { "name": "errors", "type": "ErrorRate", "max": "0.01" },
            { "name": "latency", "type": "LatencyP99Ratio", "max": "1000" }, // of a machine that does much else
        ]);
        stage.set(json!({ "strategy": { "canary": {
            "steps": [{ "setWeight": 20 }, { "pause": { "durationSeconds": 1 } }, { "setWeight": 50 }],
            "analysis": { "minRequests": 300, "intervalSeconds": 1, "metrics": metrics },
        } } }));
        stage.roll().await;
    }
    .boxed()
}

pub fn canary_failing<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        failing(stage, "Auto").await;
    }
    .boxed()
}

async fn failing(stage: &Stage<'_>, replacement: &str) {
    let former = stage.version();
    let metrics = json!([{ "name": "errors", "type": "ErrorRate", "max": "0.01" }]);
    stage.set(json!({ "strategy": { "replacement": replacement, "canary": {
        "steps": [{ "setWeight": 20 }, { "pause": { "durationSeconds": 600 } }],
        "analysis": { "metrics": metrics },
    } } }));
    let next = stage.apply_failing().await;
    stage.until_analysis_failed("errors").await;
    stage.until_aborted(next).await;
    stage.back_to(former).await;
}

/// Each version of the model adds another number, and no client gets the candidate's.
pub fn shadow_differing<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let former = stage.version();
        let outputs = json!([{ "name": "y", "maxAbsolute": "0" }]);
        let metrics = json!([{ "name": "answers", "type": "OutputDifference", "outputs": outputs }]);
        stage.set(json!({ "strategy": { "canary": {
            "steps": [{ "shadow": { "percent": 50, "durationSeconds": 600 } }],
            "analysis": { "metrics": metrics },
        } } }));
        let next = stage.apply_next().await;
        stage.until_analysis_failed("answers").await;
        stage.until_aborted(next).await;
        stage.back_to(former).await;
    }
    .boxed()
}

/// The same of one that comes into the pod where the stable version answers.
pub fn in_place_failing<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let before = stage.serving_pods().await;
        failing(stage, "InPlace").await;
        assert_eq!(stage.serving_pods().await, before, "the pods stay");
    }
    .boxed()
}

pub fn blue_green<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.set(steps(json!([{ "setWeight": 0 }, { "pause": {} }])));
        let next = stage.apply_next().await;
        let id = stage.until_weight(0, 1).await;
        stage.annotate(annotations::PROMOTE, &format!("{id}/full")).await;
        stage.until_stable(next).await;
    }
    .boxed()
}

pub fn recreate<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.set(json!({ "strategy": { "replacement": "Recreate" } }));
        stage.roll().await;
    }
    .boxed()
}

/// The new model comes into the pod that runs; one that can't be loaded leaves the old one answering.
pub fn in_place<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let former = stage.version();
        let before = stage.serving_pods().await;
        stage.set(json!({ "strategy": { "replacement": "InPlace" } }));
        stage.apply_broken().await;
        stage.back_to(former).await;
        stage.roll().await;
        assert_eq!(stage.serving_pods().await, before, "the pods stay");
    }
    .boxed()
}

/// Two models have too little memory in a pod: pod by pod, one takes the other's place, and gives it back.
pub fn one_for_another<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let before = stage.serving_pods().await;
        let next = stage.apply_next().await;
        stage.until_replaced("InPlace", "NoMemoryBeside").await;
        stage.until_stable(next).await;
        stage.set(json!({ "strategy": { "replacement": "InPlace", "canary": { "steps": [
            { "setWeight": 50 }, { "pause": {} },
        ] } } }));
        let other = stage.apply_next().await;
        let id = stage.until_weight(50, 1).await;
        stage.annotate(annotations::ABORT, &id).await;
        stage.until_aborted(other).await;
        stage.back_to(next).await;
        assert_eq!(stage.serving_pods().await, before, "the pods stay");
    }
    .boxed()
}

/// Two pods have a GPU each, and no node has another. `Auto` asks the scheduler first.
pub fn no_gpu_left<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let before = stage.serving_pods().await;
        let next = stage.apply_next().await;
        stage.until_replaced("InPlace", "SurgeUnschedulable").await;
        stage.until_stable(next).await;
        assert_eq!(stage.serving_pods().await, before, "the pods stay");
        stage.set(json!({ "strategy": { "replacement": "InPlace" } }));
        stage.roll().await;
        assert_eq!(stage.serving_pods().await, before, "the pods stay");
    }
    .boxed()
}

/// Half of the traffic is the candidate's, in the pod where the stable version answers, when its worker aborts, and when
/// the next one hangs.
pub fn in_place_misbehaving<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        let before = stage.serving_pods().await;
        stage.set(json!({ "strategy": { "replacement": "InPlace", "canary": { "steps": [
            { "setWeight": 50 }, { "pause": {} },
        ] } } }));
        let next = stage.apply_next().await;
        let id = stage.until_weight(50, 1).await;
        let (revision, _) = id.split_once('.').expect("revision and attempt");
        for signal in ["ABRT", "STOP"] {
            stage.replace_workers(signal, revision).await;
            stage.answered_more(500).await;
        }
        stage.annotate(annotations::PROMOTE, &format!("{id}/full")).await;
        stage.until_stable(next).await;
        assert_eq!(stage.serving_pods().await, before, "the pods stay");
    }
    .boxed()
}

/// As cgroup v2 does when two workers outgrow the container: all of its processes at once.
pub fn in_place_killed<'a>(stage: &'a Stage<'a>) -> BoxFuture<'a, ()> {
    async {
        stage.set(json!({ "strategy": { "replacement": "InPlace", "canary": { "steps": [
            { "setWeight": 50 }, { "pause": {} },
        ] } } }));
        let next = stage.apply_next().await;
        let id = stage.until_weight(50, 1).await;
        stage.kill(&stage.serving(), "modelwright-server").await;
        stage.annotate(annotations::PROMOTE, &format!("{id}/full")).await;
        stage.until_stable(next).await;
    }
    .boxed()
}

fn steps(steps: serde_json::Value) -> serde_json::Value {
    json!({ "strategy": { "canary": { "steps": steps } } })
}
