//! What a status says.

use modelwright::api::{ModelDeployment, StatusCondition};

/// The condition, if it speaks of the newest spec.
fn condition<'a>(deployment: &'a ModelDeployment, kind: &str) -> Option<&'a StatusCondition> {
    let condition = deployment.status.as_ref()?.conditions.iter().find(|c| c.type_ == kind)?;
    (condition.observed_generation == deployment.metadata.generation).then_some(condition)
}

/// `Ok` when the condition has this status and reason, and its message has all of these parts.
pub fn says(
    deployment: &ModelDeployment,
    kind: &str,
    status: &str,
    reason: &str,
    parts: &[&str],
) -> Result<(), String> {
    let Some(condition) = condition(deployment, kind) else {
        return Err(format!("{kind} does not speak of the newest spec"));
    };
    let fits = condition.status == status
        && condition.reason == reason
        && parts.iter().all(|part| condition.message.contains(part));
    if fits {
        return Ok(());
    }
    let StatusCondition { status: seen, reason: why, message, .. } = condition;
    Err(format!("{kind} is {seen}, {why}: {message}\n  instead of {status}, {reason}: {parts:?}"))
}
