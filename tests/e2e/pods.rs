//! Pods that can't start, and specs that are refused before there is one.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::support::{GPU, NEG, RELU, in_namespace, neg, wait};

#[tokio::test]
async fn an_image_that_can_not_be_pulled_is_named() {
    in_namespace("image", async |space| {
        let good = space.serve_first("model").await;
        let mut bad = good.clone();
        bad["runtime"] = json!({ "version": "9.9.9" });
        space.apply("model", &bad).await;
        let parts = ["pod model-r2-", "container server", "modelwright-server:9.9.9"];
        space.until_degraded("model", "ImagePullFailed", &parts).await;
        space.serves_on("model", 1, RELU).await;
        space.apply("model", &good).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_ends_again_and_again_shows_its_last_words() {
    in_namespace("crash", async |space| {
        let good = space.serve_first("model").await;
        let mut bad = good.clone();
        // The helper under the server's name: it ends at once.
        bad["runtime"] = json!({ "version": "crash" });
        space.apply("model", &bad).await;
        let parts = ["container server ended with code 1", "the flux capacitor is empty"];
        space.until_degraded("model", "CrashLooping", &parts).await;
        space.serves_on("model", 1, RELU).await;
        space.apply("model", &good).await;
        space.until_ready("model").await;
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_refuses_pods_is_quoted_and_can_be_met() {
    in_namespace("policy", async |space| {
        let good = space.serve_first("model").await;
        let name = format!("{}-team", space.name);
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(space.client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(space.client.clone());
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                }] },
                "validations": [{
                    "expression": "has(object.metadata.labels) && 'team' in object.metadata.labels",
                    "message": "every pod needs a label 'team'",
                }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": name },
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "matchResources": { "namespaceSelector": {
                    "matchLabels": { "kubernetes.io/metadata.name": space.name },
                } },
            },
        });
        let create = PostParams::default();
        policies.create(&create, &serde_json::from_value(policy).unwrap()).await.expect("a policy");
        bindings.create(&create, &serde_json::from_value(binding).unwrap()).await.expect("a binding");
        let probe: Pod = serde_json::from_value(json!({
            "metadata": { "name": "probe" },
            "spec": {
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{ "name": "probe", "image": "none", "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
            },
        }))
        .unwrap();
        let dry = PostParams { dry_run: true, ..Default::default() };
        wait("policy in force", async || match space.api::<Pod>().create(&dry, &probe).await {
            Err(error) if error.to_string().contains("label 'team'") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;

        // Both the pods of a new revision, and the resolver's.
        let mut scaled = good.clone();
        scaled["terminationGracePeriodSeconds"] = json!(30);
        space.apply("model", &scaled).await;
        let parts = ["every pod needs a label 'team'", "denied request"];
        space.until_degraded("model", "PodRejected", &parts).await;
        let uri = space.file("second/model.onnx", &neg()).await;
        let mut second = space.with_uri(&good, &uri);
        space.apply("model", &second).await;
        space.until_degraded("model", "PodRejected", &parts).await;
        space.serves_on("model", 1, RELU).await;
        second["pod"] = json!({ "labels": { "team": "fraud" } });
        space.apply("model", &second).await;
        space.until_ready("model").await;
        space.answers("model", 3, NEG).await;
        bindings.delete(&name, &DeleteParams::default()).await.expect("a delete");
        policies.delete(&name, &DeleteParams::default()).await.expect("a delete");
    })
    .await;
}

#[tokio::test]
async fn cuda_that_does_not_load_is_never_a_silent_cpu() {
    in_namespace("cuda", async |space| {
        let gpu = GPU.lock().await;
        let good = space.serve_first("model").await;
        let mut bad = good.clone();
        bad["runtime"] = json!({ "executionProviders": [{ "name": "CUDA" }] });
        bad["resources"]["limits"]["nvidia.com/gpu"] = json!(1);
        space.apply("model", &bad).await;
        let parts = ["pod model-r2-", "CUDA"];
        space.until_degraded("model", "ExecutionProviderUnavailable", &parts).await;
        let degraded = space.get("model").await;
        assert_eq!(degraded.status.unwrap().device.as_deref(), Some("CPU"));
        space.serves_on("model", 1, RELU).await;
        space.apply("model", &good).await;
        space.until_ready("model").await;
        wait("free GPU", async || {
            let pods = space.pods("modelwright.dev/set=r2").await;
            pods.is_empty().then_some(()).ok_or(format!("{} pods of r2", pods.len()))
        })
        .await;
        drop(gpu);
    })
    .await;
}

#[tokio::test]
async fn what_can_never_work_is_refused_at_once() {
    in_namespace("refused", async |space| {
        let uri = "https://models.example.com/model.onnx";
        let refusal = |error: Result<_, kube::Error>| match error {
            Err(kube::Error::Api(status)) => (status.code, status.message),
            other => panic!("{:?}", other.map(|_: modelwright::api::ModelDeployment| "taken")),
        };
        let long = "a".repeat(41);
        let (code, message) = refusal(space.try_apply(&long, &space.spec(uri)).await);
        assert_eq!(code, 422, "{message}");
        assert!(
            message.contains("metadata.name must be a DNS-1035 label of at most 40 characters"),
            "{message}"
        );

        let mut spec = space.spec(uri);
        spec["runtime"] = json!({ "executionProviders": [{ "name": "CUDA" }] });
        let (code, message) = refusal(space.try_apply("model", &spec).await);
        assert_eq!(code, 422, "{message}");
        assert!(message.contains("a GPU execution provider needs a GPU in resources.limits"), "{message}");
        space.apply(&"a".repeat(40), &space.spec(uri)).await;
    })
    .await;
}
