//! How many pods the stable revision and the candidate should have.

use jiff::{SignedDuration, Timestamp};

use super::inplace::is_in_place;
use super::rollout::pods_of;
use super::steps;
use super::strategy::{candidate, is_recreated, stable};
use super::swap::is_exclusive;
use super::world::World;
use crate::api::{Replacement, RolloutRecord};

/// No node took a pod beside the old ones.
pub(super) const NO_ROOM: &str = "SurgeUnschedulable";
/// Two models found too little memory in one pod.
pub(super) const NO_MEMORY: &str = "NoMemoryBeside";

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sizes {
    pub stable: i32,
    pub candidate: i32,
}

pub(super) fn sizes(world: &World, record: &RolloutRecord) -> Sizes {
    let now = |number: Option<u64>| number.and_then(|n| world.set(n)).map_or(0, |set| set.replicas);
    let (old, new) = (stable(record), candidate(record));
    let current = Sizes { stable: now(old), candidate: now(new) };
    let desired = world.desired;
    if desired == 0 {
        return if world.is_held() { Sizes::default() } else { current };
    }
    let (Some(old), Some(new)) = (old, new) else {
        return Sizes { stable: desired, candidate: desired };
    };
    let is_last = steps::current(record).is_none();
    if is_in_place(record) {
        return Sizes { stable: desired, candidate: 0 };
    }
    if is_recreated(record) {
        return recreated(world, old, new, is_last, current);
    }
    if world.returns {
        return returning(world, record, old, current);
    }
    if world.is_paused() {
        let stable = if is_rolling(world, record) { current.stable } else { desired };
        return Sizes { stable, candidate: current.candidate };
    }
    if !is_rolling(world, record) {
        return Sizes { stable: desired, candidate: steps::pods(record, desired) };
    }
    let (surge, _) = steps::bounds(record, desired);
    // Only pods that all gateways know relieve the old ones.
    let known = world.routed_weight(new) > 0;
    let relief = if known { world.available(new) } else { 0 };
    let mut stable = (floor(world, record) - relief).clamp(1, desired);
    if known && !world.acknowledged {
        stable = stable.max(current.stable.min(desired));
    }
    let beside = desired + surge - stable.max(current.stable);
    if is_squeezed(record) {
        // As many as the old ones leave places for; one that has found another keeps it.
        let placed = pods_of(world.snapshot, new).filter(|pod| pod.unschedulable.is_none()).count() as i32;
        let places = desired - stable.max(current.stable);
        return Sizes { stable, candidate: places.max(placed.min(current.candidate)).clamp(1, desired) };
    }
    Sizes { stable, candidate: beside.clamp(0, desired) }
}

/// The stable revision gets the pods back that it gave up; until then the candidate's answer.
fn returning(world: &World, record: &RolloutRecord, old: u64, current: Sizes) -> Sizes {
    let desired = world.desired;
    let (surge, _) = steps::bounds(record, desired);
    let enough = (floor(world, record) - world.available(old)).clamp(1, current.candidate.max(1));
    let surge = if is_squeezed(record) { 0 } else { surge };
    let room = desired + surge - current.candidate;
    Sizes {
        stable: room.clamp(current.stable.min(desired), desired),
        candidate: if world.acknowledged { enough } else { current.candidate },
    }
}

/// Old pods first, then new ones, while the gateways hold the requests.
fn recreated(world: &World, old: u64, new: u64, is_last: bool, current: Sizes) -> Sizes {
    let desired = world.desired;
    // Old pods that are gone stay so: a new spec's route is not acknowledged yet, and their place is the new ones'.
    let begun = is_last && (current.stable == 0 || world.is_held() && !world.is_paused());
    if begun {
        let gone = current.stable == 0 && is_gone(world, old);
        return Sizes { stable: 0, candidate: if gone { desired } else { 0 } };
    }
    let idle = world.is_unrouted(new) || current.candidate == 0;
    Sizes { stable: desired, candidate: if idle { 0 } else { current.candidate } }
}

fn is_gone(world: &World, number: u64) -> bool {
    world.set(number).is_none_or(|set| set.observed && set.live == 0)
        && !world.snapshot.family.pods.iter().any(|pod| pod.holds(number))
}

/// Old pods go as new ones come: there is a bound to the surge, or no room for all of it.
pub(super) fn is_rolling(world: &World, record: &RolloutRecord) -> bool {
    if steps::current(record).is_some() || is_in_place(record) {
        return false;
    }
    let (surge, missing) = steps::bounds(record, world.desired);
    let bounded = record.steps.is_empty() && (surge < world.desired || missing > 0);
    is_squeezed(record) || bounded
}

/// A pod found no room beside the old ones, so that one of those goes first.
pub(super) fn is_squeezed(record: &RolloutRecord) -> bool {
    let reason = record.replacement_reason.as_deref();
    record.replacement == Replacement::Surge && reason == Some(NO_ROOM)
}

/// Scaled to one pod meanwhile, which can't go first while it answers. A place that comes free in this moment is not
/// waited for: nothing tells how long ago the scheduler looked.
pub(super) fn is_stuck(world: &World, record: &RolloutRecord, new: u64) -> bool {
    let mut pods = pods_of(world.snapshot, new);
    is_squeezed(record) && world.desired == 1 && pods.all(|pod| pod.unschedulable.is_some())
}

/// Pods that must answer at least.
pub(super) fn floor(world: &World, record: &RolloutRecord) -> i32 {
    let (_, missing) = steps::bounds(record, world.desired);
    let missing = if record.steps.is_empty() { missing } else { 0 };
    // One of the old ones has to go for each new one.
    let missing = if is_squeezed(record) || is_exclusive(record) { missing.max(1) } else { missing };
    world.desired - missing
}

/// Since when a pod of the candidate finds no room.
pub(super) fn without_room_since(world: &World, number: u64) -> Option<Timestamp> {
    if world.is_guest(number) {
        return None;
    }
    let pods = pods_of(world.snapshot, number).filter(|pod| pod.unschedulable.is_some());
    let refused = world.set(number).filter(|set| set.failure.is_some() && set.live < set.replicas);
    pods.map(|pod| pod.meta.created).chain(refused.map(|set| set.meta.created)).min()
}

/// When old pods make room.
pub(super) fn surge_ends(world: &World, number: u64) -> Option<Timestamp> {
    let timeout = world.strategy().and_then(|s| s.surge_timeout_seconds).unwrap_or(120);
    without_room_since(world, number).map(|since| since + SignedDuration::from_secs(timeout.into()))
}
