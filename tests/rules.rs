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

fn cuda() -> Value {
    json!({ "executionProviders": [{ "name": "CUDA" }] })
}

const URI: &str = "model.uri must be s3://, https://, http://, pvc:// or hf://, without user information, query or fragment";
const GPU: &str = "a GPU execution provider needs a GPU in resources.limits";
const FALLBACK: &str = "runtime.cpuFallback says what a GPU's model may leave to the CPU: it needs CUDA or TensorRT in runtime.executionProviders";
const GPU_MEMORY: &str =
    "runtime.gpuMemoryLimit bounds CUDA's memory: it needs CUDA in runtime.executionProviders";
const PREFIX: &str = "pod.labels and pod.annotations must not use the prefix modelwright.dev/";
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
        ["Name", "Ready", "Reason", "Stable", "Updated", "Desired", "Available", "Device", "Age"]
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
