//! Models that can't be loaded, or not here.

use serde_json::json;

use crate::support::{
    NEG, RELU, Space, hungry, in_namespace, neg, of_opset, operator, weights, with_weights_in,
};

async fn refused(space: &Space, bytes: &[u8], reason: &str, parts: &[&str]) {
    let good = space.serve_first("model").await;
    let uri = space.file("second/model.onnx", bytes).await;
    space.apply("model", &space.with_uri(&good, &uri)).await;
    space.until_degraded("model", reason, parts).await;
    space.serves_on("model", 1, RELU).await;
    let uri = space.file("third/model.onnx", &neg()).await;
    space.apply("model", &space.with_uri(&good, &uri)).await;
    let ready = space.until_ready("model").await;
    let stable = ready.status.unwrap().stable_revision.unwrap_or_default();
    space.answers("model", stable.trim_start_matches("model-r").parse().unwrap(), NEG).await;
}

#[tokio::test]
async fn an_opset_that_is_too_new_is_named_before_a_pod_starts() {
    in_namespace("opset", async |space| {
        let parts = ["the model uses opset 99 of ai.onnx, and ONNX Runtime", "export it again"];
        refused(space, &of_opset(99), "OpsetUnsupported", &parts).await;
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_nobody_knows_is_named() {
    in_namespace("operator", async |space| {
        let parts = ["operator Frobnicate", "is not known to ONNX Runtime"];
        refused(space, &operator("Frobnicate"), "ModelInvalid", &parts).await;
    })
    .await;
}

#[tokio::test]
async fn external_data_that_is_missing_is_named_with_its_tensor() {
    in_namespace("no-weights", async |space| {
        let parts = ["external data file weights.bin named by tensor \"w\" is missing beside the model file"];
        refused(space, &with_weights_in("weights.bin"), "ModelInvalid", &parts).await;
    })
    .await;
}

#[tokio::test]
async fn external_data_never_leaves_the_folder_of_the_model() {
    in_namespace("escape", async |space| {
        let good = space.serve_first("model").await;
        for (location, rule) in [
            ("../secret.bin", "has a \"..\" component"),
            ("a/../../secret.bin", "has a \"..\" component"),
            ("/etc/passwd", "is an absolute path"),
        ] {
            let folder = format!("second-{}", location.replace(['/', '.'], "-"));
            let uri = space.file(&format!("{folder}/model.onnx"), &with_weights_in(location)).await;
            space.apply("model", &space.with_uri(&good, &uri)).await;
            let parts = ["tensor \"w\" has its data outside the model's folder", rule, &uri];
            space.until_degraded("model", "ModelInvalid", &parts).await;
        }
        space.answers("model", 1, RELU).await;
        space.apply("model", &good).await;
        space.until_ready("model").await;
    })
    .await;
}

#[tokio::test]
async fn a_folder_with_external_data_is_served() {
    in_namespace("folder", async |space| {
        let s3 = space.s3().await;
        s3.create_bucket(&space.name).await;
        s3.put(&space.name, "fraud/8/model.onnx", &with_weights_in("data/weights.bin")).await;
        s3.put(&space.name, "fraud/8/data/weights.bin", &weights([10.0, 20.0, 30.0, 40.0])).await;
        space.create::<k8s_openapi::api::core::v1::Secret>(&s3.credentials.secret("store")).await;
        let mut spec = space.spec(&format!("s3://{}/fraud/8", space.name));
        spec["model"]["s3"] = json!({ "endpoint": s3.endpoint });
        spec["model"]["secretRef"] = json!({ "name": "store" });
        space.apply("model", &spec).await;
        space.until_ready("model").await;
        space.answers("model", 1, [9.0, 22.0, 27.0, 44.0]).await;
    })
    .await;
}

#[tokio::test]
async fn a_model_that_needs_more_memory_than_it_may_have_is_told_so() {
    in_namespace("memory", async |space| {
        let good = space.serve_first("model").await;
        let uri = space.file("second/model.onnx", &hungry(1 << 28)).await;
        space.apply("model", &space.with_uri(&good, &uri)).await;
        space.until_degraded("model", "OutOfMemory", &["384 Mi", "resources.limits.memory"]).await;
        space.serves_on("model", 1, RELU).await;
        // A megabyte is enough now.
        let uri = space.file("third/model.onnx", &hungry(1 << 18)).await;
        space.apply("model", &space.with_uri(&good, &uri)).await;
        space.until_ready("model").await;
        space.answers("model", 3, [-1.0, 2.0, -3.0, 4.0]).await;
    })
    .await;
}
