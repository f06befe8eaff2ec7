//! Says what the rollout does, or what it waits for.

use jiff::Timestamp;

use super::report::Finding;
use super::strategy::{self, candidate, stable};
use super::world::World;
use super::{Plan, autoscale, children, faults, inplace, shadow, sizes, steps, swap, trial, verbs};
use crate::api::{AnalysisVerdict, ModelRouteSpec, Reason, RolloutRecord, annotations};
use crate::formats::RevisionPhase;
use crate::observe::{PodPhase, ReplicaSetView, RevisionView};

pub(super) fn without_target(plan: &mut Plan) {
    let waits = plan.report.resolution.clone();
    let message = waits.map(|f| f.message).unwrap_or_else(|| "the source is being resolved".into());
    say(plan, Reason::Resolving, message);
}

pub(super) fn report(world: &World, next: &ModelRouteSpec, target: Option<&RevisionView>, plan: &mut Plan) {
    plan.report.verb = verbs::last(world, next);
    plan.report.analysis = match &next.rollout.aborted {
        Some(aborted) => aborted.analysis.clone(),
        None => trial::judge(world, &next.rollout),
    };
    let Some(target) = target else {
        without_target(plan);
        return;
    };
    let record = &next.rollout;
    let changing = world.route.is_none_or(|route| route.spec != *next);
    if world.desired == 0 {
        at_zero(world, record, target, changing, plan);
        return;
    }
    if let Some(aborted) = &record.aborted {
        let id = verbs::attempt(world, next).unwrap_or_default();
        let message = format!(
            "{id} was given up: {}; annotate {}={id} to try again",
            aborted.message,
            annotations::RETRY
        );
        let asked = [Reason::Aborted, Reason::ProgressDeadlineExceeded];
        if let Some(reason) = Reason::parse(&aborted.reason).filter(|reason| !asked.contains(reason)) {
            plan.report.blame(Finding::new(reason, message.clone()).of(&target.meta.name));
        }
        plan.report.halted = Some(Finding::new(Reason::Aborted, message));
        return;
    }
    let name = &target.meta.name;
    let desired = world.desired;
    let Some(set) = world.set(target.number) else {
        let message = format!("0 of {desired} replicas of {name} are ready");
        let (reason, message) =
            step(world, next, target, changing, plan).unwrap_or((Reason::CreatingPods, message));
        say(plan, reason, message);
        return;
    };
    let rolled = stable(record) == Some(target.number);
    let moves = changing && rolled && world.route.is_some_and(|route| route.spec.backends != next.backends);
    // With autoscaling pods come and go all the time: what serves is complete without those on their way.
    let enough = autoscale::enough(world.snapshot, desired).filter(|_| rolled);
    let serves = enough.is_some_and(|enough| world.available(target.number) >= enough);
    look_at_pods(world, set, target.number, moves, serves, plan);
    if let Some((reason, message)) = step(world, next, target, changing, plan) {
        say(plan, reason, message);
    }
    let full = serves || world.is_full(target.number, desired);
    let draining = |number| world.set(number).is_some() && !world.acknowledged;
    // The one before is still in the pods of the one after.
    let leaving = rolled && !inplace::is_settled(world, record);
    let waits =
        leaving || record.previous.as_ref().is_some_and(|previous| draining(previous.revision as u64));
    let moved = rolled || steps::current(record).is_none() && !strategy::waits_for_analysis(world, record);
    let frozen = world.is_paused() && !rolled;
    if !changing
        && !frozen
        && moved
        && (full && (!rolled || waits) || leaving && world.available(target.number) >= desired)
    {
        let message = format!("{desired} of {desired} replicas of {name} are ready; {}", unheard(world));
        say(plan, Reason::Promoting, message);
    }
    plan.report.complete = rolled && full && !changing && !waits;
    if plan.report.complete {
        let available = world.available(target.number).min(desired);
        let message = format!("{name} serves with {available} of {desired} replicas");
        say(plan, Reason::RolloutComplete, message);
    }
    match strategy::deadline(world, record) {
        Some(end) if world.now >= end => plan.report.deadline_exceeded = true,
        Some(end) => plan.wake(end),
        None => {}
    }
    let pending = candidate(record).filter(|_| !plan.report.complete);
    let surge_ends = pending.and_then(|number| sizes::surge_ends(world, number));
    if let Some(end) = surge_ends.filter(|end| *end > world.now) {
        plan.wake(end);
    }
}

