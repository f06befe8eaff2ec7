use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AutoscalingSpec, ModelDeploymentStatus, SecuritySpec, StrategySpec, TrafficSpec};

/// Serves one ONNX model.
///
/// No field that a pod sees has a schema default: the API server applies new defaults on read with the generation
/// unchanged, and every pod would restart at an operator upgrade.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "modelwright.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    plural = "modeldeployments",
    shortname = "mdep",
    category = "all",
    namespaced,
    status = "ModelDeploymentStatus",
    derive = "PartialEq",
    doc = "Serves one ONNX model: resolves and pins its source, runs ONNX Runtime pods, and rolls new versions.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stableRevision"),
    printcolumn(name = "Updated", type_ = "string", json_path = ".status.updatedRevision"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.rollout.weight"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.availableReplicas"),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.device"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "metadata.name must be a DNS-1035 label of at most 40 characters"),
    validation = ("self.metadata.name != 'modelwright-gateway'",
        "metadata.name must not be modelwright-gateway: the namespace's gateways have it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!(has(self.replicas) && has(self.autoscaling))",
        "replicas and autoscaling exclude each other"),
    validation = ("!has(self.traffic) || !has(self.traffic.requestTimeoutSeconds) || !has(self.terminationGracePeriodSeconds) || self.terminationGracePeriodSeconds >= self.traffic.requestTimeoutSeconds + 10",
        "terminationGracePeriodSeconds must be at least traffic.requestTimeoutSeconds + 10: a request that runs when its pod is told to go is answered"),
    validation = ("!has(self.runtime) || !has(self.runtime.executionProviders) || !self.runtime.executionProviders.exists(p, p.name in ['CUDA','TensorRT']) || (has(self.resources) && has(self.resources.limits) && self.resources.limits.exists(k, k.contains('/')))",
        "a GPU execution provider needs a GPU in resources.limits")
)]
pub struct ModelDeploymentSpec {
    /// The model to serve. A change makes a revision.
    pub model: ModelSpec,
    /// Serving pods wanted. Absent: 1. At 0 requests wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Instead of `replicas`: as many pods as the demand needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
    /// No pods; every request is answered 503 at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The ServiceAccount of resolver and serving pods (workload identity). Absent: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeSpec>,
    /// Of the server's container. Absent: 100m CPU, 512Mi memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Where pods run and what they carry: a closed subset of a PodSpec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOptions>,
    /// How requests share runs of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<BatchingSpec>,
    /// Freezes a rollout where it is. What serves goes on serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// How a new revision takes over. A change counts from the next rollout or retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategySpec>,
    /// What the gateways accept, and for how long. Applies to running pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficSpec>,
    /// Whom the gateways answer. Applies to running pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<SecuritySpec>,
    /// Absent: 60, or 30 more than `traffic.requestTimeoutSeconds` where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub termination_grace_period_seconds: Option<i64>,
    /// Revisions kept for a rollback, beside those in use. Absent: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: Option<i32>,
    /// A rollout that takes longer is reported with `Progressing=False`. Absent: 1800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub progress_deadline_seconds: Option<i32>,
    /// Gives a rollout up that takes longer: the traffic goes back to the stable revision. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline_abort: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!self.uri.startsWith('http://') || (has(self.insecureHTTP) && self.insecureHTTP)",
        "a plain http:// source needs model.insecureHTTP: true")
)]
pub struct ModelSpec {
    /// A file, or a folder (prefix) that holds one `.onnx` file and its external data:
    /// `s3://bucket/key`, `https://host/path`, `pvc://claim/path`, `hf://owner/name[@revision]/path`,
    /// or `http://` with `insecureHTTP: true`.
    #[schemars(length(min = 6, max = 2048))]
    #[x_kube(
        validation = ("self.matches('^(s3|https|http|pvc)://[^\\\\s@?#]+$') || self.matches('^hf://[^\\\\s@?#]+(@[A-Za-z0-9._:+-]+)?(/[^\\\\s@?#]*)?$')",
            "model.uri must be s3://, https://, http://, pvc:// or hf://, without user information, query or fragment"),
        validation = ("!self.contains('/../') && !self.endsWith('/..')", "model.uri must not contain '..'")
    )]
    pub uri: String,
    /// `sha256:<64 hex>`. One file: of its bytes; several: of the sorted `sha256sum` lines. Absent: recorded at the
    /// first load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[a-f0-9]{64}$"))]
    pub digest: Option<String>,
    /// What a new model's inputs and outputs may differ in from the stable one's. Absent: `RequireCompatible`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility: Option<Compatibility>,
    /// A Secret with the store's credentials, mounted into resolver and loader only:
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, `HF_TOKEN`, or `TOKEN`, or `USERNAME` and `PASSWORD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Options>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hf: Option<HubOptions>,
    /// A ConfigMap with certificate authorities in PEM, trusted beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<NameRef>,
    /// Allows plain HTTP sources and endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "insecureHTTP")]
    pub insecure_http: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Compatibility {
    /// In nothing that a client could trip over: a model that does gets no pod.
    RequireCompatible,
    AllowBreaking,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NameRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct S3Options {
    /// `https://host:port`, path-style. Absent: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s@?#]+$"))]
    pub endpoint: Option<String>,
    /// Absent: us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub region: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HubOptions {
    /// A mirror that speaks the hub's API. Absent: huggingface.co.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s@?#]+$"))]
    pub endpoint: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(self.cpuFallback) || (has(self.executionProviders) && self.executionProviders.exists(p, p.name in ['CUDA','TensorRT']))",
        "runtime.cpuFallback says what a GPU's model may leave to the CPU: it needs CUDA or TensorRT in runtime.executionProviders"),
    validation = ("!has(self.gpuMemoryLimit) || (has(self.executionProviders) && self.executionProviders.exists(p, p.name == 'CUDA'))",
        "runtime.gpuMemoryLimit bounds CUDA's memory: it needs CUDA in runtime.executionProviders")
)]
pub struct RuntimeSpec {
    /// The server image's version. Absent: the operator's, frozen in the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub version: Option<String>,
    /// Tried in order for each node of the graph; one that does not load is an error. The CPU is always the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub execution_providers: Vec<ExecutionProvider>,
    /// ONNX Runtime session options, as `AddSessionConfigEntry` takes them, and `intra_op_num_threads`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 256 }))]
    pub session_options: BTreeMap<String, String>,
    /// What a model that was to run on a GPU may leave to the CPU: nothing, what computes shapes, anything. One that
    /// leaves more is not Ready. Absent: `ShapeOpsOnly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_fallback: Option<CpuFallback>,
    /// Most of the GPU's memory that CUDA may allocate for the model, which then runs on one thread. Absent: what it
    /// needs, twice, since two threads have a copy each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "byte_size")]
    pub gpu_memory_limit: Option<Quantity>,
    /// A model that takes longer to load and warm up has failed. Absent: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub startup_timeout_seconds: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecutionProvider {
    pub name: ProviderName,
    /// As ONNX Runtime names them, for example `trt_fp16_enable: "true"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 256 }))]
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::upper_case_acronyms)]
pub enum ProviderName {
    CPU,
    CUDA,
    TensorRT,
}

