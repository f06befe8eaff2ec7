use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AnalysisSpec;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!(has(self.replacement) && self.replacement == 'Recreate' && has(self.canary) && self.canary.steps.exists(s, has(s.shadow) || has(s.setWeight) && s.setWeight > 0 && s.setWeight < 100))",
        "with replacement: Recreate the revisions never run together: strategy.canary can't share the traffic between them, nor mirror it")
)]
pub struct StrategySpec {
    /// Where new pods find room. Absent: `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
    /// With `Auto`: how long a new pod may find no node before old ones make room. Absent: 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub surge_timeout_seconds: Option<i32>,
    /// Pods beyond `replicas` in a rollout without steps: a number or a percentage. Absent: 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count_or_percent")]
    pub max_surge: Option<IntOrString>,
    /// Pods that may be missing in a rollout without steps: a number or a percentage. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count_or_percent")]
    pub max_unavailable: Option<IntOrString>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Replacement {
    /// `Surge`; where there is no room for it, `InPlace`, or old pods go first.
    Auto,
    /// New pods beside the old ones, however long they wait for room.
    #[default]
    Surge,
    /// A new model in the running pods, where nothing else changes: beside the old one, or in its place where a pod has
    /// room for one; else as `Auto`.
    InPlace,
    /// Requests wait in the gateways while the old pods go and the new ones start.
    Recreate,
}

impl Replacement {
    pub fn as_str(self) -> &'static str {
        match self {
            Replacement::Auto => "Auto",
            Replacement::Surge => "Surge",
            Replacement::InPlace => "InPlace",
            Replacement::Recreate => "Recreate",
        }
    }
}

pub(super) fn count_or_percent(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": true,
        "minimum": 0,
        "maximum": 1000,
        "maxLength": 8,
        "pattern": r"^(0|[1-9][0-9]{0,2})%?$",
    })
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = ("!has(self.analysis) || !self.analysis.metrics.exists(m, m.type == 'OutputDifference') || self.steps.exists(s, has(s.shadow))",
        "a metric of type OutputDifference compares what a shadow step mirrors: add one to the steps")
)]
pub struct CanarySpec {
    /// In order; all of the traffic follows the last. Not for the first revision, nor for going back to one that was
    /// stable.
    #[schemars(length(min = 1, max = 32))]
    pub steps: Vec<CanaryStep>,
    /// Holds the steps until the candidate has proven itself with requests, and aborts one that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisSpec>,
}

/// One of them, with Argo Rollouts' names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("[has(self.setWeight), has(self.setCanaryScale), has(self.pause), has(self.shadow)].filter(x, x).size() == 1",
        "a step is one of setWeight, setCanaryScale, pause and shadow")
)]
pub struct CanaryStep {
    /// The candidate's share of the traffic, once the pods for it are ready. At 0 it answers who names its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub set_weight: Option<i32>,
    /// The candidate's pods from here on. Without it: as many as its share of the traffic needs, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_canary_scale: Option<CanaryScale>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<CanaryPause>,
    /// Requests go to the candidate too, which nobody gets an answer of: both answers are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<CanaryShadow>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryShadow {
    /// Of the requests that the stable revision answers.
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
    /// From when the candidate's pods are ready.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub duration_seconds: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = ("has(self.replicas) != has(self.percent)", "setCanaryScale is replicas or percent")
)]
pub struct CanaryScale {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<i32>,
    /// Of `replicas`, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryPause {
    /// Absent: until somebody promotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub duration_seconds: Option<i64>,
}
