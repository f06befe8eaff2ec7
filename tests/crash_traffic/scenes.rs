//! What happens while requests come and the operator dies, one function a scene; each begins where the one before ended.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use modelwright::api::annotations;
use serde_json::{Value, json};

use super::stage::{REPLICAS, Stage};

pub struct Scene {
    pub title: &'static str,
    pub act: for<'a> fn(&'a Stage<'a>) -> LocalBoxFuture<'a, ()>,
}

pub const SCENES: [Scene; 13] = [
    Scene { title: "change", act: change },
    Scene { title: "rollback", act: rollback },
    Scene { title: "rollback at once", act: rollback_at_once },
    Scene { title: "canary", act: canary },
    Scene { title: "abort", act: abort },
    Scene { title: "analysis", act: analysis },
    Scene { title: "shadow", act: shadow },
    Scene { title: "blue/green", act: blue_green },
    Scene { title: "recreate", act: recreate },
    Scene { title: "in place", act: in_place },
    Scene { title: "in place, aborted", act: in_place_aborted },
    Scene { title: "to zero and back", act: to_zero_and_back },
    // The last: from here on the pods want a GPU.
    Scene { title: "one for the other", act: one_for_the_other },
];

fn change<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        stage.roll().await;
    }
    .boxed_local()
}

/// The old pods are gone: the old revision gets new ones.
fn rollback<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        stage.back_to(stage.version() - 1).await;
    }
    .boxed_local()
}

/// While its pods live.
fn rollback_at_once<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        let former = stage.version();
        stage.roll().await;
        stage.back_to(former).await;
    }
    .boxed_local()
}

/// Step by step to the end.
fn canary<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        stage.set_strategy(steps(json!([
            { "setWeight": 20 }, { "pause": {} }, { "setWeight": 60 }, { "pause": {} },
        ])));
        let next = stage.apply_next().await;
        let id = stage.until_weight(20, 1).await;
        stage.annotate(annotations::PROMOTE, &format!("{id}/1")).await;
        let id = stage.until_weight(60, 3).await;
        stage.annotate(annotations::PROMOTE, &format!("{id}/3")).await;
        stage.until_stable(next).await;
    }
    .boxed_local()
}

/// And the spec goes back to what serves.
fn abort<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    aborted(stage, "Auto").boxed_local()
}

async fn aborted(stage: &Stage<'_>, replacement: &str) {
    let former = stage.version();
    let steps = json!([{ "setWeight": 30 }, { "pause": {} }]);
    stage.set_strategy(json!({ "replacement": replacement, "canary": { "steps": steps } }));
    let next = stage.apply_next().await;
    let id = stage.until_weight(30, 1).await;
    stage.annotate(annotations::ABORT, &id).await;
    stage.until_aborted(next).await;
    stage.back_to(former).await;
}

/// The candidate waits for its requests, and passes.
fn analysis<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        let metrics = json!([{ "name": "errors", "type": "ErrorRate", "max": "0.01" }]);
        stage.set_strategy(json!({ "canary": {
            "steps": [{ "setWeight": 40 }],
            "analysis": { "minRequests": 50, "intervalSeconds": 1, "metrics": metrics },
        } }));
        stage.roll().await;
    }
    .boxed_local()
}

/// Its answers are others than the stable revision's, so it gets no traffic.
fn shadow<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        let former = stage.version();
        let outputs = json!([{ "name": "y", "maxAbsolute": "0" }]);
        let metrics = json!([{ "name": "answers", "type": "OutputDifference", "outputs": outputs }]);
        stage.set_strategy(json!({ "canary": {
            "steps": [{ "shadow": { "percent": 50, "durationSeconds": 600 } }],
            "analysis": { "metrics": metrics },
        } }));
        let next = stage.apply_next().await;
        stage.until_analysis_failed().await;
        stage.until_aborted(next).await;
        stage.back_to(former).await;
    }
    .boxed_local()
}

fn blue_green<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        stage.set_strategy(steps(json!([{ "setWeight": 0 }, { "pause": {} }])));
        let next = stage.apply_next().await;
        let id = stage.until_weight(0, 1).await;
        stage.annotate(annotations::PROMOTE, &format!("{id}/full")).await;
        stage.until_stable(next).await;
    }
    .boxed_local()
}

/// Requests wait while the pods are exchanged.
fn recreate<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        stage.set_strategy(json!({ "replacement": "Recreate" }));
        stage.roll().await;
    }
    .boxed_local()
}

/// The new model comes into the pods that run.
fn in_place<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        let before = stage.pods().await;
        stage.set_strategy(json!({ "replacement": "InPlace" }));
        stage.roll().await;
        assert_eq!(stage.pods().await, before, "the pods stay");
    }
    .boxed_local()
}

/// Two models beside each other in the pods, and one goes again.
fn in_place_aborted<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        let before = stage.pods().await;
        aborted(stage, "InPlace").await;
        assert_eq!(stage.pods().await, before, "the pods stay");
    }
    .boxed_local()
}

fn to_zero_and_back<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        stage.scale(0).await;
        stage.until_none().await;
        stage.scale(REPLICAS).await;
        stage.until_serving(REPLICAS).await;
    }
    .boxed_local()
}

/// Nobody knows what is free of a GPU's memory, so that a pod has one model at a time.
fn one_for_the_other<'a>(stage: &'a Stage<'a>) -> LocalBoxFuture<'a, ()> {
    async {
        stage.set_strategy(json!({ "replacement": "InPlace" }));
        stage.want_gpu();
        stage.roll().await;
        stage.until_pods(REPLICAS).await;
        let before = stage.pods().await;
        let next = stage.apply_next().await;
        stage.until_replaced("InPlace", "GPUMemoryUnknown").await;
        stage.until_stable(next).await;
        assert_eq!(stage.pods().await, before, "the pods stay");
    }
    .boxed_local()
}

fn steps(steps: Value) -> Value {
    json!({ "canary": { "steps": steps } })
}
