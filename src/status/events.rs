//! Events: what changed between two statuses, for `kubectl describe`.

use crate::api::{ConditionType, ModelDeploymentStatus, Reason, StatusCondition};

pub(super) struct Note {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

pub(super) fn transitions(old: &ModelDeploymentStatus, new: &ModelDeploymentStatus) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    let degraded = condition(new, ConditionType::Degraded).filter(|c| c.status == "True");
    let was = condition(old, ConditionType::Degraded).filter(|c| c.status == "True");
    if let Some(fault) = degraded.filter(|c| was.is_none_or(|w| w.reason != c.reason)) {
        notes.push(Note { warning: true, reason: fault.reason.clone(), message: fault.message.clone() });
    }
    let halted = |s| condition(s, ConditionType::Progressing).filter(|c| c.status == "False").cloned();
    if let Some(now) = halted(new)
        && halted(old).is_none_or(|former| former.reason != now.reason)
        && notes.iter().all(|note| note.reason != now.reason)
    {
        notes.push(Note { warning: true, reason: now.reason, message: now.message });
    }
    // From the revision that serves: `updated_revision` is unknown while a source is resolved.
    if let (Some(from), Some(to)) = (&new.stable_revision, &new.updated_revision)
        && from != to
        && old.updated_revision.as_ref() != Some(to)
    {
        let is_known = old.revisions.iter().any(|r| r.name == *to);
        let reason = if is_known { Reason::RolloutInProgress } else { Reason::RevisionCreated };
        let message = format!("rolling out {to}; {from} serves until it is ready");
        notes.push(Note { warning: false, reason: reason.as_str().into(), message });
    }
    if let (Some(before), Some(after)) = (&old.autoscaling, &new.autoscaling)
        && before.desired_replicas != after.desired_replicas
    {
        let message = condition(new, ConditionType::ScalingActive).map(|c| c.message.clone());
        notes.push(Note {
            warning: false,
            reason: Reason::Rescaled.as_str().into(),
            message: message.unwrap_or_default(),
        });
    }
    let complete = |s| {
        condition(s, ConditionType::Progressing).is_some_and(|c| c.reason == Reason::RolloutComplete.as_str())
    };
    if complete(new) && (!complete(old) || old.stable_revision != new.stable_revision) {
        let message = condition(new, ConditionType::Progressing).map(|c| c.message.clone());
        notes.push(Note {
            warning: false,
            reason: Reason::RolloutComplete.as_str().into(),
            message: message.unwrap_or_default(),
        });
    }
    notes
}

pub(super) fn condition(status: &ModelDeploymentStatus, kind: ConditionType) -> Option<&StatusCondition> {
    status.conditions.iter().find(|c| c.type_ == kind.as_str())
}
