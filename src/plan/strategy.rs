//! The next state of the route. Weights and the rollout's record are one object, so they change in one write, and a
//! crash between two writes finds a state that somebody decided.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::world::{World, is};
use super::{autoscale, inplace, route, shadow, sizes, steps, swap, trial, verbs};
use crate::api::{
    Backend, CanaryStep, ModelRouteSpec, Previous, Reason, Replacement, RolloutRecord, RouteMode, Tried,
};

/// Revisions whose number of attempts is remembered.
const REMEMBERED: usize = 128;
/// Of what the record says of a failure.
const LONGEST: usize = 800;

pub(super) fn stable(record: &RolloutRecord) -> Option<u64> {
    record.stable.and_then(|number| number.try_into().ok())
}

/// The revision that is being rolled out, unless it was given up.
pub(super) fn candidate(record: &RolloutRecord) -> Option<u64> {
    let candidate = record.candidate.filter(|_| record.aborted.is_none());
    candidate.and_then(|number| number.try_into().ok())
}

/// None: there is no revision to send anything to.
pub(super) fn next(world: &World) -> Option<ModelRouteSpec> {
    let target = world.target.map(|target| target.number);
    let mut next = match world.route {
        Some(route) => route.spec.clone(),
        None => first(world, target)?,
    };
    next.limits = route::limits(&world.snapshot.deployment.spec, autoscale::patience(world.snapshot));
    let waits = world.returns || inplace::hands_over(world, &next.rollout);
    if let Some(target) = target.filter(|_| !waits) {
        aim(world, target, &mut next);
    }
    verbs::obey(world, &mut next);
    keep_time(world, &mut next.rollout);
    if world.desired > 0 {
        advance(world, &mut next);
    }
    next.shadow = shadow::next(world, &next.rollout);
    next.drained = swap::drained(world, &next);
    next.mode = mode(world, &next);
    Some(next)
}

/// A step's time does not run while the rollout is frozen or there are to be no pods: it begins anew after that.
fn keep_time(world: &World, record: &mut RolloutRecord) {
    if candidate(record).is_none() || shadow::current(world, record).is_some() {
        return;
    }
    if world.desired == 0 || world.is_paused() {
        record.step_started_at = None;
    } else {
        record.step_started_at.get_or_insert(Time(world.now));
    }
}

/// A route where there is none: for the revision that serves, if an older operator, or somebody who deleted the route,
/// left one; else for the first revision, whose requests wait until a pod is ready.
fn first(world: &World, target: Option<u64>) -> Option<ModelRouteSpec> {
    let family = &world.snapshot.family;
    let direct = family.service.as_ref().and_then(|service| service.number);
    let ready = family.replica_sets.iter().filter(|set| set.available > 0 && !set.meta.deleting);
    let serving =
        direct.or_else(|| ready.max_by_key(|s| (s.available, Some(s.number) == target)).map(|s| s.number));
    let mut route = ModelRouteSpec { mode: RouteMode::Forward, ..Default::default() };
    if let Some(number) = serving {
        settle(number, &mut route.rollout);
    }
    let number = serving.or(target)?;
    route.backends = only(number);
    Some(route)
}

pub(super) fn only(number: u64) -> Vec<Backend> {
    vec![Backend { revision: number as i64, weight: 100 }]
}

/// What the rollout leads to: the revision of the newest spec.
fn aim(world: &World, target: u64, next: &mut ModelRouteSpec) {
    let record = &mut next.rollout;
    if record.stable == Some(target as i64) {
        if record.candidate.take().is_some() {
            end(record);
            next.backends = only(target);
        }
        return;
    }
    if record.candidate == Some(target as i64) {
        return;
    }
    // One that never was complete, but answers: it goes on answering until the new one can.
    if record.stable.is_none() && candidate(record).is_some_and(|number| world.answers(number)) {
        record.stable = record.candidate;
    }
    begin(world, target, next);
}

