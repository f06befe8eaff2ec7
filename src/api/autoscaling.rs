use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pods follow the demand, within bounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
        "autoscaling.minReplicas must not be above maxReplicas"),
    validation = ("!has(self.scaleToZeroAfterSeconds) || (has(self.minReplicas) && self.minReplicas == 0)",
        "autoscaling.scaleToZeroAfterSeconds needs minReplicas: 0"),
    validation = ("!has(self.target) || has(self.metric)",
        "autoscaling.target needs metric: what it counts")
)]
pub struct AutoscalingSpec {
    /// At 0 the model goes to zero when nothing is asked of it, and requests wait while it starts. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: Option<i32>,
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// What demand is measured in. Absent: requests a second, against what the server was measured to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<ScalingMetric>,
    /// Of the metric, for one pod. Absent: 79 % of what the server was measured to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target: Option<i32>,
    /// Without a request for so long, no pod stays. Absent: from the time that the model takes to start and the pauses
    /// that were seen, from 1 to 10 minutes at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub scale_to_zero_after_seconds: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<ScalingBehavior>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMetric {
    /// Requests that run or wait.
    Concurrency,
    RequestsPerSecond,
}

impl ScalingMetric {
    pub fn as_str(self) -> &'static str {
        match self {
            ScalingMetric::Concurrency => "Concurrency",
            ScalingMetric::RequestsPerSecond => "RequestsPerSecond",
        }
    }
}

/// With the HorizontalPodAutoscaler's names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingBehavior {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<ScaleDownBehavior>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDownBehavior {
    /// Pods that were needed within this time stay. Absent: three times what the model takes to start, from 15 s to
    /// 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: Option<i32>,
}
