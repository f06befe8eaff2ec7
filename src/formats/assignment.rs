use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, PinnedSource};

/// The pod annotation that shows which part of a pod's work is which; key of the downward-API file.
pub const ANNOTATION: &str = "modelwright.dev/assignment";

/// What a pod must hold. A list from the first day: an in-place swap holds two revisions for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignments {
    pub format_version: u32,
    pub assignments: Vec<Assignment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The ModelDeployment, and the model's name in the Open Inference Protocol.
    pub deployment: String,
    /// `<deployment>-r<N>`: names the folder, the load status and the worker.
    pub revision: String,
    /// The model's version in the Open Inference Protocol: the revision's number.
    pub model_version: String,
    /// The worker listens here.
    pub port: u16,
    pub source: PinnedSource,
}

impl Assignments {
    pub const ANNOTATION: &str = ANNOTATION;

    pub fn new(assignments: Vec<Assignment>) -> Self {
        Self { format_version: FORMAT_VERSION, assignments }
    }
}
