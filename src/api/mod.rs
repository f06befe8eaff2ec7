//! The custom resource: types, validation rules, names of conditions and reasons. No behaviour.

mod reasons;
mod spec;
mod status;

pub use reasons::{Condition as ConditionType, Reason};
pub use spec::*;
pub use status::*;

/// API group, also the prefix of every label and annotation.
pub const GROUP: &str = "modelwright.dev";

/// Labels of everything a ModelDeployment owns.
pub mod labels {
    /// The ModelDeployment's name. Pods of every revision carry it: `status.selector`.
    pub const DEPLOYMENT: &str = "modelwright.dev/deployment";
    /// The revision as `r<N>`: with `DEPLOYMENT`, the selector of a ReplicaSet and of the Service.
    pub const SET: &str = "modelwright.dev/set";
    /// `serve` or `resolve`: what a pod is for.
    pub const ROLE: &str = "modelwright.dev/role";
}

/// Annotations that users or the operator write.
pub mod annotations {
    /// Verb on the ModelDeployment: a time. Resolves the source again; other bytes make a new revision.
    pub const RESOLVE_AT: &str = "modelwright.dev/resolve-at";
    /// On the Service: when traffic last moved from one revision to another.
    pub const MOVED_AT: &str = "modelwright.dev/moved-at";
    /// On the CRD: which schema this is. Only grows; an operator that finds a lower one says `CRDOutdated`.
    pub const SCHEMA_REVISION: &str = "modelwright.dev/schema-revision";
}

/// Raised by one with each change of the schema.
pub const SCHEMA_REVISION: u32 = 3;

#[cfg(test)]
mod tests;