fn at_zero(world: &World, record: &RolloutRecord, target: &RevisionView, changing: bool, plan: &mut Plan) {
    let sets = &world.snapshot.family.replica_sets;
    let empty = sets.iter().all(|set| set.replicas == 0 && set.live == 0) && !changing && world.is_held();
    let held = if changing || world.is_held() { String::new() } else { format!("; {}", unheard(world)) };
    let going = format!("scaling to no replicas{held}");
    if world.snapshot.deployment.spec.autoscaling.is_none() || world.is_suspended() {
        plan.report.complete = empty;
        say(plan, Reason::CreatingPods, going);
        return;
    }
    // Whoever asks meanwhile is answered: nothing is to be waited for.
    plan.report.complete = stable(record) == Some(target.number);
    let name = &target.meta.name;
    let message = match plan.report.complete {
        _ if !empty => going,
        true => format!("{name} has no replica: the next request starts one"),
        false => format!("{name} starts with the next request"),
    };
    let reason = if plan.report.complete { Reason::RolloutComplete } else { Reason::CreatingPods };
    say(plan, reason, message);
}

/// A rollout with a step, a freeze, or old pods that go first.
fn step(
    world: &World,
    next: &ModelRouteSpec,
    target: &RevisionView,
    changing: bool,
    plan: &mut Plan,
) -> Option<(Reason, String)> {
    let record = &next.rollout;
    let (old, new) = (stable(record)?, candidate(record)?);
    let name = &target.meta.name;
    let old_name = children::revision_name(world.snapshot, old);
    let share = next.backends.iter().filter(|b| b.revision as u64 == new).map(|b| b.weight).sum::<i32>();
    let ready = world.available(new);
    if world.is_paused() {
        let message = format!("{name} takes {share} %: spec.paused holds the rollout");
        return Some((Reason::CanaryPaused, message));
    }
    let found = plan.report.analysis.as_ref();
    if let Some(found) = found.filter(|_| strategy::waits_for_analysis(world, record)) {
        let position = match steps::current(record) {
            Some(_) => format!("step {} of {}", record.step + 1, record.steps.len()),
            None => "past all steps".into(),
        };
        let message =
            format!("{name} takes {share} %, {position}: goes on when {}", trial::waits_for(found, ""));
        return Some((Reason::CanaryPaused, message));
    }
    let Some(now) = steps::current(record) else {
        if swap::holds(world, next) {
            let message = match world.is_held() {
                true => format!("requests wait for {name}, which takes the place of {old_name} in its pod"),
                false => format!("requests wait for {name}; {}", unheard(world)),
            };
            return Some((Reason::LoadingModel, message));
        }
        if !strategy::is_recreated(record) {
            return None;
        }
        let message = match world.set(old).map_or(0, |set| set.live) {
            _ if !world.is_held() => format!("requests wait for {name}; {}", unheard(world)),
            live if live > 0 => format!("requests wait for {name}; {old_name} makes room"),
            _ => format!("requests wait for {name}: {ready} of {} replicas are ready", world.desired),
        };
        return Some((Reason::CreatingPods, message));
    };
    let id = verbs::attempt(world, next)?;
    let position = format!("step {} of {}", record.step + 1, record.steps.len());
    let takes = format!("{name} takes {share} %, {position}");
    if let Some(end) = steps::pause_end(record) {
        if end > world.now {
            plan.wake(end);
        }
        let message = match &plan.report.analysis {
            Some(found) if share > 0 && found.verdict != AnalysisVerdict::Passed => {
                format!("{takes}: goes on at {} if {}", seconds(end), trial::waits_for(found, " by then"))
            }
            _ => format!("{takes}: pause until {}", seconds(end)),
        };
        return Some((Reason::CanaryPaused, message));
    }
    if now.pause.is_some() {
        let verb = format!("{}={id}/{}", annotations::PROMOTE, record.step);
        return Some((Reason::CanaryPaused, format!("{takes}: pause until {verb}")));
    }
    if let (Some(mirror), Some(end)) = (&next.shadow, shadow::shadow_end(next)) {
        if end > world.now {
            plan.wake(end);
        }
        let (percent, until) = (mirror.percent, seconds(end));
        let compared = world.snapshot.evidence.counts.shadow.compared;
        let message = format!(
            "{name} shadows {percent} % of the requests, {position}: until {until}, {compared} compared"
        );
        return Some((Reason::CanaryPaused, message));
    }
    let pods = steps::pods(record, world.desired);
    let is_short = inplace::lacks_memory(world, record);
    let is_alone = swap::lacks_pods(world, record);
    if is_short || is_alone || sizes::surge_ends(world, new).is_some_and(|end| world.now >= end) {
        let (what, more) = match (is_short, is_alone) {
            (true, _) => ("memory", "Raise resources.limits.memory"),
            (_, true) => ("room", "Raise replicas"),
            _ => ("room", "Make room"),
        };
        let message = format!(
            "{takes}: a pod of {name} finds no {what} beside {old_name}. {more}, or replace it without the steps: annotate {}={id}/full",
            annotations::PROMOTE
        );
        plan.report.halted = Some(Finding::new(Reason::StepsNeedRoom, message));
    }
    let goal = now
        .set_weight
        .filter(|weight| *weight > 0)
        .map(|weight| format!(" for {weight} %"))
        .unwrap_or_default();
    let waits = if world.is_full(new, pods) && !changing {
        unheard(world)
    } else {
        format!("{} of {pods} replicas{goal} are ready", ready.min(pods))
    };
    Some((Reason::CanaryStep, format!("{takes}: {waits}")))
}

fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// What keeps a finished candidate from the traffic, or an old revision's pods alive.
fn unheard(world: &World) -> String {
    let gateways = &world.snapshot.gateways;
    if gateways.ready() == 0 {
        return "waits for a gateway".into();
    }
    let Some(route) = world.route else { return "waits for its route".into() };
    let (all, heard) = gateways.count(route.generation);
    format!("{heard} of {all} gateways have acknowledged route generation {}", route.generation)
}

/// Finds the fault of the target's pods, or says how far they are.
fn look_at_pods(
    world: &World,
    set: &ReplicaSetView,
    number: u64,
    moves: bool,
    serves: bool,
    plan: &mut Plan,
) {
    let (snapshot, desired) = (world.snapshot, world.desired);
    let name = &children::revision_name(snapshot, number);
    let available = if set.number == number { set.available } else { world.available(number) };
    let ready = format!("{available} of {desired} replicas of {name} are ready");
    if let Some(message) = set.failure.as_deref().filter(|_| set.live < desired) {
        plan.report.blame(faults::of_refusal(message).of(name));
    }
    let mut waits: Option<(Reason, String)> = None;
    let pods = snapshot.family.pods.iter().filter(|pod| pod.holds(number) && !pod.meta.deleting);
    for pod in pods.filter(|pod| !(pod.ready && pod.serves(number))) {
        // A pod that the kubelet gave up on was replaced: it matters while there are too few.
        let matters = pod.phase != PodPhase::Failed || available < desired;
        // `ScalingLimited` tells of it.
        let matters = matters && !(serves && pod.unschedulable.is_some());
        if let Some(fault) = faults::of_pod(snapshot, pod, Some(name)).filter(|_| matters) {
            plan.report.blame(fault.of(name));
        }
        let pod_name = &pod.meta.name;
        let state = snapshot.revision_state(pod, name).map(|s| s.phase);
        let stage = match state {
            _ if pod.scheduled_at.is_none() && !pod.devices.is_empty() => {
                (Reason::WaitingForGPU, format!("{ready}; pod {pod_name} waits for a node"))
            }
            _ if pod.phase == PodPhase::Pending => {
                (Reason::CreatingPods, format!("{ready}; pod {pod_name} is starting"))
            }
            Some(RevisionPhase::Fetching) => {
                (Reason::LoadingModel, format!("{ready}; pod {pod_name} fetches the model"))
            }
            Some(RevisionPhase::Fetched) => {
                (Reason::LoadingModel, format!("{ready}; pod {pod_name} has fetched the model"))
            }
            Some(RevisionPhase::WarmingUp) => {
                (Reason::LoadingModel, format!("{ready}; pod {pod_name} warms the model up"))
            }
            _ => (Reason::LoadingModel, format!("{ready}; pod {pod_name} loads the model")),
        };
        waits.get_or_insert(stage);
    }
    let (reason, message) = match waits {
        Some(stage) if available < desired => stage,
        _ if available < desired || !moves => (Reason::CreatingPods, ready),
        _ => (Reason::Promoting, format!("{ready}; the traffic moves to it")),
    };
    say(plan, reason, message);
}

fn say(plan: &mut Plan, reason: Reason, message: String) {
    plan.report.progress = Some(Finding::new(reason, message));
}
