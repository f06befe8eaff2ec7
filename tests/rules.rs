//! The custom resource as a real API server sees it: every bound and rule of its schema refuses the bad object with a
//! message that names the field, and good ones pass.

mod common;

use std::collections::BTreeSet;

use axum::http;
use common::Cluster;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams, Request};
use kube::discovery::ApiResource;
use kube::{Api, Resource};
use modelwright::api::ModelDeployment;
use serde_json::{Value, json};

const NAMESPACE: &str = "rules";

/// Where in the spec, what is put there, and what the API server says of it. `what` is the bound that is tested, after
/// the rest of its place where that is not `path`, `^` for the parent: the last test proves that none is missing.
struct Bad {
    path: &'static str,
    value: Value,
    what: &'static str,
    message: &'static str,
}

impl Bad {
    fn bound(&self) -> (String, String) {
        let (rest, bound) = self.what.split_once(' ').unwrap_or(("", self.what));
        let parent = self.path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let place = if rest == "^" { parent.into() } else { format!("{}{rest}", self.path) };
        (place, bound.into())
    }
}

fn bad(path: &'static str, value: Value, what: &'static str, message: &'static str) -> Bad {
    Bad { path, value, what, message }
}

fn text(length: usize) -> Value {
    json!("a".repeat(length))
}

fn map(entries: usize, value: &str) -> Value {
    let entry = |i| (format!("key-{i}"), json!(value));
    Value::Object((0..entries).map(entry).collect())
}

fn axes(entries: usize, axis: i32) -> Value {
    Value::Object((0..entries).map(|i| (format!("tensor-{i}"), json!(axis))).collect())
}

fn scale_down(window: i32) -> Value {
    json!({ "maxReplicas": 2, "behavior": { "scaleDown": { "stabilizationWindowSeconds": window } } })
}

fn cuda() -> Value {
    json!({ "executionProviders": [{ "name": "CUDA" }] })
}

fn shadow(percent: i64, seconds: i64) -> Value {
    json!([{ "shadow": { "percent": percent, "durationSeconds": seconds } }])
}

fn outputs(outputs: Value) -> Value {
    json!([{ "name": "scores", "type": "OutputDifference", "outputs": outputs }])
}

fn budget(field: &str, value: &str) -> Value {
    outputs(json!([{ "name": "y", field: value }]))
}

fn errors(max: &str) -> Value {
    json!({ "name": "errors", "type": "ErrorRate", "max": max })
}

fn analysed(metrics: Value) -> Value {
    json!({ "steps": [{ "setWeight": 5 }], "analysis": { "metrics": metrics } })
}

fn query(address: &str, query: &str) -> Value {
    json!([{ "name": "q", "type": "Prometheus", "max": "1", "prometheus": { "address": address, "query": query } }])
}

const URI: &str = "model.uri must be s3://, https://, http://, pvc:// or hf://, without user information, query or fragment";
const GPU: &str = "a GPU execution provider needs a GPU in resources.limits";
const FALLBACK: &str = "runtime.cpuFallback says what a GPU's model may leave to the CPU: it needs CUDA or TensorRT in runtime.executionProviders";
const GPU_MEMORY: &str =
    "runtime.gpuMemoryLimit bounds CUDA's memory: it needs CUDA in runtime.executionProviders";
const PREFIX: &str = "pod.labels and pod.annotations must not use the prefix modelwright.dev/";
const RECREATE: &str = "with replacement: Recreate the revisions never run together: strategy.canary can't share the traffic between them, nor mirror it";
const ENDPOINT: &str = "should match '^https?://";