impl ProviderName {
    pub fn as_str(self) -> &'static str {
        match self {
            ProviderName::CPU => "CPU",
            ProviderName::CUDA => "CUDA",
            ProviderName::TensorRT => "TensorRT",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CpuFallback {
    Forbid,
    ShapeOpsOnly,
    Allow,
}

impl CpuFallback {
    pub fn as_str(self) -> &'static str {
        match self {
            CpuFallback::Forbid => "Forbid",
            CpuFallback::ShapeOpsOnly => "ShapeOpsOnly",
            CpuFallback::Allow => "Allow",
        }
    }
}

/// Bytes, and some: a limit of nothing fits no model.
pub(super) fn byte_size(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maxLength": 32,
        "pattern": r"^[1-9][0-9]*(\.[0-9]+)?([KMGT]i|[kMGT])?$",
    })
}

/// With Triton's names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchingSpec {
    /// Rows that requests may share a run with; 1: never. Absent: as many as pay by measurement, where the warm-up has
    /// proven that answers don't depend on the other requests of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_batch_size: Option<i32>,
    /// How long an idle thread waits for a fuller batch. Absent: 0, not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_queue_delay_microseconds: Option<i32>,
    /// The batch axis of inputs and outputs, by name, where the model's signature does not tell it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = { "type": "integer", "minimum": 0, "maximum": 31 }))]
    pub axes: BTreeMap<String, i32>,
}

/// A pod with an amount that is none would be refused later, where the message is harder to find.
fn quantity() -> serde_json::Value {
    serde_json::json!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "pattern": r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
    })
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourcesSpec {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = quantity()))]
    pub requests: BTreeMap<String, Quantity>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = quantity()))]
    pub limits: BTreeMap<String, Quantity>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("(!has(self.labels) || self.labels.all(k, !k.startsWith('modelwright.dev/'))) && (!has(self.annotations) || self.annotations.all(k, !k.startsWith('modelwright.dev/')))",
        "pod.labels and pod.annotations must not use the prefix modelwright.dev/")
)]
pub struct PodOptions {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub runtime_class_name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub node_selector: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}
