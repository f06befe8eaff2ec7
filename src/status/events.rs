//! Events: what changed between two statuses, for `kubectl describe`.

use crate::api::{ConditionType, ModelDeploymentStatus, Reason, StatusCondition};

pub(super) struct Note {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

pub(super) fn transitions(old: &ModelDeploymentStatus, new: &ModelDeploymentStatus) -> Vec<Note> {
    let mut notes = Vec::new();
    let degraded = condition(new, ConditionType::Degraded).filter(|c| c.status == "True");
    let was = condition(old, ConditionType::Degraded).filter(|c| c.status == "True");
    if let Some(fault) = degraded.filter(|c| was.is_none_or(|w| w.reason != c.reason)) {
        notes.push(Note { warning: true, reason: fault.reason.clone(), message: fault.message.clone() });
    }
    let is_late = |s| {
        condition(s, ConditionType::Progressing)
            .filter(|c| c.reason == Reason::ProgressDeadlineExceeded.as_str())
            .cloned()
    };
    if let (Some(late), None) = (is_late(new), is_late(old)) {
        notes.push(Note { warning: true, reason: late.reason, message: late.message });
    }
    if let (Some(from), Some(to)) = (&old.updated_revision, &new.updated_revision)
        && from != to
    {
        let message = format!("the spec is now {to}, before {from}");
        notes.push(Note { warning: false, reason: Reason::RolloutInProgress.as_str().into(), message });
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
