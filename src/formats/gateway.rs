use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of `GET /modelwright/v1/stream` of a gateway: newline-delimited JSON that never ends.
///
/// The first line holds everything, later ones what has changed; one without changes comes once a second, so that a
/// gateway that is gone is noticed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReport {
    pub format_version: u32,
    /// By ModelDeployment: the route by which new requests go from now on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, AppliedRoute>,
    /// ModelDeployments whose route is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// By ModelDeployment: requests that wait for a pod, where it has changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, u64>,
    /// By ModelDeployment: what was asked of it, where that has changed. Absent in every line of a gateway that does not
    /// count, and in lines that come sooner than a fifth of a second after the last that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<BTreeMap<String, Demand>>,
    /// In the first line, by ModelDeployment: the last ten minutes, the oldest first, without what is idle.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub past: BTreeMap<String, Vec<PastDemand>>,
    /// In the first line: how far back `past` goes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub past_seconds: u64,
    /// By ModelDeployment: what was counted of the candidate in its analysis, where it has changed: errors and latencies
    /// within a second or two, mere requests within some seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trials: BTreeMap<String, Trial>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Counted since the gateway began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    pub arrivals: u64,
    /// The time that requests ran and waited, summed up: its growth in a second is how many there were on average.
    pub request_seconds: f64,
    /// Now, without those that wait.
    pub in_flight: u64,
}

/// `SECONDS` of the past.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastDemand {
    /// When they began.
    pub seconds_ago: u32,
    pub arrivals: u64,
    pub request_seconds: f64,
}

impl PastDemand {
    pub const SECONDS: u64 = 5;
}

/// One attempt to roll a candidate out, as one process of a gateway has counted it from its beginning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Another after each start of the gateway, which counts from nothing: nanoseconds since 1970.
    pub process: u64,
    /// The ModelRoute's uid, and its candidate's revision and attempt.
    pub route: String,
    pub candidate: i64,
    pub attempt: i64,
    /// That the candidate has answered, but for those that were the client's own error.
    #[serde(default)]
    pub requests: u64,
    /// Of these, the ones that it has failed: 5xx, a gRPC status that means the same, a broken connection, no answer in
    /// time. Also those that another pod has answered in the end.
    #[serde(default)]
    pub errors: u64,
    /// How long successful requests took, in multiples of the stable revision's 99th percentile of the same interval:
    /// requests by step, of which `STEPS` double; step 0 is that percentile's own.
    #[serde(default)]
    pub latencies: BTreeMap<i32, u64>,
    /// Requests in `latencies`, less what they lose since the percentile is an estimate by as few requests: n stable
    /// ones and m of the candidate in an interval count as n·m/(n+m).
    #[serde(default)]
    pub independent: f64,
    /// What the comparison of its answers with the stable revision's has found, while requests are mirrored to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowReport>,
}

impl Trial {
    /// Of an octave: 2.2 % each.
    pub const STEPS: f64 = 32.0;

    /// The step in which the `rank`-th of the requests is, the fastest first.
    pub fn step_of(requests: &BTreeMap<i32, u64>, rank: u64) -> Option<i32> {
        let mut seen = 0;
        let mut reached = requests.iter().skip_while(|(_, count)| {
            seen += **count;
            seen < rank
        });
        reached.next().map(|(step, _)| *step)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedRoute {
    /// Of the ModelRoute: another object of the same name has another.
    pub uid: String,
    pub generation: i64,
}

/// Answers of a candidate beside the stable revision's, to the same requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowReport {
    /// Answers that were compared.
    #[serde(default)]
    pub compared: u64,
    /// Answers of another form: a datatype, a shape, an output that is missing.
    #[serde(default)]
    pub mismatched: u64,
    /// Requests that the candidate answered with an error, or not in time, and the stable revision well.
    #[serde(default)]
    pub failed: u64,
    /// Requests that were to be mirrored, and for which there was no room or no pod.
    #[serde(default)]
    pub dropped: u64,
    /// The first answer of another form, or error: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
    /// By name, the first 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, OutputReport>,
}

/// The worst of one output, of all answers that were compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputReport {
    pub samples: u64,
    pub max_absolute: f64,
    pub max_relative: f64,
    pub min_cosine: f64,
    /// Rows, or elements, that could agree, and that do.
    pub rows: u64,
    pub agreeing: u64,
    /// Elements that are NaN on one side only.
    pub nan: u64,
}

impl Default for OutputReport {
    fn default() -> Self {
        Self {
            samples: 0,
            max_absolute: 0.0,
            max_relative: 0.0,
            min_cosine: 1.0,
            rows: 0,
            agreeing: 0,
            nan: 0,
        }
    }
}

/// A bound on what is kept and told.
const MAX_OUTPUTS: usize = 64;

impl ShadowReport {
    /// What another has found of the same attempt.
    pub fn add(&mut self, other: &ShadowReport) {
        self.compared += other.compared;
        self.mismatched += other.mismatched;
        self.failed += other.failed;
        self.dropped += other.dropped;
        if self.example.is_none() {
            self.example.clone_from(&other.example);
        }
        for (name, output) in &other.outputs {
            self.add_output(name, *output);
        }
    }

    pub fn add_output(&mut self, name: &str, other: OutputReport) {
        if let Some(output) = self.outputs.get_mut(name) {
            output.add(other);
        } else if self.outputs.len() < MAX_OUTPUTS {
            self.outputs.insert(name.into(), other);
        }
    }
}

impl OutputReport {
    fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.max_absolute = self.max_absolute.max(other.max_absolute);
        self.max_relative = self.max_relative.max(other.max_relative);
        self.min_cosine = self.min_cosine.min(other.min_cosine);
        self.rows += other.rows;
        self.agreeing += other.agreeing;
        self.nan += other.nan;
    }
}