/// From the stable revision, whatever the state was: the former candidate has no traffic from here on.
pub(super) fn begin(world: &World, target: u64, next: &mut ModelRouteSpec) {
    let record = &mut next.rollout;
    record.candidate = Some(target as i64);
    record.attempt = count_attempt(&mut record.tried, target as i64);
    record.step = 0;
    record.step_started_at = Some(Time(world.now));
    record.passed_at = None;
    record.started_at = Some(Time(world.now));
    record.aborted = None;
    let strategy = world.strategy();
    let asked = strategy.and_then(|s| s.replacement);
    record.replacement_reason = None;
    record.exclusive = false;
    record.max_surge = strategy.and_then(|s| s.max_surge.clone());
    record.max_unavailable = strategy.and_then(|s| s.max_unavailable.clone());
    record.replacement = match asked {
        Some(Replacement::Recreate) => Replacement::Recreate,
        _ => Replacement::Surge,
    };
    // The first has nothing to be compared with; one that was stable is known.
    let known = record.stable.is_none() || record.proven.contains(&(target as i64));
    let canary = strategy.and_then(|s| s.canary.as_ref()).filter(|_| !known);
    record.steps = canary.map(|canary| canary.steps.clone()).unwrap_or_default();
    record.compared = Vec::new();
    record.analysis = canary.and_then(|canary| canary.analysis.clone());
    // One whose pods still run needs no room.
    let inside = asked == Some(Replacement::InPlace) && world.made_for(target).is_none();
    if let Some(old) = stable(record).filter(|_| inside)
        && let Err(obstacle) = inplace::enter(world, old, target, record)
    {
        record.replacement_reason = Some(obstacle.into());
    }
    next.backends = only(stable(record).unwrap_or(target));
}

fn count_attempt(tried: &mut Vec<Tried>, revision: i64) -> i64 {
    if let Some(entry) = tried.iter_mut().find(|t| t.revision == revision) {
        entry.attempts += 1;
        return entry.attempts;
    }
    tried.push(Tried { revision, attempts: 1 });
    let surplus = tried.len().saturating_sub(REMEMBERED);
    tried.drain(..surplus);
    1
}

/// Should the candidate lose its traffic, and would too few pods be left now?
pub(super) fn returns(world: &World, route: &ModelRouteSpec) -> bool {
    let record = &route.rollout;
    let (Some(old), Some(new)) = (stable(record), candidate(record)) else { return false };
    let wanted = world.target.is_some_and(|target| target.number != new)
        || verbs::is_abort_said(world, route)
        || is_late(world, record)
        || trial::has_failed(world, record);
    // Beside each other in the pods, or with a step to go, the stable revision is at full size.
    let whole = inplace::is_in_place(record) || steps::current(record).is_some();
    if !wanted
        || whole && !swap::is_exclusive(record)
        || is_recreated(record)
        || world.routed_weight(new) == 0
    {
        return false;
    }
    let (kept, lost) = (world.available(old), world.available(new));
    kept < sizes::floor(world, record).min(kept + lost)
}

fn advance(world: &World, next: &mut ModelRouteSpec) {
    let Some(new) = candidate(&next.rollout) else { return };
    let Some(old) = stable(&next.rollout) else {
        if world.is_full(new, world.desired) {
            settle(new, &mut next.rollout);
        }
        return;
    };
    if world.returns {
        share(world, old, new, next);
        return;
    }
    if let Some(fault) = swap::failed(world, &next.rollout) {
        let why: String = fault.message.chars().take(LONGEST).collect();
        verbs::give_up(world, next, fault.reason, &why);
        return;
    }
    if trial::has_failed(world, &next.rollout) {
        let why = trial::judge(world, &next.rollout).map(|found| trial::why(&found)).unwrap_or_default();
        verbs::give_up(world, next, Reason::AnalysisFailed, &why);
        return;
    }
    if !world.is_paused() {
        let before = next.rollout.replacement;
        inplace::find_room(world, old, new, &mut next.rollout);
        if next.rollout.replacement != before {
            return;
        }
        take_steps(world, new, &mut next.rollout);
    }
    if is_late(world, &next.rollout) {
        verbs::give_up(
            world,
            next,
            Reason::ProgressDeadlineExceeded,
            "it took longer than progressDeadlineSeconds",
        );
        return;
    }
    if !world.is_paused() && steps::current(&next.rollout).is_none() && !trial::holds(world, &next.rollout) {
        make_room(world, old, new, &mut next.rollout);
        if may_take_over(world, old, new, &next.rollout) {
            next.rollout.previous = Some(Previous { revision: old as i64, moved_at: Time(world.now) });
            next.backends = only(new);
            settle(new, &mut next.rollout);
            return;
        }
    }
    share(world, old, new, next);
}

