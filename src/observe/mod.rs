//! What the API server and the pods say of one ModelDeployment, read once and owned by the reconcile.

mod evidence;
mod gateway_objects;
mod gateways;
pub mod objects;
mod shelf;
mod views;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::ModelDeployment;
use crate::formats::PodState;
use crate::plan::scale::Decision;

pub use evidence::{Counts, Evidence, Measurement};
pub use gateway_objects::{GATEWAY_NAME, GatewayObject, GatewayRollout, GatewayShelves, gateway_labels};
pub use gateways::{GatewayView, Gateways};
pub use objects::Terminated;
pub use shelf::{Family, Key, Shelf, Shelves, View};
pub use views::*;

/// The input of `plan` and `status`: nothing in it changes while they work.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub deployment: Arc<ModelDeployment>,
    pub family: Family,
    /// By pod UID: what serving pods said of themselves. Absent: not heard yet.
    pub pod_states: HashMap<String, Arc<PodState>>,
    /// Who holds each extended resource that a pod of ours waits for: `namespace/name` to count.
    pub gpu_holders: BTreeMap<String, BTreeMap<String, i64>>,
    pub gateways: Gateways,
    /// With `spec.autoscaling`: how many pods there should be. None: nobody has decided yet.
    pub scaling: Option<Decision>,
    pub evidence: Evidence,
    pub settings: Arc<Settings>,
}

/// The operator's own settings that reach decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Of the loader.
    pub loader_image: String,
    /// Without a tag: `runtime.version` or `runtime_version` is added, and `-cuda` or `-tensorrt` for GPU providers.
    pub server_image: String,
    /// By flavour: what pins the image of `runtime_version`, in place of the tag.
    pub server_digests: BTreeMap<String, String>,
    /// Of the server in new revisions, by name: how it traces, say.
    pub server_environment: Vec<(String, String)>,
    pub runtime_version: String,
    /// Where loaders reach the node's cache; absent: there is none.
    pub node_cache: Option<String>,
    pub image_pull_policy: String,
    pub image_pull_secrets: Vec<String>,
    pub cluster_domain: String,
    /// The CRD in the cluster is older than this operator.
    pub crd_outdated: bool,
}

/// How the gateways of every namespace are to be.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewaySettings {
    pub image: String,
    pub replicas: i32,
    /// Requests and limits, as Kubernetes writes them.
    pub resources: serde_json::Value,
    /// After SIGTERM, a gateway finishes what it holds and forwards within this.
    pub grace_seconds: i64,
    pub image_pull_policy: String,
    pub image_pull_secrets: Vec<String>,
}

impl Snapshot {
    pub fn key(&self) -> Key {
        (self.namespace().into(), self.name().into())
    }

    pub fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.deployment.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.deployment.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The pods that resolve a source: ours without a ReplicaSet between.
    pub fn resolvers(&self) -> impl Iterator<Item = &PodView> {
        let pods = self.family.pods.iter().map(|pod| &**pod);
        pods.filter(|pod| pod.meta.owner_uid.as_deref() == Some(self.uid()))
    }

    /// What a serving pod said of `revision`.
    pub fn revision_state(&self, pod: &PodView, revision: &str) -> Option<&crate::formats::RevisionState> {
        self.pod_states.get(&pod.meta.uid)?.revisions.iter().find(|r| r.revision == revision)
    }
}

/// Seconds from `since` to `now`, never negative.
pub fn seconds_since(since: Timestamp, now: Timestamp) -> i64 {
    (now.as_second() - since.as_second()).max(0)
}

#[cfg(test)]
mod tests;
