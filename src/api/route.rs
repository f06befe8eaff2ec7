#![allow(clippy::duplicated_attributes)] // columns of one type

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::strategy::count_or_percent;
use super::{AnalysisSpec, AnalysisStatus, Authentication, CanaryStep, MetricStatus, Replacement};

/// Where a ModelDeployment's requests go, and how far its rollout is. Internal: the operator writes it, the gateways
/// of the namespace watch it and say which generation they have applied.
///
/// One object, so that weights and step change in one write. It is the record that a rollout is planned from; the
/// ModelDeployment's status never is.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "modelwright.dev",
    version = "v1alpha1",
    kind = "ModelRoute",
    plural = "modelroutes",
    namespaced,
    derive = "PartialEq",
    doc = "Where a ModelDeployment's requests go: internal, written by the operator for the gateways.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Stable", type_ = "integer", json_path = ".spec.rollout.stable"),
    printcolumn(name = "Candidate", type_ = "integer", json_path = ".spec.rollout.candidate"),
    printcolumn(name = "Step", type_ = "integer", json_path = ".spec.rollout.step"),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".metadata.generation"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelRouteSpec {
    pub mode: RouteMode,
    /// Revisions that may answer. Their weights sum to 100; one of weight 0 answers only who names its version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backends: Vec<Backend>,
    #[serde(default)]
    pub limits: RouteLimits,
    /// Always written, as the record's fields are.
    #[serde(default)]
    pub shadow: Option<RouteShadow>,
    /// No request goes to this pod for this revision, whose place in it another takes.
    #[serde(default)]
    pub drained: Option<DrainedPod>,
    #[serde(default)]
    pub rollout: RolloutRecord,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteMode {
    /// To the backends by weight; requests wait while none of them has a ready pod.
    #[default]
    Forward,
    /// Every request waits, whatever is ready: pods are about to go.
    Hold,
    /// Every request is answered 503 at once.
    Refuse,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The revision's number, as pods' assignments have it.
    pub revision: i64,
    /// Of 100.
    #[schemars(range(min = 0, max = 100))]
    pub weight: i32,
}

/// A share of the requests goes to this revision too, once they are answered. Nobody gets its answers: the gateways
/// compare them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteShadow {
    pub revision: i64,
    /// Of the rollout: what the gateways found of another is not counted.
    pub attempt: i64,
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
    pub since: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainedPod {
    /// Its name.
    #[schemars(length(max = 253))]
    pub pod: String,
    pub revision: i64,
}

/// What gateways accept: `spec.traffic` and `spec.security` of the ModelDeployment, every field filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteLimits {
    pub request_timeout_seconds: i64,
    pub max_request_bytes: i64,
    pub queue_requests: i64,
    pub queue_bytes: i64,
    pub queue_timeout_seconds: i64,
    /// Absent in the routes of older operators.
    #[serde(default)]
    pub authentication: Authentication,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self {
            request_timeout_seconds: 30,
            max_request_bytes: 16 << 20,
            queue_requests: 1000,
            queue_bytes: 256 << 20,
            queue_timeout_seconds: 300,
            authentication: Authentication::None,
        }
    }
}

/// Every field is always written: server-side apply leaves what the first POST said where a later write is silent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRecord {
    /// The revision that was last rolled out to the end.
    #[serde(default)]
    pub stable: Option<i64>,
    /// The revision that is being rolled out.
    #[serde(default)]
    pub candidate: Option<i64>,
    /// Which try of the candidate this is, from 1: verbs name `<revision>.<attempt>`.
    #[serde(default)]
    pub attempt: i64,
    /// How often each kept revision was tried: an attempt's number never comes again, so a stale verb never fires.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub tried: Vec<Tried>,
    /// Index of the strategy's step that the candidate is at; the number of steps when all are behind it.
    #[serde(default)]
    pub step: i32,
    #[serde(default)]
    pub step_started_at: Option<Time>,
    /// When the analysis let the candidate past the step's gate: what was seen then is not asked again.
    #[serde(default)]
    pub passed_at: Option<Time>,
    /// When the rollout began.
    #[serde(default)]
    pub started_at: Option<Time>,
    /// Set: the candidate was given up, the stable revision has the traffic.
    #[serde(default)]
    pub aborted: Option<Aborted>,
    /// The revision that was stable before, and since when it has no traffic.
    #[serde(default)]
    pub previous: Option<Previous>,
    /// Revisions that were rolled out to the end once: going back to one needs no steps.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub proven: Vec<i64>,
    /// The strategy's steps as they were when the attempt began.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub steps: Vec<CanaryStep>,
    /// The strategy's analysis as it was when the attempt began; none once somebody has promoted past all steps. The
    /// gateways count requests for it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub analysis: Option<AnalysisSpec>,
    /// What the metrics of type OutputDifference said at the end of the last shadow step: it stands.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub compared: Vec<MetricStatus>,
    /// How the attempt makes room: `Surge`, `InPlace` or `Recreate`. Never null, which no enum takes.
    #[serde(default)]
    pub replacement: Replacement,
    /// In place, one after the other: two models find no room beside each other in a pod.
    #[serde(default)]
    pub exclusive: bool,
    /// Why, where nobody asked for it: `SurgeUnschedulable`, `NoSurgeAllowed`, or what kept it from going in place.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub replacement_reason: Option<String>,
    /// The strategy's bounds as they were when the attempt began.
    #[serde(default)]
    #[schemars(schema_with = "count_or_percent")]
    pub max_surge: Option<IntOrString>,
    #[serde(default)]
    #[schemars(schema_with = "count_or_percent")]
    pub max_unavailable: Option<IntOrString>,
    /// The verbs that were obeyed, as they were written, the last one last; one of each kind.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub obeyed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    pub revision: i64,
    pub attempts: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Aborted {
    pub at: Time,
    /// A reason of the condition table.
    #[schemars(length(max = 64))]
    pub reason: String,
    #[schemars(length(max = 1024))]
    pub message: String,
    /// What it was found out by.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub analysis: Option<AnalysisStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    pub revision: i64,
    pub moved_at: Time,
}
