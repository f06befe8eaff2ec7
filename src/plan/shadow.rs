//! A step that mirrors requests: from when on, and for how long.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::steps;
use super::strategy::{candidate, is_recreated, stable};
use super::world::World;
use crate::api::{ModelRouteSpec, RolloutRecord, RouteShadow};

/// The mirror of the step that the candidate is at, as far as the route has it.
pub(super) fn current<'a>(world: &World<'a>, record: &RolloutRecord) -> Option<&'a RouteShadow> {
    of_step(world.route?.spec.shadow.as_ref(), record)
}

fn of_step<'a>(shadow: Option<&'a RouteShadow>, record: &RolloutRecord) -> Option<&'a RouteShadow> {
    steps::current(record)?.shadow.as_ref()?;
    let begun = record.step_started_at.as_ref()?;
    // Another step, also of the same attempt, has its own time.
    let same = |shadow: &&RouteShadow| {
        (Some(shadow.revision), shadow.attempt) == (record.candidate, record.attempt)
            && shadow.since.0 >= begun.0
            && record.aborted.is_none()
    };
    shadow.filter(same)
}

/// What the route is to say: nothing until the candidate's pods are ready.
pub(super) fn next(world: &World, record: &RolloutRecord) -> Option<RouteShadow> {
    let step = steps::current(record)?.shadow.as_ref()?;
    stable(record)?;
    let new = candidate(record)?;
    if is_recreated(record) || world.desired == 0 || world.returns {
        return None;
    }
    let begun = current(world, record).map(|shadow| shadow.since.clone());
    let begins = !world.is_paused() && world.is_full(new, steps::pods(record, world.desired));
    let since = begun.or(begins.then_some(Time(world.now)))?;
    Some(RouteShadow { revision: record.candidate?, attempt: record.attempt, percent: step.percent, since })
}

/// When the step is over, if nothing else holds it. None: nothing is mirrored yet.
pub(super) fn end(world: &World, record: &RolloutRecord) -> Option<Timestamp> {
    ends(current(world, record)?, record)
}

/// The same, of the route as it stands.
pub fn shadow_end(route: &ModelRouteSpec) -> Option<Timestamp> {
    ends(of_step(route.shadow.as_ref(), &route.rollout)?, &route.rollout)
}

fn ends(shadow: &RouteShadow, record: &RolloutRecord) -> Option<Timestamp> {
    let seconds = steps::current(record)?.shadow.as_ref()?.duration_seconds;
    Some(shadow.since.0 + SignedDuration::from_secs(seconds))
}