#[rustfmt::skip]
fn bads() -> Vec<Bad> {
    let provider = json!({ "name": "CPU" });
    let toleration = json!({ "operator": "Exists" });
    vec![
        bad("", Value::Null, "top", "spec: Required value"),
        bad("model", Value::Null, "^ required", "spec.model: Required value"),
        bad("model.uri", Value::Null, "^ required", "spec.model.uri: Required value"),
        bad("model.uri", json!("s3://"), "minLength", "spec.model.uri in body should be at least 6 chars long"),
        bad("model.uri", json!(format!("s3://b/{}", "a".repeat(2048))), "maxLength", "spec.model.uri: Too long"),
        bad("model.uri", json!("ftp://host/model.onnx"), "rule", URI),
        bad("model.uri", json!("/models/model.onnx"), "rule", URI),
        bad("model.uri", json!("https://user:secret@host/model.onnx"), "rule", URI),
        bad("model.uri", json!("https://host/model.onnx?signature=abc"), "rule", URI),
        bad("model.uri", json!("s3://bucket/model.onnx#part"), "rule", URI),
        bad("model.uri", json!("s3://bucket/a model.onnx"), "rule", URI),
        bad("model.uri", json!("hf://owner/name@main@dev/model.onnx"), "rule", URI),
        bad("model.uri", json!("s3://bucket/../other/model.onnx"), "rule", "model.uri must not contain '..'"),
        bad("model.uri", json!("pvc://claim/models/.."), "rule", "model.uri must not contain '..'"),
        bad("model.uri", json!("http://host/model.onnx"), "rule", "a plain http:// source needs model.insecureHTTP: true"),
        bad("model", json!({ "uri": "http://host/m.onnx", "insecureHTTP": false }), "rule", "a plain http:// source needs model.insecureHTTP: true"),
        bad("model.compatibility", json!("Any"), "enum", "supported values: \"AllowBreaking\", \"RequireCompatible\""),
        bad("model.digest", json!("sha256:abc"), "pattern", "spec.model.digest in body should match '^sha256:[a-f0-9]{64}$'"),
        bad("model.digest", json!(format!("sha256:{}", "A".repeat(64))), "pattern", "spec.model.digest in body should match"),
        bad("model.secretRef", json!({}), "required", "spec.model.secretRef.name: Required value"),
        bad("model.secretRef.name", json!(""), "minLength", "spec.model.secretRef.name in body should be at least 1 chars long"),
        bad("model.secretRef.name", text(254), "maxLength", "spec.model.secretRef.name: Too long"),
        bad("model.caBundleRef", json!({}), "required", "spec.model.caBundleRef.name: Required value"),
        bad("model.caBundleRef.name", json!(""), "minLength", "spec.model.caBundleRef.name in body should be at least 1 chars long"),
        bad("model.caBundleRef.name", text(254), "maxLength", "spec.model.caBundleRef.name: Too long"),
        bad("model.s3.endpoint", json!("minio:9000"), "pattern", ENDPOINT),
        bad("model.s3.endpoint", json!("https://user@minio"), "pattern", ENDPOINT),
        bad("model.s3.endpoint", json!(format!("https://{}", "a".repeat(2048))), "maxLength", "spec.model.s3.endpoint: Too long"),
        bad("model.s3.region", text(65), "maxLength", "spec.model.s3.region: Too long"),
        bad("model.hf.endpoint", json!("mirror"), "pattern", ENDPOINT),
        bad("model.hf.endpoint", json!(format!("https://{}", "a".repeat(2048))), "maxLength", "spec.model.hf.endpoint: Too long"),
        bad("replicas", json!(-1), "minimum", "spec.replicas in body should be greater than or equal to 0"),
        bad("replicas", json!(1001), "maximum", "spec.replicas in body should be less than or equal to 1000"),
        bad("serviceAccountName", json!(""), "minLength", "spec.serviceAccountName in body should be at least 1 chars long"),
        bad("serviceAccountName", text(254), "maxLength", "spec.serviceAccountName: Too long"),
        bad("runtime", cuda(), "^ rule", GPU),
        bad("runtime", json!({ "executionProviders": [{ "name": "CPU" }, { "name": "TensorRT" }] }), "^ rule", GPU),
        bad("runtime.version", json!("-1"), "pattern", "spec.runtime.version in body should match"),
        bad("runtime.version", text(65), "maxLength", "spec.runtime.version: Too long"),
        bad("runtime.executionProviders", json!(vec![provider; 5]), "maxItems", "spec.runtime.executionProviders: Too many"),
        bad("runtime.executionProviders", json!([{}]), "[] required", "spec.runtime.executionProviders[0].name: Required value"),
        bad("runtime.executionProviders", json!([{ "name": "OpenVINO" }]), "[].name enum", "supported values: \"CPU\", \"CUDA\", \"TensorRT\""),
        bad("runtime.executionProviders", json!([{ "name": "CPU", "options": map(33, "1") }]), "[].options maxProperties", "spec.runtime.executionProviders[0].options: Too many"),
        bad("runtime.executionProviders", json!([{ "name": "CPU", "options": map(1, &"a".repeat(257)) }]), "[].options.* maxLength", "spec.runtime.executionProviders[0].options.key-0: Too long"),
        bad("runtime.sessionOptions", map(33, "1"), "maxProperties", "spec.runtime.sessionOptions: Too many"),
        bad("runtime.sessionOptions", map(1, &"a".repeat(257)), ".* maxLength", "spec.runtime.sessionOptions.key-0: Too long"),
        bad("runtime.cpuFallback", json!("Sometimes"), "enum", "supported values: \"Forbid\", \"ShapeOpsOnly\", \"Allow\""),
        bad("runtime.cpuFallback", json!("Allow"), "^ rule", FALLBACK),
        bad("runtime", json!({ "executionProviders": [{ "name": "CPU" }], "cpuFallback": "Forbid" }), "rule", FALLBACK),
        bad("runtime.gpuMemoryLimit", json!("8Gi"), "^ rule", GPU_MEMORY),
        bad("runtime", json!({ "executionProviders": [{ "name": "TensorRT" }], "gpuMemoryLimit": "8Gi" }), "rule", GPU_MEMORY),
        bad("runtime.gpuMemoryLimit", json!("most"), "pattern", "spec.runtime.gpuMemoryLimit in body should match"),
        bad("runtime.gpuMemoryLimit", json!("0Gi"), "pattern", "spec.runtime.gpuMemoryLimit in body should match"),
        bad("runtime.gpuMemoryLimit", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("runtime.gpuMemoryLimit", json!("1".repeat(33)), "maxLength", "spec.runtime.gpuMemoryLimit: Too long"),
        bad("runtime.startupTimeoutSeconds", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("runtime.startupTimeoutSeconds", json!(86401), "maximum", "should be less than or equal to 86400"),
        bad("batching.maxBatchSize", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("batching.maxBatchSize", json!(4097), "maximum", "should be less than or equal to 4096"),
        bad("batching.maxQueueDelayMicroseconds", json!(-1), "minimum", "should be greater than or equal to 0"),
        bad("batching.maxQueueDelayMicroseconds", json!(1_000_001), "maximum", "should be less than or equal to 1000000"),
        bad("batching.axes", axes(65, 0), "maxProperties", "spec.batching.axes: Too many"),
        bad("batching.axes", axes(1, -1), ".* minimum", "should be greater than or equal to 0"),
        bad("batching.axes", axes(1, 32), ".* maximum", "should be less than or equal to 31"),
        bad("resources.limits", map(17, "1"), "maxProperties", "spec.resources.limits: Too many"),
        bad("resources.requests", map(17, "1"), "maxProperties", "spec.resources.requests: Too many"),
        bad("resources.limits", json!({ "memory": "a lot" }), ".* pattern", "spec.resources.limits.memory"),
        bad("resources.requests", json!({ "cpu": "two" }), ".* pattern", "spec.resources.requests.cpu"),
        bad("resources.limits", json!({ "nvidia.com/gpu": -1 }), ".* minimum", "should be greater than or equal to 0"),
        bad("resources.requests", json!({ "cpu": -1 }), ".* minimum", "should be greater than or equal to 0"),
        bad("pod.labels", json!({ "modelwright.dev/set": "r9" }), "^ rule", PREFIX),
        bad("pod.annotations", json!({ "modelwright.dev/assignment": "{}" }), "^ rule", PREFIX),
        bad("pod.labels", map(33, "1"), "maxProperties", "spec.pod.labels: Too many"),
        bad("pod.labels", map(1, &"a".repeat(64)), ".* maxLength", "spec.pod.labels.key-0: Too long"),
        bad("pod.annotations", map(33, "1"), "maxProperties", "spec.pod.annotations: Too many"),
        bad("pod.annotations", map(1, &"a".repeat(4097)), ".* maxLength", "spec.pod.annotations.key-0: Too long"),
        bad("pod.nodeSelector", map(33, "1"), "maxProperties", "spec.pod.nodeSelector: Too many"),
        bad("pod.nodeSelector", map(1, &"a".repeat(64)), ".* maxLength", "spec.pod.nodeSelector.key-0: Too long"),
        bad("pod.runtimeClassName", text(254), "maxLength", "spec.pod.runtimeClassName: Too long"),
        bad("pod.priorityClassName", text(254), "maxLength", "spec.pod.priorityClassName: Too long"),
        bad("pod.tolerations", json!(vec![toleration; 33]), "maxItems", "spec.pod.tolerations: Too many"),
        bad("pod.imagePullSecrets", json!(vec![json!({ "name": "s" }); 17]), "maxItems", "spec.pod.imagePullSecrets: Too many"),
        bad("pod.imagePullSecrets", json!([{}]), "[] required", "spec.pod.imagePullSecrets[0].name: Required value"),
        bad("terminationGracePeriodSeconds", json!(9), "minimum", "should be greater than or equal to 10"),
        bad("terminationGracePeriodSeconds", json!(86401), "maximum", "should be less than or equal to 86400"),
        bad("revisionHistoryLimit", json!(-1), "minimum", "should be greater than or equal to 0"),
        bad("revisionHistoryLimit", json!(101), "maximum", "should be less than or equal to 100"),
        bad("progressDeadlineSeconds", json!(9), "minimum", "should be greater than or equal to 10"),
        bad("progressDeadlineSeconds", json!(86401), "maximum", "should be less than or equal to 86400"),
        bad("strategy.replacement", json!("Later"), "enum", "supported values: \"Auto\", \"Surge\", \"InPlace\", \"Recreate\""),
        bad("strategy", json!({ "replacement": "Recreate", "canary": { "steps": [{ "setWeight": 10 }] } }), "rule", RECREATE),
        bad("strategy.surgeTimeoutSeconds", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("strategy.surgeTimeoutSeconds", json!(86401), "maximum", "should be less than or equal to 86400"),
        bad("strategy.maxSurge", json!(-1), "minimum", "should be greater than or equal to 0"),
        bad("strategy.maxSurge", json!(1001), "maximum", "should be less than or equal to 1000"),
        bad("strategy.maxSurge", json!("half"), "pattern", "spec.strategy.maxSurge in body should match"),
        bad("strategy.maxSurge", json!("1".repeat(9)), "maxLength", "spec.strategy.maxSurge: Too long"),
        bad("strategy.maxUnavailable", json!(-1), "minimum", "should be greater than or equal to 0"),
        bad("strategy.maxUnavailable", json!(1001), "maximum", "should be less than or equal to 1000"),
        bad("strategy.maxUnavailable", json!("half"), "pattern", "spec.strategy.maxUnavailable in body should match"),
        bad("strategy.maxUnavailable", json!("1".repeat(9)), "maxLength", "spec.strategy.maxUnavailable: Too long"),
        bad("strategy.canary", json!({}), "required", "spec.strategy.canary.steps: Required value"),
        bad("strategy.canary.analysis", json!({}), "required", "spec.strategy.canary.analysis.metrics: Required value"),
        bad("strategy.canary", analysed(json!([errors("0.1"), errors("0.2")])), ".analysis rule", "two metrics of an analysis have the same name"),
        bad("strategy.canary.analysis.minRequests", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("strategy.canary.analysis.minRequests", json!(1_000_001), "maximum", "should be less than or equal to 1000000"),
        bad("strategy.canary.analysis.intervalSeconds", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("strategy.canary.analysis.intervalSeconds", json!(3601), "maximum", "should be less than or equal to 3600"),
        bad("strategy.canary.analysis.failureLimit", json!(-1), "minimum", "should be greater than or equal to 0"),
        bad("strategy.canary.analysis.failureLimit", json!(101), "maximum", "should be less than or equal to 100"),
        bad("strategy.canary.analysis.metrics", json!([]), "minItems", "should have at least 1 items"),
        bad("strategy.canary.analysis.metrics", json!(vec![errors("0.1"); 9]), "maxItems", "spec.strategy.canary.analysis.metrics: Too many"),
        bad("strategy.canary.analysis.metrics", json!([{ "name": "m", "max": "1" }]), "[] required", "spec.strategy.canary.analysis.metrics[0].type: Required value"),
        bad("strategy.canary", analysed(json!([{ "name": "m", "type": "Prometheus", "max": "1" }])), ".analysis.metrics[] rule", "a metric of type Prometheus has prometheus, and no other has"),
        bad("strategy.canary", analysed(json!([errors("1.01")])), ".analysis.metrics[] rule", "max of an ErrorRate is a share: at most 1"),
        bad("strategy.canary", analysed(json!([{ "name": "m", "type": "LatencyP99Ratio", "max": "0.0" }])), ".analysis.metrics[] rule", "max of a LatencyP99Ratio is a multiple of the stable revision's p99: above 0"),
        bad("strategy.canary.analysis.metrics", json!([{ "name": "", "type": "ErrorRate", "max": "1" }]), "[].name minLength", "should be at least 1 chars long"),
        bad("strategy.canary.analysis.metrics", json!([{ "name": "a".repeat(64), "type": "ErrorRate", "max": "1" }]), "[].name maxLength", "metrics[0].name: Too long"),
        bad("strategy.canary.analysis.metrics", json!([{ "name": "m", "type": "Cost", "max": "1" }]), "[].type enum", "supported values: \"ErrorRate\", \"LatencyP99Ratio\", \"Prometheus\", \"OutputDifference\""),
        bad("strategy.canary.analysis.metrics", json!([errors("1%")]), "[].max pattern", "metrics[0].max in body should match"),
        bad("strategy.canary.analysis.metrics", json!([errors(&format!("0.{}", "0".repeat(15)))]), "[].max maxLength", "metrics[0].max: Too long"),
        bad("strategy.canary.analysis.metrics", json!([{ "name": "m", "type": "Prometheus", "max": "1", "prometheus": {} }]), "[].prometheus required", "metrics[0].prometheus.address: Required value"),
        bad("strategy.canary.analysis.metrics", query("https://prometheus", "up"), "[].prometheus.address pattern", "metrics[0].prometheus.address in body should match"),
        bad("strategy.canary.analysis.metrics", query(&format!("http://{}", "a".repeat(250)), "up"), "[].prometheus.address maxLength", "metrics[0].prometheus.address: Too long"),
        bad("strategy.canary.analysis.metrics", query("http://prometheus", ""), "[].prometheus.query minLength", "should be at least 1 chars long"),
        bad("strategy.canary.analysis.metrics", query("http://prometheus", &"a".repeat(2049)), "[].prometheus.query maxLength", "metrics[0].prometheus.query: Too long"),
        bad("strategy.canary.steps", json!([]), "minItems", "should have at least 1 items"),
        bad("strategy.canary.steps", json!(vec![json!({ "setWeight": 1 }); 33]), "maxItems", "spec.strategy.canary.steps: Too many"),
        bad("strategy.canary.steps", json!([{ "setWeight": 5, "pause": {} }]), "[] rule", "a step is one of setWeight, setCanaryScale, pause and shadow"),
        bad("strategy.canary.steps", json!([{ "setWeight": -1 }]), "[].setWeight minimum", "should be greater than or equal to 0"),
        bad("strategy.canary.steps", json!([{ "setWeight": 101 }]), "[].setWeight maximum", "should be less than or equal to 100"),
        bad("strategy.canary.steps", json!([{ "setCanaryScale": {} }]), "[].setCanaryScale rule", "setCanaryScale is replicas or percent"),
        bad("strategy.canary.steps", json!([{ "setCanaryScale": { "replicas": 0 } }]), "[].setCanaryScale.replicas minimum", "should be greater than or equal to 1"),
        bad("strategy.canary.steps", json!([{ "setCanaryScale": { "replicas": 1001 } }]), "[].setCanaryScale.replicas maximum", "should be less than or equal to 1000"),
        bad("strategy.canary.steps", json!([{ "setCanaryScale": { "percent": 0 } }]), "[].setCanaryScale.percent minimum", "should be greater than or equal to 1"),
        bad("strategy.canary.steps", json!([{ "setCanaryScale": { "percent": 101 } }]), "[].setCanaryScale.percent maximum", "should be less than or equal to 100"),
        bad("strategy.canary.steps", json!([{ "pause": { "durationSeconds": 0 } }]), "[].pause.durationSeconds minimum", "should be greater than or equal to 1"),
        bad("strategy.canary.steps", json!([{ "pause": { "durationSeconds": 31_536_001 } }]), "[].pause.durationSeconds maximum", "should be less than or equal to 31536000"),
        bad("autoscaling", json!({}), "required", "spec.autoscaling.maxReplicas: Required value"),
        bad("autoscaling", json!({ "minReplicas": -1, "maxReplicas": 2 }), ".minReplicas minimum", "should be greater than or equal to 0"),
        bad("autoscaling", json!({ "minReplicas": 1001, "maxReplicas": 2 }), ".minReplicas maximum", "should be less than or equal to 1000"),
        bad("autoscaling.maxReplicas", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("autoscaling.maxReplicas", json!(1001), "maximum", "should be less than or equal to 1000"),
        bad("autoscaling", json!({ "minReplicas": 3, "maxReplicas": 2 }), "rule", "autoscaling.minReplicas must not be above maxReplicas"),
        bad("autoscaling", json!({ "maxReplicas": 2, "metric": "CPU" }), ".metric enum", "supported values: \"RequestsPerSecond\", \"Concurrency\""),
        bad("autoscaling", json!({ "maxReplicas": 2, "target": 5 }), "rule", "autoscaling.target needs metric: what it counts"),
        bad("autoscaling", json!({ "maxReplicas": 2, "metric": "Concurrency", "target": 0 }), ".target minimum", "should be greater than or equal to 1"),
        bad("autoscaling", json!({ "maxReplicas": 2, "metric": "Concurrency", "target": 1_000_001 }), ".target maximum", "should be less than or equal to 1000000"),
        bad("autoscaling", json!({ "maxReplicas": 2, "scaleToZeroAfterSeconds": 60 }), "rule", "autoscaling.scaleToZeroAfterSeconds needs minReplicas: 0"),
        bad("autoscaling", json!({ "minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 0 }), ".scaleToZeroAfterSeconds minimum", "should be greater than or equal to 1"),
        bad("autoscaling", json!({ "minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 86401 }), ".scaleToZeroAfterSeconds maximum", "should be less than or equal to 86400"),
        bad("autoscaling", scale_down(-1), ".behavior.scaleDown.stabilizationWindowSeconds minimum", "should be greater than or equal to 0"),
        bad("autoscaling", scale_down(3601), ".behavior.scaleDown.stabilizationWindowSeconds maximum", "should be less than or equal to 3600"),
        bad("strategy.canary.steps", json!([{ "shadow": { "percent": 5 } }]), "[].shadow required", "shadow.durationSeconds: Required value"),
        bad("strategy.canary.steps", shadow(0, 60), "[].shadow.percent minimum", "should be greater than or equal to 1"),
        bad("strategy.canary.steps", shadow(101, 60), "[].shadow.percent maximum", "should be less than or equal to 100"),
        bad("strategy.canary.steps", shadow(5, 0), "[].shadow.durationSeconds minimum", "should be greater than or equal to 1"),
        bad("strategy.canary.steps", shadow(5, 31_536_001), "[].shadow.durationSeconds maximum", "should be less than or equal to 31536000"),
        bad("strategy", json!({ "replacement": "Recreate", "canary": { "steps": shadow(5, 60) } }), "rule", RECREATE),
        bad("strategy.canary", json!({ "steps": [{ "setWeight": 5 }], "analysis": { "metrics": outputs(json!([{ "name": "y", "maxAbsolute": "1" }])) } }), "rule", "a metric of type OutputDifference compares what a shadow step mirrors"),
        bad("strategy.canary", json!({ "steps": shadow(5, 60), "analysis": { "metrics": [{ "name": "y", "type": "OutputDifference" }] } }), ".analysis.metrics[] rule", "a metric of type OutputDifference has outputs, and no other has"),
        bad("strategy.canary", json!({ "steps": shadow(5, 60), "analysis": { "metrics": [{ "name": "y", "type": "ErrorRate" }] } }), ".analysis.metrics[] rule", "max is what a metric may reach at most"),
        bad("strategy.canary", json!({ "steps": shadow(5, 60), "analysis": { "metrics": outputs(json!([{ "name": "y" }])) } }), ".analysis.metrics[].outputs[] rule", "an output needs at least one of maxAbsolute"),
        bad("strategy.canary.analysis.metrics", outputs(json!([])), "[].outputs minItems", "should have at least 1 items"),
        bad("strategy.canary.analysis.metrics", outputs((0..65).map(|i| json!({ "name": format!("y{i}"), "maxNaN": 0 })).collect()), "[].outputs maxItems", "metrics[0].outputs: Too many"),
        bad("strategy.canary.analysis.metrics", outputs(json!([{ "maxNaN": 0 }])), "[].outputs[] required", "outputs[0].name: Required value"),
        bad("strategy.canary.analysis.metrics", outputs(json!([{ "name": "y", "maxNaN": 0 }, { "name": "y", "maxNaN": 0 }])), "[].outputs[] twice", "Duplicate value"),
        bad("strategy.canary.analysis.metrics", outputs(json!([{ "name": "", "maxNaN": 0 }])), "[].outputs[].name minLength", "should be at least 1 chars long"),
        bad("strategy.canary.analysis.metrics", outputs(json!([{ "name": text(257), "maxNaN": 0 }])), "[].outputs[].name maxLength", "outputs[0].name: Too long"),
        bad("strategy.canary.analysis.metrics", budget("maxAbsolute", "-1"), "[].outputs[].maxAbsolute pattern", "maxAbsolute in body should match"),
        bad("strategy.canary.analysis.metrics", budget("maxAbsolute", "0.0000000000000001"), "[].outputs[].maxAbsolute maxLength", "maxAbsolute: Too long"),
        bad("strategy.canary.analysis.metrics", budget("maxRelative", "2"), "[].outputs[].maxRelative pattern", "maxRelative in body should match"),
        bad("strategy.canary.analysis.metrics", budget("maxRelative", "0.0000000000000001"), "[].outputs[].maxRelative maxLength", "maxRelative: Too long"),
        bad("strategy.canary.analysis.metrics", budget("minCosine", "1.5"), "[].outputs[].minCosine pattern", "minCosine in body should match"),
        bad("strategy.canary.analysis.metrics", budget("minCosine", "0.0000000000000001"), "[].outputs[].minCosine maxLength", "minCosine: Too long"),
        bad("strategy.canary.analysis.metrics", budget("minTop1Agreement", "1.5"), "[].outputs[].minTop1Agreement pattern", "minTop1Agreement in body should match"),
        bad("strategy.canary.analysis.metrics", budget("minTop1Agreement", "0.0000000000000001"), "[].outputs[].minTop1Agreement maxLength", "minTop1Agreement: Too long"),
        bad("strategy.canary.analysis.metrics", outputs(json!([{ "name": "y", "maxNaN": -1 }])), "[].outputs[].maxNaN minimum", "should be greater than or equal to 0"),
        bad("strategy.canary.analysis.metrics", outputs(json!([{ "name": "y", "maxNaN": 1_000_000_001 }])), "[].outputs[].maxNaN maximum", "should be less than or equal to 1"),
        bad("traffic.requestTimeoutSeconds", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("traffic.requestTimeoutSeconds", json!(3601), "maximum", "should be less than or equal to 3600"),
        bad("traffic.maxRequestBytes", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("traffic.maxRequestBytes", json!("a lot"), "pattern", "spec.traffic.maxRequestBytes in body should match"),
        bad("traffic.maxRequestBytes", json!("1".repeat(33)), "maxLength", "spec.traffic.maxRequestBytes: Too long"),
        bad("traffic.queue.maxRequests", json!(-1), "minimum", "should be greater than or equal to 0"),
        bad("traffic.queue.maxRequests", json!(100_001), "maximum", "should be less than or equal to 100000"),
        bad("traffic.queue.maxBytes", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("traffic.queue.maxBytes", json!("a lot"), "pattern", "spec.traffic.queue.maxBytes in body should match"),
        bad("traffic.queue.maxBytes", json!("1".repeat(33)), "maxLength", "spec.traffic.queue.maxBytes: Too long"),
        bad("traffic.queue.timeoutSeconds", json!(0), "minimum", "should be greater than or equal to 1"),
        bad("traffic.queue.timeoutSeconds", json!(3601), "maximum", "should be less than or equal to 3600"),
        bad("security.authentication", json!("Basic"), "enum", "supported values: \"None\", \"APIKey\""),
    ]
}

fn object(name: &str, spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": { "name": name },
        "spec": spec,
    }))
    .expect("an object")
}

fn plain() -> Value {
    json!({ "model": { "uri": "s3://bucket/model.onnx" } })
}

/// The plain spec with one value put in, or, where it is null, taken out.
fn with(path: &str, value: &Value) -> Value {
    let mut spec = plain();
    let mut place = &mut spec;
    let mut names: Vec<&str> = path.split('.').collect();
    let last = names.pop().unwrap_or_default();
    for name in names {
        if place[name].is_null() {
            place[name] = json!({});
        }
        place = &mut place[name];
    }
    if value.is_null() {
        place.as_object_mut().expect("a map").remove(last);
    } else {
        place[last] = value.clone();
    }
    spec
}

async fn open() -> (Cluster, Api<DynamicObject>) {
    let cluster = Cluster::open().await;
    cluster.create_namespace(NAMESPACE).await;
    let resource = ApiResource::erase::<ModelDeployment>(&());
    let api = Api::namespaced_with(cluster.client.clone(), NAMESPACE, &resource);
    (cluster, api)
}

/// As `kubectl create --dry-run=server --validate=strict`.
async fn send(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<DynamicObject, String> {
    let params = PostParams { dry_run: true, ..Default::default() };
    api.create(&params, object).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_bad_field_is_refused_with_a_message_that_names_it() {
    let (_cluster, api) = open().await;
    let mut wrong = Vec::new();
    for Bad { path, value, message, .. } in bads() {
        let mut object = object("model", with(path, &value));
        if path.is_empty() {
            object.data.as_object_mut().expect("a map").remove("spec");
        }
        let shown: String = value.to_string().chars().take(60).collect();
        match send(&api, &object).await {
            Ok(_) => wrong.push(format!("{path} = {shown} was accepted, wanted: {message}")),
            Err(said) if !said.contains(message) => {
                wrong.push(format!("{path} = {shown}: {said}\n  wanted: {message}"))
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_bad_name_is_refused_with_what_a_name_is() {
    let (_cluster, api) = open().await;
    for name in ["1model", "my.model", &"a".repeat(41)] {
        let said = send(&api, &object(name, plain())).await.expect_err(name);
        assert!(
            said.contains("metadata.name must be a DNS-1035 label of at most 40 characters"),
            "{name}: {said}"
        );
    }
    send(&api, &object(&"a".repeat(40), plain())).await.expect("40 characters are allowed");
}

#[tokio::test]
async fn good_objects_are_accepted_as_they_are() {
    let (_cluster, api) = open().await;
    let goods = [
        ("model.uri", json!("https://host:8443/models/model.onnx")),
        ("model.uri", json!("pvc://claim/models/model.onnx")),
        ("model.uri", json!("hf://owner/name/onnx/model.onnx")),
        ("model.uri", json!("hf://owner/name@refs:pr-1/onnx/model.onnx")),
        ("model.uri", json!("s3://bucket/models..old/model.onnx")),
        ("model", json!({ "uri": "http://host/m.onnx", "insecureHTTP": true })),
        (
            "model",
            json!({ "uri": "s3://b/m", "s3": { "endpoint": "https://minio:9000", "region": "eu-1" }, "secretRef": { "name": "store" }, "caBundleRef": { "name": "ca" } }),
        ),
        ("model", json!({ "uri": "hf://o/n/m.onnx", "hf": { "endpoint": "https://mirror.example" } })),
        ("model.digest", json!(format!("sha256:{}", "0a".repeat(32)))),
        ("replicas", json!(0)),
        ("replicas", json!(1000)),
        ("autoscaling", json!({ "maxReplicas": 1 })),
        (
            "autoscaling",
            json!({ "minReplicas": 0, "maxReplicas": 8, "metric": "Concurrency", "target": 16, "scaleToZeroAfterSeconds": 600, "behavior": { "scaleDown": { "stabilizationWindowSeconds": 300 } } }),
        ),
        (
            "runtime",
            json!({ "version": "1.2.3-rc.1", "executionProviders": [{ "name": "CPU", "options": { "use_arena": "1" } }], "sessionOptions": { "intra_op_num_threads": "2" }, "startupTimeoutSeconds": 30 }),
        ),
        (
            "resources",
            json!({ "requests": { "cpu": 2, "memory": "1.5Gi" }, "limits": { "cpu": "500m", "memory": "2e9", "nvidia.com/gpu": 1 } }),
        ),
        (
            "pod",
            json!({ "labels": { "team": "vision" }, "annotations": { "note": "x" }, "nodeSelector": { "pool": "gpu" }, "tolerations": [{ "key": "gpu", "operator": "Exists", "effect": "NoSchedule" }], "runtimeClassName": "nvidia", "priorityClassName": "high", "imagePullSecrets": [{ "name": "registry" }] }),
        ),
        ("batching", json!({ "maxBatchSize": 8, "maxQueueDelayMicroseconds": 0, "axes": { "state": 1 } })),
        (
            "strategy.canary",
            json!({ "steps": shadow(20, 600), "analysis": { "metrics": outputs(json!([{ "name": "y", "maxAbsolute": "0.01", "maxRelative": "1.5", "minCosine": "0.999", "minTop1Agreement": "1.0", "maxNaN": 0 }])) } }),
        ),
        (
            "strategy.canary",
            json!({ "steps": [{ "setWeight": 5 }], "analysis": { "minRequests": 500, "intervalSeconds": 30, "failureLimit": 1, "metrics": [
                { "name": "errors", "type": "ErrorRate", "max": "0.001" },
                { "name": "latency", "type": "LatencyP99Ratio", "max": "1.2" },
                { "name": "q", "type": "Prometheus", "max": "20", "prometheus": { "address": "http://prometheus.monitoring:9090/behind", "query": "avg(x{r=\"{{revision}}\"})" } },
            ] } }),
        ),
        ("terminationGracePeriodSeconds", json!(10)),
        ("revisionHistoryLimit", json!(0)),
        ("progressDeadlineSeconds", json!(86400)),
    ];
    for (path, value) in goods {
        let spec = with(path, &value);
        let answer = send(&api, &object("model", spec.clone()))
            .await
            .unwrap_or_else(|e| panic!("{path} = {value}: {e}"));
        // Nothing is defaulted and nothing is pruned: what a pod sees is what the user wrote.
        assert_eq!(answer.data["spec"], spec);
        serde_json::from_value::<ModelDeployment>(json!(answer))
            .expect("the operator reads what the schema accepts");
    }
    let mut gpu = json!({ "model": { "uri": "s3://b/m" }, "runtime": cuda(), "resources": { "limits": { "nvidia.com/gpu": "1" } } });
    send(&api, &object("model", gpu.clone())).await.expect("a GPU with its provider");
    gpu["runtime"]["cpuFallback"] = json!("Forbid");
    for limit in [json!("1.5Gi"), json!("8G"), json!(1 << 30)] {
        gpu["runtime"]["gpuMemoryLimit"] = limit;
        let answer = send(&api, &object("model", gpu.clone())).await.expect("what a GPU's model may take");
        assert_eq!(answer.data["spec"], gpu);
    }
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_strict_validation_and_pruned_without() {
    let (cluster, api) = open().await;
    let typo = object("model", with("model.ur1", &json!("s3://b/m")));
    let path =
        format!("{}?dryRun=All&fieldValidation=Strict", ModelDeployment::url_path(&(), Some(NAMESPACE)));
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&typo).expect("JSON")).expect("a request");
    let refused = cluster.client.request::<Value>(request).await.expect_err("strict").to_string();
    assert!(refused.contains("unknown field \"spec.model.ur1\""), "{refused}");
    let answer = send(&api, &typo).await.expect("pruned");
    assert_eq!(answer.data["spec"], plain());
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let (_cluster, api) = open().await;
    let created = api.create(&PostParams::default(), &object("scaled", plain())).await.expect("create");
    // `spec.replicas` is absent: reading the scale says so, writing it does not need it.
    let patch = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    api.patch_scale("scaled", &PatchParams::default(), &patch).await.expect("as kubectl scale --replicas=3");
    assert_eq!(api.get("scaled").await.expect("get").data["spec"]["replicas"], 3);
    let scale = api.get_scale("scaled").await.expect("as an autoscaler reads it");
    assert_eq!(scale.metadata.uid, created.metadata.uid);
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(3));
    let above = Patch::Merge(json!({ "spec": { "replicas": 1001 } }));
    let said = api
        .patch_scale("scaled", &PatchParams::default(), &above)
        .await
        .expect_err("bounds hold")
        .to_string();
    assert!(said.contains("should be less than or equal to 1000"), "{said}");
    api.delete("scaled", &Default::default()).await.expect("delete");
}

#[tokio::test]
async fn what_scales_itself_is_scaled_by_nobody_else() {
    const EXCLUDE: &str = "replicas and autoscaling exclude each other";
    let (_cluster, api) = open().await;
    let autoscaled = with("autoscaling", &json!({ "minReplicas": 0, "maxReplicas": 2 }));
    let mut both = autoscaled.clone();
    both["replicas"] = json!(1);
    let said = send(&api, &object("both", both)).await.expect_err("both");
    assert!(said.contains(EXCLUDE), "{said}");
    api.create(&PostParams::default(), &object("autoscaled", autoscaled)).await.expect("create");
    let patch = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
    let refused = api.patch_scale("autoscaled", &PatchParams::default(), &patch).await;
    match refused.expect_err("a stray HorizontalPodAutoscaler") {
        kube::Error::Api(status) => {
            assert_eq!(status.code, 422);
            assert!(status.message.contains(EXCLUDE), "{}", status.message);
        }
        other => panic!("{other}"),
    }
    api.delete("autoscaled", &Default::default()).await.expect("delete");
}

#[tokio::test]
async fn kubectl_get_shows_what_a_person_looks_for() {
    let (cluster, _api) = open().await;
    let request = Request::new(ModelDeployment::url_path(&(), Some(NAMESPACE)));
    let mut request = request.list(&Default::default()).expect("a request");
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1".parse().expect("a media type");
    request.headers_mut().insert("accept", table);
    let table: Value = cluster.client.request(request).await.expect("a table");
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let names = |wide: bool| -> Vec<&str> {
        let shown = columns.iter().filter(|c| (c["priority"] != 0) == wide);
        shown.filter_map(|c| c["name"].as_str()).collect()
    };
    assert_eq!(
        names(false),
        ["Name", "Ready", "Reason", "Stable", "Updated", "Weight", "Desired", "Available", "Device", "Age"]
    );
    assert_eq!(names(true), ["URL", "Message"]);
}

/// A bound that is added to the schema without a line in `bads` fails here. Needs no cluster.
#[test]
fn every_bound_of_the_schema_is_tested() {
    let text = include_str!("../crds/modeldeployments.yaml");
    let crd: Value = serde_yaml::from_str(text).expect("the CRD");
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut bounds = BTreeSet::new();
    collect(schema, "", &mut bounds);
    for bad in bads() {
        bounds.remove(&bad.bound());
    }
    assert!(bounds.is_empty(), "no bad object for {bounds:?}");
}

fn collect(schema: &Value, place: &str, bounds: &mut BTreeSet<(String, String)>) {
    const BOUNDS: [&str; 10] = [
        "required",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "pattern",
        "enum",
        "minItems",
        "maxItems",
        "maxProperties",
    ];
    for bound in BOUNDS {
        if !schema[bound].is_null() {
            bounds.insert((place.into(), bound.into()));
        }
    }
    if !schema["x-kubernetes-validations"].is_null() {
        bounds.insert((place.into(), "rule".into()));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let dot = if place.is_empty() { "" } else { "." };
        collect(inner, &format!("{place}{dot}{name}"), bounds);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{place}[]"), bounds);
    }
    if schema["additionalProperties"].is_object() {
        collect(&schema["additionalProperties"], &format!("{place}.*"), bounds);
    }
}
