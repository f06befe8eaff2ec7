//! A model that its clients would trip over gets no pod.

use super::children;
use super::report::Finding;
use crate::api::{Compatibility, Reason};
use crate::observe::{RevisionView, Snapshot};
use crate::onnx;

/// How `target` breaks what clients of the stable revision rely on, where that is not allowed. A revision that was
/// stable once is no surprise: the way back is always open.
pub(super) fn broken(snapshot: &Snapshot, target: &RevisionView) -> Option<Finding> {
    if snapshot.deployment.spec.model.compatibility == Some(Compatibility::AllowBreaking) {
        return None;
    }
    let record = &snapshot.family.route.as_ref()?.spec.rollout;
    let stable = record.stable?;
    let known = record.proven.iter().chain([&stable]).any(|number| *number == target.number as i64);
    if known {
        return None;
    }
    let stable = snapshot.family.revisions.iter().find(|r| r.number as i64 == stable)?;
    let (old, new) = (stable.data.as_ref()?, target.data.as_ref()?);
    let found = onnx::breaks(&old.resolved.graph, &new.resolved.graph);
    if found.is_empty() {
        return None;
    }
    let name = children::revision_name(snapshot, target.number);
    let message = format!(
        "{name} would break clients of {}: {}; set model.compatibility: AllowBreaking to roll it out all the same",
        stable.meta.name,
        found.join("; ")
    );
    Some(Finding::new(Reason::SignatureIncompatible, message).of(&name))
}
