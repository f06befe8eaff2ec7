use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, PinnedSource, ports};

/// The pod annotation that shows which part of a pod's work is which; key of the downward-API file.
pub const ANNOTATION: &str = "modelwright.dev/assignment";

/// What a pod must hold: an in-place swap holds two revisions for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignments {
    pub format_version: u32,
    pub assignments: Vec<Assignment>,
    /// Revisions whose files the pod has, and that nobody runs: there is room for one worker. Apart from the others, so
    /// that a server which does not know of this starts no second one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch_only: Vec<Assignment>,
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

/// A revision of a pod, and its worker's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The revision's number.
    pub revision: u64,
    pub port: u16,
    /// Its files are there, and no worker.
    pub fetch_only: bool,
}

impl Slot {
    /// What a pod is to hold, by its metadata.
    pub fn assigned(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Vec<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Document {
            assignments: Vec<Entry>,
            #[serde(default)]
            fetch_only: Vec<Entry>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry {
            model_version: String,
            port: u16,
        }
        let document = annotations.get(ANNOTATION).and_then(|text| serde_json::from_str(text).ok());
        if let Some(Document { assignments, fetch_only }) = document {
            let slot = |fetch_only: bool| {
                move |entry: Entry| {
                    Some(Self { revision: entry.model_version.parse().ok()?, port: entry.port, fetch_only })
                }
            };
            let run = assignments.into_iter().filter_map(slot(false));
            return run.chain(fetch_only.into_iter().filter_map(slot(true))).collect();
        }
        let own = labels.get(Assignments::SET).and_then(|set| Assignments::revision_of(set));
        own.map(|revision| Self { revision, port: ports::INFERENCE, fetch_only: false }).into_iter().collect()
    }

    /// Those of `assigned` that answer once the pod is ready: all that run, unless a label says which.
    pub fn serving(labels: &BTreeMap<String, String>, assigned: &[Self]) -> Vec<Self> {
        let named = labels.get(Assignments::SERVES);
        let is_named = |slot: &&Self| {
            named.is_none_or(|named| named.split('.').any(|name| name == format!("r{}", slot.revision)))
        };
        assigned.iter().filter(|slot| !slot.fetch_only).filter(is_named).copied().collect()
    }
}

impl Assignments {
    pub const ANNOTATION: &str = ANNOTATION;
    /// The pod label that names the revisions that were proven: `r7.r8`. A pod without it was never assigned anew.
    pub const SERVES: &str = "modelwright.dev/serves";
    /// The pod label that names the ReplicaSet: the revision that it was made for, `r7`, or `r7-2` where that name was
    /// taken.
    pub const SET: &str = "modelwright.dev/set";

    /// The revision that a ReplicaSet was made for, by the label of its pods.
    pub fn revision_of(set: &str) -> Option<u64> {
        set.strip_prefix('r')?.split('-').next()?.parse().ok()
    }

    pub fn new(assignments: Vec<Assignment>) -> Self {
        Self { format_version: FORMAT_VERSION, assignments, fetch_only: Vec::new() }
    }
}
