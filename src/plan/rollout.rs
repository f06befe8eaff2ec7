//! Surge, prove, move the address, drain: in that order, so that no wanted replica is ever missing.

use jiff::{SignedDuration, Timestamp};

use super::report::Finding;
use super::write::{Kind, Write};
use super::{Plan, children, faults};
use crate::api::Reason;
use crate::formats::RevisionPhase;
use crate::observe::{PodPhase, PodView, ReplicaSetView, RevisionView, Snapshot, seconds_since};

/// The previous revision's pods stay this long after the address moved: kube-proxy applies a change up to a second
/// late, clients keep connections, and a rollback within this time needs no new pod.
const DRAIN: SignedDuration = SignedDuration::from_secs(30);
/// Failed pods that are kept for a look, a revision; ReplicaSets ignore them and would pile them up.
const FAILED_KEPT: usize = 3;

pub(super) fn roll(snapshot: &Snapshot, target: Option<&RevisionView>, now: Timestamp, plan: &mut Plan) {
    let family = &snapshot.family;
    let desired = snapshot.deployment.spec.replicas.unwrap_or(1);
    let address = family.service.as_ref().and_then(|s| s.number);
    let behind_address = address.and_then(|number| set(snapshot, number));

    // Whatever becomes of the target: what serves goes on serving at the wanted size.
    if let Some(serving) = behind_address.filter(|s| target.is_none_or(|t| t.number != s.number)) {
        scale(snapshot, serving, desired, plan);
    }
    let Some(target) = target else {
        progress_without_target(plan);
        return;
    };
    let Some(replica_set) = set(snapshot, target.number) else {
        let name = children::revision_name(snapshot, target.number);
        say(plan, Reason::CreatingPods, format!("0 of {desired} replicas of {name} are ready"));
        if let Some(body) = children::replica_set(snapshot, target, desired, None) {
            plan.writes.push(Write::Create { kind: Kind::ReplicaSet, name, body });
        }
        // After it: the API server gives out Service addresses one at a time, and the pods start meanwhile.
        address_and_budget(snapshot, target, plan);
        return;
    };
    address_and_budget(snapshot, target, plan);
    scale(snapshot, replica_set, desired, plan);

    let settled = replica_set.observed && replica_set.replicas == desired;
    let proven = settled && replica_set.available >= desired;
    let at_address = address == Some(target.number);
    // Nobody loses anything when nothing answers behind the address now.
    let nothing_to_lose = behind_address.is_none_or(|s| s.available == 0) && replica_set.available > 0;
    let mut moved_at = family.service.as_ref().and_then(|s| s.moved_at);
    if let Some(service) = &family.service
        && !at_address
        && (proven || nothing_to_lose || behind_address.is_none())
    {
        plan.writes.push(children::move_service(snapshot, service, target.number, now));
        moved_at = Some(now);
    }
    look_at_pods(snapshot, target, replica_set, desired, at_address, plan);
    retire(snapshot, target, at_address, moved_at, now, plan);
    remove_failed(snapshot, plan);

    plan.report.complete = at_address && proven;
    if plan.report.complete {
        let message = format!("{} serves with {desired} of {desired} replicas", replica_set.meta.name);
        say(plan, Reason::RolloutComplete, message);
    }
    deadline(snapshot, target, now, plan);
}

fn set(snapshot: &Snapshot, number: u64) -> Option<&ReplicaSetView> {
    snapshot.family.replica_sets.iter().find(|s| s.number == number && !s.meta.deleting).map(|s| &**s)
}

fn scale(snapshot: &Snapshot, set: &ReplicaSetView, desired: i32, plan: &mut Plan) {
    if set.replicas == desired {
        return;
    }
    let revision = snapshot.family.revisions.iter().find(|r| r.number == set.number);
    if let Some(body) = revision.and_then(|r| children::replica_set(snapshot, r, desired, Some(&set.meta))) {
        plan.writes.push(Write::Apply { kind: Kind::ReplicaSet, name: set.meta.name.clone(), body });
    }
}

fn address_and_budget(snapshot: &Snapshot, target: &RevisionView, plan: &mut Plan) {
    let name = snapshot.name().to_string();
    if snapshot.family.service.is_none() {
        let body = children::service(snapshot, target.number);
        plan.writes.push(Write::Create { kind: Kind::Service, name: name.clone(), body });
    }
    if snapshot.family.budget.is_none() {
        let body = children::disruption_budget(snapshot);
        plan.writes.push(Write::Create { kind: Kind::PodDisruptionBudget, name, body });
    }
}