/// Past every step that is done. A weight needs its pods, and that all gateways know the weight before it.
fn take_steps(world: &World, new: u64, record: &mut RolloutRecord) {
    while !trial::holds(world, record) {
        trial::pass(world, record);
        let Some(step) = steps::current(record) else { return };
        let weighs = step.set_weight.is_some();
        if !is_done(world, new, record, step) {
            return;
        }
        trial::keep(world, record);
        record.step += 1;
        record.step_started_at = Some(Time(world.now));
        record.passed_at = None;
        if weighs {
            return;
        }
    }
}

fn is_done(world: &World, new: u64, record: &RolloutRecord, step: &CanaryStep) -> bool {
    if step.pause.is_some() {
        return steps::pause_end(record).is_some_and(|end| world.now >= end);
    }
    // Without a pod beside the old ones, there is nothing to wait for.
    if step.shadow.is_some() && !is_recreated(record) {
        return shadow::end(world, record).is_some_and(|end| world.now >= end);
    }
    let pods = is_recreated(record) || world.is_full(new, steps::pods(record, world.desired));
    pods && (step.set_weight.is_none() || world.may_move())
}

/// Nothing but the analysis keeps the candidate from more.
pub(super) fn waits_for_analysis(world: &World, record: &RolloutRecord) -> bool {
    let Some(new) = candidate(record) else { return false };
    steps::current(record).is_none_or(|step| is_done(world, new, record, step)) && trial::holds(world, record)
}

/// Where new pods find no room beside the old ones, those go first.
fn make_room(world: &World, old: u64, new: u64, record: &mut RolloutRecord) {
    let stuck = sizes::is_stuck(world, record, new);
    if is_recreated(record) || inplace::is_in_place(record) || sizes::is_squeezed(record) && !stuck {
        return;
    }
    let allowed = world.strategy().and_then(|s| s.replacement) != Some(Replacement::Surge);
    let late = sizes::surge_ends(world, new).is_some_and(|end| world.now >= end);
    // Old pods that answer nobody only hold the place.
    let idle = !world.answers(old) && sizes::without_room_since(world, new).is_some();
    let (surge, _) = steps::bounds(record, world.desired);
    if allowed && (late || idle) {
        let one_by_one = world.desired > 1 && !idle;
        record.replacement = if one_by_one { Replacement::Surge } else { Replacement::Recreate };
        record.replacement_reason = Some(sizes::NO_ROOM.into());
    } else if surge == 0 && world.desired == 1 && record.steps.is_empty() {
        record.replacement = Replacement::Recreate;
        record.replacement_reason = Some("NoSurgeAllowed".into());
    }
}

fn may_take_over(world: &World, old: u64, new: u64, record: &RolloutRecord) -> bool {
    let ready = world.available(new);
    let full = world.is_full(new, world.desired);
    // Nobody loses anything when nothing answers now.
    let nothing_to_lose = !world.answers(old) && ready > 0 && !swap::is_changing(world, record);
    // The last old pod holds the place of the last new one.
    let last = sizes::is_rolling(world, record)
        && world.set(old).is_some_and(|set| set.replicas <= 1)
        && ready >= sizes::floor(world, record).min(world.desired - 1).max(1)
        && (sizes::is_squeezed(record) || sizes::sizes(world, record).candidate <= ready);
    (full || nothing_to_lose || last) && world.may_move()
}

