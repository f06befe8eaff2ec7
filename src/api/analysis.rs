use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const MIN_REQUESTS: i64 = 200;
pub const INTERVAL_SECONDS: i64 = 30;

/// Whether a candidate may have more of the traffic. While it has any, each raise of its weight and the end of each
/// pause waits until every metric has passed; one that fails aborts the rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.metrics.all(m, self.metrics.exists_one(n, n.name == m.name))",
        "two metrics of an analysis have the same name")
)]
pub struct AnalysisSpec {
    /// Of the candidate, before a metric of requests can pass. Absent: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<i64>,
    /// Between two queries of Prometheus, and between two comparisons of latencies. Absent: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: Option<i64>,
    /// Values of a Prometheus query above its `max` that are forgiven. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub failure_limit: Option<i64>,
    #[schemars(length(min = 1, max = 8))]
    pub metrics: Vec<AnalysisMetric>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("(self.type == 'Prometheus') == has(self.prometheus)",
        "a metric of type Prometheus has prometheus, and no other has"),
    validation = ("(self.type == 'OutputDifference') == has(self.outputs)",
        "a metric of type OutputDifference has outputs, and no other has"),
    validation = ("(self.type == 'OutputDifference') != has(self.max)",
        "max is what a metric may reach at most; an OutputDifference has budgets in outputs instead"),
    validation = ("self.type != 'ErrorRate' || !has(self.max) || double(self.max) <= 1.0", "max of an ErrorRate is a share: at most 1"),
    validation = ("self.type != 'LatencyP99Ratio' || !has(self.max) || double(self.max) > 0.0",
        "max of a LatencyP99Ratio is a multiple of the stable revision's p99: above 0")
)]
pub struct AnalysisMetric {
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    #[serde(rename = "type")]
    pub type_: MetricType,
    /// The largest value that is allowed: a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$"))]
    pub max: Option<String>,
    /// Of an `OutputDifference`: how far each output may be from the stable revision's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub outputs: Option<Vec<OutputBudget>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusQuery>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetricType {
    /// Of the candidate's requests, those that it failed.
    ErrorRate,
    /// The candidate's 99th percentile, in multiples of the stable revision's of the same interval.
    LatencyP99Ratio,
    /// What a query gives, asked every `intervalSeconds`.
    Prometheus,
    /// Of the candidate's answers to mirrored requests, output by output.
    OutputDifference,
}

/// The worst that any answer may show of one output. All limits are decimals; what is absent is not looked at, but for
/// `maxNaN`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.maxAbsolute) || has(self.maxRelative) || has(self.minCosine) || has(self.minTop1Agreement) || has(self.maxNaN)",
        "an output needs at least one of maxAbsolute, maxRelative, minCosine, minTop1Agreement and maxNaN")
)]
pub struct OutputBudget {
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The largest |a - b| of any element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$"))]
    pub max_absolute: Option<String>,
    /// The largest |a - b| / max(|a|, |b|) of any element: 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[01](\.[0-9]+)?$"))]
    pub max_relative: Option<String>,
    /// Of the output as one vector: 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub min_cosine: Option<String>,
    /// The share of rows of the last axis whose largest element is the same one; of integers and strings, of elements
    /// that are equal: 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "minTop1Agreement")]
    #[schemars(length(max = 16), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub min_top1_agreement: Option<String>,
    /// Elements that are NaN on one side only, of all answers. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "maxNaN")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_nan: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PrometheusQuery {
    /// `http://host:port`, and a path where Prometheus stands behind one.
    #[schemars(length(max = 256), regex(pattern = r"^http://[^\s@?#]+$"))]
    pub address: String,
    /// Gives one number. `{{revision}}`, `{{stable}}`, `{{name}}` and `{{namespace}}` are filled in.
    #[schemars(length(min = 1, max = 2048))]
    pub query: String,
}

/// What an analysis has found so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisStatus {
    pub verdict: AnalysisVerdict,
    /// Of the candidate: as many as the metric has that has seen the fewest.
    pub requests: i64,
    pub requests_needed: i64,
    pub metrics: Vec<MetricStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AnalysisVerdict {
    /// Enough was seen, and no more than is allowed.
    Passed,
    /// More than is allowed, beyond reasonable doubt.
    Failed,
    /// Too little is known: it neither passes nor fails.
    Inconclusive,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricStatus {
    pub name: String,
    pub verdict: AnalysisVerdict,
    /// In the unit of `max`. Absent: nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    pub max: String,
    /// Requests, or values of a query, that it is judged by.
    pub samples: i64,
    /// Of an `OutputDifference`: what `observed` and `max` are of, `output score, absolute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<String>,
    /// Why there is nothing newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
