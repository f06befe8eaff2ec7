use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `/models/status/<revision>.json`: how far the loader is. Written whole, by rename.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadStatus {
    pub format_version: u32,
    pub phase: LoadPhase,
    /// When `phase` is `Failed`: a reason of the condition table (`SourceForbidden`, `DigestMismatch`, …). The loader
    /// goes on trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The model file below `/models/revisions/<revision>/`, once fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_file: Option<String>,
    /// Of the bytes that were written, as `SourceRequest::digest` counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(default)]
    pub bytes: u64,
    #[serde(default)]
    pub total_bytes: u64,
    /// Time spent fetching and verifying.
    #[serde(default)]
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadPhase {
    Fetching,
    Fetched,
    Failed,
}

/// `GET /modelwright/v1/state` of a serving pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodState {
    pub format_version: u32,
    /// What the readiness probe answers: an assigned revision is proven.
    pub ready: bool,
    /// It knows `Assignments::fetch_only`.
    #[serde(default)]
    pub fetches_only: bool,
    #[serde(default)]
    pub revisions: Vec<RevisionState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionState {
    pub deployment: String,
    pub revision: String,
    /// Its worker listens here, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub phase: RevisionPhase,
    /// When something is wrong: a reason of the condition table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The execution provider that the model was seen to run on: `CPU`, `CUDA`, `TensorRT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Nodes of the graph by execution provider, counted before late fusions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub graph_nodes: BTreeMap<String, u64>,
    /// Whether requests share runs of the model; absent until it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<BatchingState>,
    /// What the pod takes, as measured from live requests; absent until it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Seconds spent in `fetch`, `load`, `warmup`.
    #[serde(default)]
    pub seconds: BTreeMap<String, f64>,
}

/// At the knee of the measured batching curve: more requests at a time would only wait.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Requests that run at a time.
    pub concurrency: f64,
    /// Requests a second.
    pub per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchingState {
    pub on: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Rows of one run at most, as the measured curve says; absent until it has been learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevisionPhase {
    /// The loader is at work.
    Fetching,
    /// Its files are there, and it is not to run.
    Fetched,
    /// ONNX Runtime reads the model.
    Loading,
    WarmingUp,
    /// Warm-up has passed: it answers.
    Proven,
    /// It will be tried again; `reason` says what is wrong.
    Failed,
    /// The process was told to stop and finishes what it has.
    Draining,
    /// Written by a newer server.
    #[serde(other)]
    Unknown,
}
