//! `hf://`, against a server that speaks the hub's API.

use serde_json::json;

use crate::support::{Helper, NEG, RELU, in_namespace, neg, relu, says};

#[tokio::test]
async fn a_model_of_the_hub_is_pinned_to_its_commit() {
    in_namespace("hub", async |space| {
        let repository = format!("hub/{}/tiny", space.name);
        let spec = |path: &str| {
            let mut spec = space.spec(&format!("hf://{}/tiny/{path}", space.name));
            spec["model"]["hf"] = json!({ "endpoint": Helper::hub() });
            spec
        };
        space.apply("model", &spec("onnx/model.onnx")).await;
        let parts =
            ["the hub answers 401: the repository does not exist, or it is private and needs HF_TOKEN"];
        space.until_degraded("model", "SourceForbidden", &parts).await;

        // The model last: whoever asks between the two must not pin the commit before.
        space.helper.put(&format!("{repository}/README.md"), "a model").await;
        space.helper.put(&format!("{repository}/onnx/model.onnx"), relu()).await;
        let ready = space.until_ready("model").await;
        says(&ready, "ModelResolved", "True", "Pinned", &["1 input, 1 output"]).unwrap();
        let source = &ready.status.as_ref().unwrap().revisions[0].source;
        assert_eq!(source.version.as_ref().map(String::len), Some(40), "a commit: {source:?}");
        space.answers("model", 1, RELU).await;

        space.apply("model", &spec("onnx/other.onnx")).await;
        let parts = ["the repository has no such file; check model.uri"];
        space.until_degraded("model", "SourceNotFound", &parts).await;
        space.serves_on("model", 1, RELU).await;
        space.helper.put(&format!("{repository}/onnx/other.onnx"), neg()).await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}