/// Takes revisions that neither serve nor are wanted out of the way.
fn retire(
    snapshot: &Snapshot,
    target: &RevisionView,
    at_address: bool,
    moved_at: Option<Timestamp>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let address = snapshot.family.service.as_ref().and_then(|s| s.number);
    let wants_room = pods_of(snapshot, target.number).any(|pod| pod.unschedulable.is_some())
        || set(snapshot, target.number).is_some_and(|s| s.failure.is_some());
    for old in &snapshot.family.replica_sets {
        if old.number == target.number || old.meta.deleting {
            continue;
        }
        let behind_address = address == Some(old.number);
        let drained_at = moved_at.map(|at| at + DRAIN).filter(|_| old.available > 0);
        let idle = if behind_address {
            // It answers nobody and holds the place that the target waits for.
            wants_room && old.observed && old.available == 0 && !at_address
        } else {
            wants_room || drained_at.is_none_or(|at| now >= at)
        };
        if idle {
            plan.writes.push(Write::delete(Kind::ReplicaSet, &old.meta));
        } else if let Some(at) = drained_at.filter(|_| !behind_address) {
            plan.wake(at);
        }
    }
}

fn pods_of(snapshot: &Snapshot, number: u64) -> impl Iterator<Item = &PodView> {
    let pods = snapshot.family.pods.iter().map(|pod| &**pod);
    pods.filter(move |pod| pod.number == Some(number) && !pod.meta.deleting)
}

/// Finds the fault of the target's pods, or says how far they are.
fn look_at_pods(
    snapshot: &Snapshot,
    target: &RevisionView,
    set: &ReplicaSetView,
    desired: i32,
    at_address: bool,
    plan: &mut Plan,
) {
    let name = &set.meta.name;
    let ready = format!("{} of {desired} replicas of {name} are ready", set.available);
    if let Some(message) = set.failure.as_deref().filter(|_| set.live < desired) {
        plan.report.blame(faults::of_refusal(message).of(name));
    }
    let mut waits: Option<(Reason, String)> = None;
    for pod in pods_of(snapshot, target.number).filter(|pod| !pod.ready) {
        // A pod that the kubelet gave up on was replaced: it matters while there are too few.
        let matters = pod.phase != PodPhase::Failed || set.available < desired;
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
            Some(RevisionPhase::WarmingUp) => {
                (Reason::LoadingModel, format!("{ready}; pod {pod_name} warms the model up"))
            }
            _ => (Reason::LoadingModel, format!("{ready}; pod {pod_name} loads the model")),
        };
        waits.get_or_insert(stage);
    }
    let (reason, message) = match waits {
        Some(stage) if set.available < desired => stage,
        _ if set.available < desired || at_address => (Reason::CreatingPods, ready),
        _ => (Reason::Promoting, format!("{ready}; the address moves to it")),
    };
    say(plan, reason, message);
}

fn remove_failed(snapshot: &Snapshot, plan: &mut Plan) {
    for set in &snapshot.family.replica_sets {
        let mut failed: Vec<&PodView> =
            pods_of(snapshot, set.number).filter(|pod| pod.phase == PodPhase::Failed).collect();
        failed.sort_by_key(|pod| std::cmp::Reverse(pod.meta.created));
        for pod in failed.into_iter().skip(FAILED_KEPT) {
            plan.writes.push(Write::delete(Kind::Pod, &pod.meta));
        }
    }
}

fn progress_without_target(plan: &mut Plan) {
    let waits = plan.report.resolution.clone();
    let message = waits.map(|f| f.message).unwrap_or_else(|| "the source is being resolved".into());
    say(plan, Reason::Resolving, message);
}

fn deadline(snapshot: &Snapshot, target: &RevisionView, now: Timestamp, plan: &mut Plan) {
    let Some(set) = set(snapshot, target.number).filter(|_| !plan.report.complete) else { return };
    let limit = i64::from(snapshot.deployment.spec.progress_deadline_seconds.unwrap_or(1800));
    // A settled revision that lost a pod is no rollout.
    if snapshot.family.service.as_ref().and_then(|s| s.number) == Some(target.number) && set.available > 0 {
        return;
    }
    if seconds_since(set.meta.created, now) >= limit {
        plan.report.deadline_exceeded = true;
    } else {
        plan.wake(set.meta.created + SignedDuration::from_secs(limit));
    }
}

fn say(plan: &mut Plan, reason: Reason, message: String) {
    plan.report.progress = Some(Finding::new(reason, message));
}
