use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AnalysisStatus;

/// What was seen, never an input to a decision: everything here can be derived again from the objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The revision that the address points at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<String>,
    /// The revision of the newest spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_revision: Option<String>,
    /// What the stable revision was seen to run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Of `spec.replicas`, or what autoscaling asks for.
    #[serde(default)]
    pub desired_replicas: i32,
    /// All live serving pods, of every revision.
    #[serde(default)]
    pub replicas: i32,
    #[serde(default)]
    pub ready_replicas: i32,
    /// Ready pods of the stable revision: those behind the address.
    #[serde(default)]
    pub available_replicas: i32,
    #[serde(default)]
    pub updated_replicas: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Where requests go, as every gateway has acknowledged it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// With `spec.autoscaling`: the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// While a revision is rolled out, or was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// The verb that was last obeyed, or is not, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verb: Option<String>,
    /// Live and retained revisions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<RevisionStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<StatusCondition>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    pub desired_replicas: i32,
    /// `Concurrency` or `RequestsPerSecond`.
    pub metric: String,
    /// Of the metric, for each ready pod, on average over half the time that a pod takes to start, 10 s at least. Absent:
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Of the metric, for each pod. Absent: not measured yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why the number is what it is; `ScalingActive` has the sentence.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// `<revision>.<attempt>`: what verbs name.
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub to: String,
    /// `Surge`, `InPlace` or `Recreate`, resolved from `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement_reason: Option<String>,
    /// From 0.
    pub current_step_index: i32,
    pub step_count: i32,
    /// The candidate's share of the traffic, of 100.
    pub weight: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_end_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    pub revision: String,
    pub percent: i32,
    pub ready_replicas: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// The generation of the ModelRoute.
    pub route_generation: i64,
    /// Gateways that are ready or leaving.
    pub replicas: i32,
    /// Those of them that forward by this generation.
    pub acknowledged: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    pub name: String,
    pub role: RevisionRole,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    pub source: SourceStatus,
    pub image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Nodes of the graph by execution provider, counted before ONNX Runtime's late fusions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub graph_nodes: BTreeMap<String, i64>,
    /// The slowest live pod's seconds by phase: `schedule`, `pull`, `fetch`, `load`, `warmup`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cold_start_seconds: BTreeMap<String, f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevisionRole {
    /// Behind the address.
    Stable,
    /// Being proven.
    Candidate,
    /// Kept for a rollback.
    Retained,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    pub uri: String,
    /// The version that the store gave to the model file: S3 version id or ETag, Hugging Face commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub immutable: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastFailure {
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    pub time: Time,
}

/// `metav1.Condition`, its schema written out because the field names must stay put.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_time: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
