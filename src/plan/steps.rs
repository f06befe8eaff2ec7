//! What the steps ask for: the candidate's share of the traffic, and its pods.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{CanaryStep, RolloutRecord};

/// The step that the candidate is at; none: all are behind it.
pub(super) fn current(record: &RolloutRecord) -> Option<&CanaryStep> {
    record.steps.get(usize::try_from(record.step).ok()?)
}

pub(super) fn passed(record: &RolloutRecord) -> &[CanaryStep] {
    let count = usize::try_from(record.step).unwrap_or(0).min(record.steps.len());
    &record.steps[..count]
}

/// Of 100, by the steps that are behind the candidate. None: it isn't to be reached yet, not by its version either.
pub(super) fn weight(record: &RolloutRecord) -> Option<i32> {
    passed(record).iter().rev().find_map(|step| step.set_weight)
}

/// The pods that the step needs, of `desired`.
pub(super) fn pods(record: &RolloutRecord, desired: i32) -> i32 {
    let Some(step) = current(record) else { return desired };
    // A lower weight is on its way while the pods still take the higher one.
    let weight = weight(record).unwrap_or(0).max(step.set_weight.unwrap_or(0));
    pods_by(record, passed(record).iter().chain([step]), weight, desired)
}

/// The pods without which the weight isn't raised: somebody may promote past steps that would have waited for them.
pub(super) fn pods_of_weight(record: &RolloutRecord, desired: i32) -> i32 {
    pods_by(record, passed(record).iter(), weight(record).unwrap_or(0), desired)
}

fn pods_by<'a>(
    record: &RolloutRecord,
    known: impl DoubleEndedIterator<Item = &'a CanaryStep>,
    weight: i32,
    desired: i32,
) -> i32 {
    // A pod runs one of two that can't live beside each other, and each has one at least.
    let most = if record.exclusive { (desired - 1).max(1) } else { i32::MAX };
    let share = |percent: i32| (desired * percent).div_euclid(100) + i32::from((desired * percent) % 100 > 0);
    if let Some(scale) = known.rev().find_map(|step| step.set_canary_scale.as_ref()) {
        return scale.replicas.unwrap_or_else(|| share(scale.percent.unwrap_or(100))).clamp(1, most);
    }
    share(weight).clamp(1, most)
}

/// When the pause is over. None: no pause, or one until somebody promotes.
pub fn pause_end(record: &RolloutRecord) -> Option<Timestamp> {
    let seconds = current(record)?.pause.as_ref()?.duration_seconds?;
    Some(record.step_started_at.as_ref()?.0 + SignedDuration::from_secs(seconds))
}

/// Pods beyond the wanted ones, and wanted ones that may be missing, in a rollout without steps. Not both nothing:
/// then no pod could be replaced.
pub(super) fn bounds(record: &RolloutRecord, desired: i32) -> (i32, i32) {
    let surge = record.max_surge.as_ref().map_or(desired, |amount| count(amount, desired, true));
    let missing = record.max_unavailable.as_ref().map_or(0, |amount| count(amount, desired, false));
    let missing = missing.min(desired);
    if surge == 0 && missing == 0 { (0, 1) } else { (surge, missing) }
}

fn count(amount: &IntOrString, desired: i32, up: bool) -> i32 {
    match amount {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let Some(percent) = text.strip_suffix('%') else { return text.parse().unwrap_or(0) };
            let hundredths = desired * percent.parse::<i32>().unwrap_or(0);
            hundredths / 100 + i32::from(up && hundredths % 100 > 0)
        }
    }
}