/// The traffic's shares: more for the candidate only when its pods are ready, and all gateways know the share before.
fn share(world: &World, old: u64, new: u64, next: &mut ModelRouteSpec) {
    let record = &next.rollout;
    let ready = world.available(new);
    let listed = next.backends.iter().any(|b| is(b, new));
    let current: i32 = next.backends.iter().filter(|b| is(b, new)).map(|b| b.weight).sum();
    let mut wanted = if is_recreated(record) { None } else { steps::weight(record) };
    if ready < steps::pods_of_weight(record, world.desired) {
        wanted = wanted.map(|weight| weight.min(current));
    }
    let pod_by_pod = swap::is_exclusive(record) && steps::current(record).is_none();
    let rolls = world.returns || pod_by_pod || sizes::is_rolling(world, record);
    if !is_recreated(record) && rolls && ready > 0 {
        let by_pods = (100 * ready / (ready + world.available(old)).max(1)).clamp(1, 99);
        let by_pods = if world.is_paused() { by_pods.min(current) } else { by_pods };
        wanted = Some(by_pods.max(wanted.unwrap_or(0)));
    }
    let Some(wanted) = wanted.or((listed && !is_recreated(record)).then_some(0)) else {
        next.backends = only(old);
        return;
    };
    let reachable = if ready > 0 { wanted } else { 0 };
    let more = reachable > current || !listed;
    if more && !(world.may_move() && ready > 0) {
        return;
    }
    next.backends = vec![
        Backend { revision: old as i64, weight: 100 - reachable },
        Backend { revision: new as i64, weight: reachable },
    ];
}

pub(super) fn is_recreated(record: &RolloutRecord) -> bool {
    record.replacement == Replacement::Recreate
}

/// When the rollout has taken too long. A pause is nobody's fault, nor is a freeze, what a mirror takes, or a lack of
/// requests to judge by.
pub(super) fn deadline(world: &World, record: &RolloutRecord) -> Option<Timestamp> {
    let waits = steps::current(record).is_some_and(|step| step.pause.is_some())
        || shadow::current(world, record).is_some()
        || trial::holds(world, record);
    if waits || world.desired == 0 || candidate(record).is_none() || world.is_paused() {
        return None;
    }
    let limit = world.snapshot.deployment.spec.progress_deadline_seconds.unwrap_or(1800);
    let started = record.step_started_at.as_ref()?.0;
    let started = record.passed_at.as_ref().map_or(started, |passed| passed.0.max(started));
    Some(started + SignedDuration::from_secs(limit.into()))
}

fn is_late(world: &World, record: &RolloutRecord) -> bool {
    world.snapshot.deployment.spec.progress_deadline_abort == Some(true)
        && deadline(world, record).is_some_and(|end| world.now >= end)
}

/// The candidate is the stable revision.
fn settle(number: u64, record: &mut RolloutRecord) {
    let number = number as i64;
    record.stable = Some(number);
    end(record);
    if !record.proven.contains(&number) {
        record.proven.push(number);
        let surplus = record.proven.len().saturating_sub(REMEMBERED);
        record.proven.drain(..surplus);
    }
}

/// The rollout is over, and status tells of none. `replacement` and its reason stay: the former revision's pods go by
/// them.
fn end(record: &mut RolloutRecord) {
    record.candidate = None;
    record.aborted = None;
    record.step = 0;
    record.step_started_at = None;
    record.passed_at = None;
    record.started_at = None;
    record.steps = Vec::new();
    record.analysis = None;
    record.compared = Vec::new();
}

fn mode(world: &World, next: &ModelRouteSpec) -> RouteMode {
    if world.is_suspended() {
        return RouteMode::Refuse;
    }
    let old_pods_go = is_recreated(&next.rollout)
        && candidate(&next.rollout).is_some()
        && stable(&next.rollout).is_some()
        && steps::current(&next.rollout).is_none()
        && (!world.is_paused() || next.mode == RouteMode::Hold);
    // Without a ready pod the gateways hold by themselves, and let go without another word from here.
    if world.desired == 0 || old_pods_go || swap::holds(world, next) {
        RouteMode::Hold
    } else {
        RouteMode::Forward
    }
}
