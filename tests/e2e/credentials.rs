//! What a source refers to and is not there (yet), and secrets that stay secret.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Event, Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{Credentials, NEG, RELU, in_namespace, neg, relu};

#[tokio::test]
async fn a_secret_or_key_that_is_missing_is_named_and_found_when_it_comes() {
    in_namespace("no-secret", async |space| {
        let good = space.serve_first("model").await;
        let s3 = space.s3().await;
        s3.create_bucket(&space.name).await;
        s3.put(&space.name, "second.onnx", &neg()).await;
        let mut spec = space.with_uri(&good, &format!("s3://{}/second.onnx", space.name));
        spec["model"]["s3"] = json!({ "endpoint": s3.endpoint });
        spec["model"]["secretRef"] = json!({ "name": "store" });
        space.apply("model", &spec).await;
        let parts = ["Secret store (model.secretRef) does not exist in this namespace"];
        space.until_degraded("model", "SecretNotFound", &parts).await;
        space.serves_on("model", 1, RELU).await;

        let half = json!({
            "metadata": { "name": "store" }, "stringData": { "AWS_ACCESS_KEY_ID": s3.credentials.id },
        });
        space.create::<Secret>(&half).await;
        let parts = ["Secret store (model.secretRef) has no key AWS_SECRET_ACCESS_KEY: add it"];
        space.until_degraded("model", "SecretNotFound", &parts).await;

        let whole = json!({ "stringData": { "AWS_SECRET_ACCESS_KEY": s3.credentials.secret } });
        let secrets = space.api::<Secret>();
        secrets.patch("store", &PatchParams::default(), &Patch::Merge(&whole)).await.expect("a patch");
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}

#[tokio::test]
async fn a_service_account_that_is_missing_is_named_and_found_when_it_comes() {
    in_namespace("no-account", async |space| {
        let good = space.serve_first("model").await;
        let uri = space.file("second/model.onnx", &neg()).await;
        let mut spec = space.with_uri(&good, &uri);
        spec["serviceAccountName"] = json!("model-reader");
        space.apply("model", &spec).await;
        let parts = ["serviceaccount \"model-reader\" not found"];
        space.until_degraded("model", "ServiceAccountNotFound", &parts).await;
        space.serves_on("model", 1, RELU).await;
        space.create::<ServiceAccount>(&json!({ "metadata": { "name": "model-reader" } })).await;
        space.until_ready("model").await;
        space.answers("model", 2, NEG).await;
    })
    .await;
}

/// Not of the store's own: what a log may show is not what a person gave us.
const CANARY: &str = "canary7f3a9c51e2";

#[tokio::test]
async fn a_secret_is_in_no_log_event_status_or_object() {
    in_namespace("canary", async |space| {
        let token =
            json!({ "metadata": { "name": "token" }, "stringData": { "TOKEN": format!("t-{CANARY}") } });
        space.create::<Secret>(&token).await;
        let s3 = space.s3().await;
        s3.create_bucket(&space.name).await;
        s3.put(&space.name, "model.onnx", &relu()).await;
        let canary = Credentials { id: s3.credentials.id.clone(), secret: format!("secret-{CANARY}") };
        space.create::<Secret>(&canary.secret("store")).await;
        let mut refused = space.spec(&format!("s3://{}/model.onnx", space.name));
        refused["model"]["s3"] = json!({ "endpoint": s3.endpoint });
        refused["model"]["secretRef"] = json!({ "name": "store" });
        space.apply("refused", &refused).await;
        let token = format!("t-{CANARY}");
        let uri = space.file_with("model.onnx", &relu(), &[("X-Token", &token)]).await;
        let mut served = space.spec(&uri);
        served["model"]["secretRef"] = json!({ "name": "token" });
        space.apply("served", &served).await;
        space.until_degraded("refused", "SourceForbidden", &["403"]).await;
        space.until_ready("served").await;
        space.answers("served", 1, RELU).await;

        let mut texts = Vec::new();
        for name in ["refused", "served"] {
            texts.push((format!("ModelDeployment {name}"), json!(space.get(name).await).to_string()));
        }
        let all = ListParams::default();
        for revision in space.api::<ControllerRevision>().list(&all).await.expect("a list") {
            texts.push(("ControllerRevision".into(), json!(revision).to_string()));
        }
        for event in space.api::<Event>().list(&all).await.expect("a list") {
            texts.push(("Event".into(), json!(event).to_string()));
        }
        let operator: Api<Pod> = Api::namespaced(space.client.clone(), "modelwright-system");
        for pods in [space.api::<Pod>(), operator] {
            for pod in pods.list(&all).await.expect("a list") {
                texts.push(("Pod".into(), json!(pod).to_string()));
                let name = pod.metadata.name.unwrap_or_default();
                for container in pod.spec.into_iter().flat_map(|s| s.containers) {
                    let params = LogParams { container: Some(container.name.clone()), ..Default::default() };
                    let log = pods.logs(&name, &params).await.unwrap_or_default();
                    texts.push((format!("log of {name}, {}", container.name), log));
                }
            }
        }
        assert!(texts.iter().any(|(what, text)| what.starts_with("log of served-r1") && !text.is_empty()));
        for (what, text) in texts {
            assert!(!text.contains(CANARY), "{what} shows the secret:\n{text}");
        }
    })
    .await;
}
