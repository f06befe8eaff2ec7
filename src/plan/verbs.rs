//! The verbs: annotations whose value names one attempt, so that a stale one never fires again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::strategy::{self, candidate, stable};
use super::trial;
use super::world::World;
use crate::api::{Aborted, ModelRouteSpec, Reason, annotations};

const VERBS: [(&str, &str); 3] =
    [("abort", annotations::ABORT), ("retry", annotations::RETRY), ("promote", annotations::PROMOTE)];
/// A value is the user's: what is kept of it is bounded.
const LONGEST: usize = 100;

fn said<'a>(world: &World<'a>) -> impl Iterator<Item = (&'static str, &'a str)> {
    let written = world.snapshot.deployment.metadata.annotations.as_ref();
    VERBS.iter().filter_map(move |(verb, key)| {
        let value = written?.get(*key)?.as_str();
        (!value.is_empty() && value.len() <= LONGEST).then_some((*verb, value))
    })
}

/// What verbs name: `<revision>.<attempt>`.
pub(super) fn attempt(world: &World, next: &ModelRouteSpec) -> Option<String> {
    let record = &next.rollout;
    Some(format!("{}-r{}.{}", world.snapshot.name(), record.candidate?, record.attempt))
}

pub(super) fn obey(world: &World, next: &mut ModelRouteSpec) {
    for (verb, value) in said(world) {
        let Some(id) = attempt(world, next) else { return };
        let Some(rest) = value.strip_prefix(&id) else { continue };
        let done = match (verb, rest) {
            ("abort", "") => !world.returns && give_up(world, next, Reason::Aborted, "somebody aborted it"),
            ("retry", "") if next.rollout.aborted.is_some() => {
                let number = next.rollout.candidate.and_then(|number| u64::try_from(number).ok());
                number.map(|number| strategy::begin(world, number, next)).is_some()
            }
            ("promote", "/full") => promote(world, next, None),
            ("promote", step) => {
                let step = step.strip_prefix('/').and_then(|step| step.parse().ok());
                step.is_some_and(|step| promote(world, next, Some(step)))
            }
            _ => false,
        };
        if done {
            let obeyed = &mut next.rollout.obeyed;
            obeyed.retain(|former| !former.starts_with(&format!("{verb}=")));
            obeyed.push(format!("{verb}={value}"));
        }
    }
}

/// Somebody wants the traffic back where it was.
pub(super) fn is_abort_said(world: &World, route: &ModelRouteSpec) -> bool {
    let id = attempt(world, route);
    said(world).any(|(verb, value)| verb == "abort" && Some(value) == id.as_deref())
}

fn promote(world: &World, next: &mut ModelRouteSpec, step: Option<i32>) -> bool {
    let record = &mut next.rollout;
    let count = record.steps.len() as i32;
    // Past all steps, an analysis may hold what is left.
    let left = record.step < count || (step.is_none() && record.analysis.is_some());
    let here = candidate(record).is_some() && left;
    if !here || step.is_some_and(|step| step != record.step) {
        return false;
    }
    trial::keep(world, record);
    record.step = step.map_or(count, |step| step + 1);
    if step.is_none() {
        record.analysis = None;
    }
    record.step_started_at = Some(Time(world.now));
    record.passed_at = None;
    true
}

/// Traffic back to the stable revision. False: there is none, or it has it.
pub(super) fn give_up(world: &World, next: &mut ModelRouteSpec, reason: Reason, why: &str) -> bool {
    let record = &mut next.rollout;
    let Some(stable) = stable(record).filter(|_| candidate(record).is_some()) else { return false };
    record.aborted = Some(Aborted {
        at: Time(world.now),
        reason: reason.as_str().into(),
        message: why.into(),
        analysis: trial::judge(world, record),
    });
    next.backends = strategy::only(stable);
    true
}

/// The verb that was obeyed last, or is not.
pub(super) fn last(world: &World, next: &ModelRouteSpec) -> Option<String> {
    let obeyed = &next.rollout.obeyed;
    let ignored = said(world).find(|(verb, value)| !obeyed.contains(&format!("{verb}={value}")));
    let Some((verb, value)) = ignored else { return obeyed.last().cloned() };
    let why = match attempt(world, next) {
        None => "there is no rollout".to_string(),
        Some(id) if next.rollout.aborted.is_some() => format!("{id} was aborted"),
        Some(id) if verb == "promote" => format!("the rollout is {id}, at step index {}", next.rollout.step),
        Some(id) => format!("the rollout is {id}"),
    };
    Some(format!("{verb}={value} is ignored: {why}"))
}
