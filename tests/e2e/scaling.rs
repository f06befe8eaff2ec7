//! Who sets the number of pods without `spec.autoscaling`: a HorizontalPodAutoscaler, or KEDA, which takes it to zero,
//! too.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use modelwright::api::ModelDeployment;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Helper, RELU, Space, in_namespace, question, says, slow, wait};

/// With the example's HorizontalPodAutoscaler, and metrics-server: half a minute up, half a minute down.
#[tokio::test]
async fn a_horizontal_pod_autoscaler_is_obeyed_and_never_fought() {
    in_namespace("hpa", async |space| {
        let mut spec = space.spec(&space.file("first/model.onnx", &crate::support::relu()).await);
        // The load takes several times the target's share of it, and a server without work a fraction.
        spec["resources"]["requests"]["cpu"] = json!("20m");
        space.apply("model", &spec).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
        space.create::<HorizontalPodAutoscaler>(&autoscaler()).await;
        // A number that was never set can't be read, and the status says what to do.
        until_autoscaler_says(space, "AbleToScale", "False", "FailedGetScale").await;
        let remedy = "kubectl scale mdep model --replicas=1";
        space.until("model", |d| says(d, "ScalingActive", "False", "Disabled", &[remedy])).await;
        println!("{}", space.kubectl(&["scale", "mdep/model", "--replicas=1"]));

        space.helper.start_load(&space.name, &space.inference_url("model"), &question()).await;
        // The pod that looks for this source, again and again, is none that the autoscaler should ask about.
        space.apply("model", &space.with_uri(&spec, &Helper::url("nowhere/model.onnx"))).await;
        space.until_degraded("model", "SourceNotFound", &[]).await;
        space.until("model", |d| has(d, 2)).await;
        println!("{}", space.kubectl(&["describe", "hpa", "model"]));
        let by_whom = ["writes spec.replicas through the scale subresource"];
        let scaled =
            space.until("model", |d| says(d, "ScalingActive", "False", "ExternallyScaled", &by_whom)).await;
        until_autoscaler_says(space, "ScalingActive", "True", "ValidMetricFound").await;
        let counted = names(&space.pods(&scaled.status.unwrap().selector.unwrap()).await);
        let all = space.pods("modelwright.dev/deployment=model").await;
        assert_eq!(counted, names(all.iter().filter(|pod| is_of_a_replica_set(pod))));
        assert_eq!((counted.len(), all.len()), (2, 3), "two serve, one resolves: {:?}", names(&all));

        // As GitOps applies again what never named the number.
        space.apply("model", &spec).await;
        let ready = space.until_ready("model").await;
        assert_eq!(ready.spec.replicas, Some(2));
        assert_eq!(writers_of_replicas(&ready), NOBODY);
        let summary = space.helper.stop_load(&space.name).await;
        assert_eq!(summary.failed, 0, "{:#?}", summary.failures);
        space.until("model", |d| has(d, 1)).await;
        assert_eq!(writers_of_replicas(&space.get("model").await), NOBODY);
        space.serves_on("model", 1, RELU).await;
    })
    .await;
}

/// With the example's ScaledObject, which asks the gateways: nobody there, a pod when a request waits, another when there
/// are two at a time, and nobody again.
#[tokio::test]
async fn keda_scales_by_the_gateways_metric_to_zero_and_back() {
    in_namespace("keda", async |space| {
        let mut spec = space.spec(&space.file("slow/model.onnx", &slow()).await);
        // So that two who ask all the time are nearly always there, and leave the machine to other tests.
        spec["resources"]["limits"]["cpu"] = json!("200m");
        space.apply("model", &spec).await;
        space.until_ready("model").await;
        space.answers("model", 1, RELU).await;
        println!("{}", space.kubectl(&["scale", "mdep/model", "--replicas=1"]));
        for object in scaled_object(&space.name) {
            space.apply_object(&object).await;
        }
        space.until("model", |d| has(d, 0)).await;
        let by_whom = ["writes spec.replicas through the scale subresource"];
        space.until("model", |d| says(d, "ScalingActive", "False", "ExternallyScaled", &by_whom)).await;
        space.until("model", |d| says(d, "Ready", "False", "NoReplicas", &[])).await;

        space.helper.start_load(&space.name, &space.inference_url("model"), &question()).await;
        space.until("model", |d| has(d, 2)).await;
        println!("{}", space.kubectl(&["describe", "scaledobjects,hpa"]));
        // As GitOps applies again what never named the number.
        space.apply("model", &spec).await;
        let ready = space.until_ready("model").await;
        assert_eq!(ready.spec.replicas, Some(2));
        assert_eq!(writers_of_replicas(&ready), NOBODY);
        let summary = space.helper.stop_load(&space.name).await;
        println!("{} requests", summary.sent);
        assert_eq!(summary.failed, 0, "{:#?}", summary.failures);

        space.until("model", |d| has(d, 0)).await;
        assert_eq!(writers_of_replicas(&space.get("model").await), NOBODY);
        // A single request is enough.
        space.serves_on("model", 1, RELU).await;
    })
    .await;
}

