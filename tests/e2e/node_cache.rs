//! The node's cache, with the tokens that the kubelet gives and the API server knows. What it does with what goes wrong:
//! `tests/loader/cache.rs`.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, LogParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{RELU, Space, in_namespace, relu, wait};

#[tokio::test]
async fn the_next_pod_on_a_node_takes_the_model_from_its_cache_while_its_credentials_hold() {
    in_namespace("node-cache", async |space| {
        let uri = space.file_with("model.onnx", &relu(), &[("X-Token", "the token")]).await;
        let mut spec = space.spec(&uri);
        spec["model"]["secretRef"] = json!({ "name": "store" });
        let secret = json!({ "metadata": { "name": "store" }, "stringData": { "TOKEN": "the token" } });
        space.create::<Secret>(&secret).await;
        space.apply("model", &spec).await;
        space.until_ready("model").await;
        until_log(space, "kept in the node cache").await;

        // The same source, pin and token of the store, in another namespace.
        in_namespace("node-cache-rival", async |rival| {
            rival.create::<Secret>(&secret).await;
            rival.apply("model", &spec).await;
            rival.until_ready("model").await;
            until_log(rival, "\"from_cache\":0").await;
        })
        .await;

        go(space).await;
        space.until_ready("model").await;
        until_log(space, "\"from_cache\":1").await;
        space.answers("model", 1, RELU).await;

        let withdrawn = json!({ "stringData": { "TOKEN": "another" } });
        let secrets = space.api::<Secret>();
        secrets.patch("store", &PatchParams::default(), &Patch::Merge(&withdrawn)).await.expect("a patch");
        go(space).await;
        space.until_degraded("model", "SourceForbidden", &["credentials of model.secretRef"]).await;
    })
    .await;
}

async fn until_log(space: &Space, text: &str) {
    let params = LogParams { container: Some("loader".into()), ..Default::default() };
    wait("such a line of the loader", async || {
        let mut seen = String::new();
        for pod in space.pods("modelwright.dev/role=serve").await {
            let name = pod.metadata.name.expect("a name");
            seen += &space.api::<Pod>().logs(&name, &params).await.map_err(|e| e.to_string())?;
        }
        seen.contains(text).then_some(()).ok_or(seen)
    })
    .await;
}

/// Deletes the pods, and waits until they are gone.
async fn go(space: &Space) {
    let gone = space.pods("modelwright.dev/role=serve").await;
    for pod in &gone {
        let name = pod.metadata.name.as_deref().expect("a name");
        space.api::<Pod>().delete(name, &DeleteParams::default()).await.expect("a deletion");
    }
    wait("end of the pods", async || {
        let left = space.pods("modelwright.dev/role=serve").await;
        let left = left.iter().find(|pod| gone.iter().any(|old| old.metadata.uid == pod.metadata.uid));
        left.map_or(Ok(()), |pod| Err(format!("{:?}", pod.metadata.name)))
    })
    .await;
}
