//! The custom resource: types, validation rules, names of conditions and reasons. No behaviour.

mod analysis;
mod autoscaling;
mod reasons;
mod route;
mod spec;
mod status;
mod strategy;
mod traffic;

pub use analysis::*;
pub use autoscaling::*;
pub use reasons::{Condition as ConditionType, Reason};
pub use route::*;
pub use spec::*;
pub use status::*;
pub use strategy::*;
pub use traffic::*;

/// API group, also the prefix of every label and annotation.
pub const GROUP: &str = "modelwright.dev";

/// Labels of everything a ModelDeployment owns.
pub mod labels {
    /// The ModelDeployment's name. Pods of every revision carry it.
    pub const DEPLOYMENT: &str = "modelwright.dev/deployment";
    /// The revision that a ReplicaSet was made for, `r<N>`: with `DEPLOYMENT`, its selector.
    pub const SET: &str = crate::formats::Assignments::SET;
    /// On pods: the revisions that have been proven, where an in-place swap has assigned any.
    pub const SERVES: &str = crate::formats::Assignments::SERVES;
    /// `serve` or `resolve`: what a pod is for. With `DEPLOYMENT`: `status.selector`.
    pub const ROLE: &str = "modelwright.dev/role";
    /// `gateway`: on the gateways of a namespace, which every ModelDeployment's Service selects.
    pub const COMPONENT: &str = "modelwright.dev/component";
    pub const GATEWAY: &str = "gateway";
}

/// Annotations that users or the operator write.
pub mod annotations {
    /// Verb on the ModelDeployment: a time. Resolves the source again; other bytes make a new revision.
    pub const RESOLVE_AT: &str = "modelwright.dev/resolve-at";
    /// Verb on the ModelDeployment: a time. Rolls the same spec out as a new revision.
    pub const RESTARTED_AT: &str = "modelwright.dev/restarted-at";
    /// Verbs on the ModelDeployment that name an attempt, `status.rollout.id`: `NAME-r8.2/4` goes past step index 4,
    /// `NAME-r8.2/full` past all of them.
    pub const PROMOTE: &str = "modelwright.dev/promote";
    /// Traffic back to the stable revision, until the spec changes or a retry.
    pub const ABORT: &str = "modelwright.dev/abort";
    pub const RETRY: &str = "modelwright.dev/retry";
    /// On a ControllerRevision: what was measured of its pods, JSON.
    pub const MEASURED: &str = "modelwright.dev/measured";
    /// On the objects of a namespace's gateways: a hash of what the operator has written into them.
    pub const APPLIED: &str = "modelwright.dev/applied";
    /// On the CRD: which schema this is. Only grows; an operator that finds a lower one says `CRDOutdated`.
    pub const SCHEMA_REVISION: &str = "modelwright.dev/schema-revision";
}

/// Raised by one with each change of the schema.
pub const SCHEMA_REVISION: u32 = 6;

#[cfg(test)]
mod tests;