fn objects(yaml: &str) -> impl Iterator<Item = Value> {
    let documents = serde_yaml::Deserializer::from_str(yaml);
    documents.map(|document| Value::deserialize(document).expect("YAML"))
}

/// What the example has beside the model, for this one: a pod for each request, and none after five seconds.
fn scaled_object(namespace: &str) -> Vec<Value> {
    let text = include_str!("../../examples/keda.yaml").replace("tagger", "model");
    let text = text.replace(".default.", &format!(".{namespace}."));
    let mut objects: Vec<_> = objects(&text).filter(|object| object["kind"] != "ModelDeployment").collect();
    let found = objects.iter_mut().find(|object| object["kind"] == "ScaledObject").expect("the example's");
    found["spec"]["maxReplicaCount"] = json!(2);
    found["spec"]["cooldownPeriod"] = json!(5);
    found["spec"]["triggers"][0]["metadata"]["targetValue"] = json!("1");
    objects
}

/// The example's, of this model and with two pods at most. It goes by the last measurement alone.
fn autoscaler() -> Value {
    let mut objects = objects(include_str!("../../examples/hpa.yaml"));
    let found = objects.find(|object| object["kind"] == "HorizontalPodAutoscaler");
    let mut found = found.expect("the example's");
    found["metadata"]["name"] = json!("model");
    found["spec"]["scaleTargetRef"]["name"] = json!("model");
    found["spec"]["maxReplicas"] = json!(2);
    found["spec"]["behavior"] = json!({ "scaleDown": { "stabilizationWindowSeconds": 0 } });
    found
}

async fn until_autoscaler_says(space: &Space, kind: &str, status: &str, reason: &str) {
    let api: Api<HorizontalPodAutoscaler> = space.api();
    wait("such condition of the HorizontalPodAutoscaler", async || {
        let seen = api.get("model").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        let mut conditions = seen.conditions.iter().flatten();
        let fits = conditions.any(|c| {
            (c.type_.as_str(), c.status.as_str(), c.reason.as_deref()) == (kind, status, Some(reason))
        });
        fits.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await;
}

/// So many are wanted, run and answer.
fn has(deployment: &ModelDeployment, replicas: i32) -> Result<(), String> {
    let status = deployment.status.clone().unwrap_or_default();
    let seen =
        (deployment.spec.replicas, status.desired_replicas, status.replicas, status.available_replicas);
    let fits = seen == (Some(replicas), replicas, replicas, replicas);
    fits.then_some(()).ok_or_else(|| format!("spec.replicas, desired, live, available: {seen:?}"))
}

fn names<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Vec<String> {
    pods.into_iter().filter_map(|pod| pod.metadata.name.clone()).collect()
}

fn is_of_a_replica_set(pod: &Pod) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "ReplicaSet")
}

/// The API server takes the field from whoever had it when `scale` is written, and gives it to no other.
const NOBODY: [&str; 0] = [];

/// Whose word `spec.replicas` is.
fn writers_of_replicas(deployment: &ModelDeployment) -> Vec<&str> {
    let entries = deployment.metadata.managed_fields.iter().flatten();
    let writes = entries.filter(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    });
    writes.filter_map(|entry| entry.manager.as_deref()).collect()
}
