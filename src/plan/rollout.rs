//! From the route to the objects: who has how many pods, and who may go. Nothing that can lose a request happens
//! before every gateway has acknowledged the route that takes the traffic away.

use jiff::{SignedDuration, Timestamp};

use super::sizes::{self, Sizes};
use super::strategy::{candidate, stable};
use super::world::World;
use super::write::{Kind, Write};
use super::{Plan, children, inplace, progress, route, steps, strategy};
use crate::api::{ModelRouteSpec, Replacement, RolloutRecord};
use crate::observe::{PodPhase, PodView, ReplicaSetView, RevisionView, Snapshot};

/// The previous revision's pods stay this long after they lost the traffic: a rollback needs no new pod.
const KEPT: SignedDuration = SignedDuration::from_secs(30);
/// Failed pods that are kept for a look, a revision; ReplicaSets ignore them and would pile them up.
const FAILED_KEPT: usize = 3;

pub(super) fn roll(snapshot: &Snapshot, target: Option<&RevisionView>, now: Timestamp, plan: &mut Plan) {
    let mut world = World::of(snapshot, target, now);
    let Some(next) = strategy::next(&world) else {
        progress::without_target(plan);
        return;
    };
    let record = &next.rollout;
    world.shared = inplace::shared(record);
    let routed = route::write(&world, &next);
    let sizes = sizes::sizes(&world, record);
    // What is not wanted gives its places to what is.
    let mut fewer = retire(&world, record, sizes, plan);
    let mut more = Vec::new();
    let own = candidate(record).filter(|_| !inplace::is_in_place(record));
    for (number, replicas) in [(stable(record), sizes.stable), (own, sizes.candidate)] {
        let Some(number) = number else { continue };
        let Some(write) = size(&world, number, replicas, record) else { continue };
        let shrinks = world.set(number).is_some_and(|set| set.replicas > replicas);
        match shrinks {
            // Beyond what is wanted anyway: the new ones take their places.
            true if replicas >= world.desired => plan.writes.push(write),
            true => fewer.push(write),
            false => more.push(write),
        }
    }
    // More pods before the route, since they start meanwhile; fewer only once the record says why.
    plan.writes.extend(more);
    plan.writes.extend(routed);
    plan.writes.extend(fewer);
    inplace::assign(&world, record, plan);
    address_and_budget(&world, record, plan);
    remove_failed(snapshot, plan);
    progress::report(&world, &next, target, plan);
}

/// Gives a revision of the route as many pods as it should have. None: it has them, or must wait.
fn size(world: &World, number: u64, replicas: i32, record: &RolloutRecord) -> Option<Write> {
    let set = world.set(number);
    // The last pod stays for as long as a gateway may send it a request.
    let least = if world.is_held() || world.is_unrouted(number) { 0 } else { 1 };
    let replicas = set.map_or(replicas, |set| replicas.max(set.replicas.min(least)));
    let idle = set.is_none() && (replicas == 0 || is_crowded(world, number, record));
    if idle || set.is_some_and(|set| set.replicas == replicas) || is_going(world, number) {
        return None;
    }
    children::replica_set(world, set, set.map_or(number, |set| set.number), replicas)
}

/// One candidate at a time: the last one's pods are still there, and its spec may have changed for lack of room.
fn is_crowded(world: &World, number: u64, record: &RolloutRecord) -> bool {
    let previous = record.previous.as_ref().map(|previous| previous.revision as u64);
    let known = [stable(record), candidate(record), previous];
    candidate(record) == Some(number)
        && world.snapshot.family.replica_sets.iter().any(|set| !known.contains(&Some(set.number)))
}

/// Its name is free again once it is gone.
fn is_going(world: &World, number: u64) -> bool {
    world.snapshot.family.replica_sets.iter().any(|s| s.number == number && s.meta.deleting)
}

fn address_and_budget(world: &World, record: &RolloutRecord, plan: &mut Plan) {
    let snapshot = world.snapshot;
    let name = snapshot.name().to_string();
    match &snapshot.family.service {
        None => {
            let body = children::service(snapshot, None);
            plan.writes.push(Write::Create { kind: Kind::Service, name: name.clone(), body });
        }
        // An older operator's answers without gateways until they can take over.
        Some(service) if !service.to_gateways && !service.meta.deleting => {
            let known = service.number == stable(record) && world.acknowledged;
            let answers = service.number.is_some_and(|number| world.set(number).is_some());
            if !answers || known && snapshot.gateways.ready() > 0 {
                let body = children::service(snapshot, Some(&service.meta));
                plan.writes.push(Write::Apply { kind: Kind::Service, name: name.clone(), body });
            }
        }
        Some(service) if !service.has_https && !service.meta.deleting => {
            let body = children::service(snapshot, Some(&service.meta));
            plan.writes.push(Write::Apply { kind: Kind::Service, name: name.clone(), body });
        }
        Some(_) => {}
    }
    // Of a single pod it would forbid nothing, and at each event of any pod the disruption controller reads every one of
    // the namespace.
    let pods: i32 = snapshot.family.replica_sets.iter().map(|set| set.replicas).sum();
    if snapshot.family.budget.is_none() && pods.max(world.desired) > 1 {
        let body = children::disruption_budget(snapshot);
        plan.writes.push(Write::Create { kind: Kind::PodDisruptionBudget, name, body });
    }
}

/// Takes revisions that neither serve nor are wanted out of the way. Returned: what goes once the record says that the
/// candidate is elsewhere.
fn retire(world: &World, record: &RolloutRecord, sizes: Sizes, plan: &mut Plan) -> Vec<Write> {
    let mut later = Vec::new();
    let wanted = [stable(record), candidate(record)];
    let homes = wanted.map(|number| number.and_then(|number| world.set(number)));
    let is_home = |uid: &str| homes.iter().flatten().any(|set| set.meta.uid == uid);
    let wants_room = wanted.iter().flatten().any(|number| wants_room(world, *number));
    let surges = record.replacement == Replacement::Surge && !sizes::is_squeezed(record);
    let surge = if surges { steps::bounds(record, world.desired).0 } else { 0 };
    let taken = sizes.stable + if candidate(record).is_some() { sizes.candidate } else { 0 };
    for old in &world.snapshot.family.replica_sets {
        let unused = !is_home(&old.meta.uid) && world.is_unrouted(old.number);
        if old.meta.deleting || !unused {
            continue;
        }
        // For a quick way back; not beyond the surge, nor where another pod waits for the place.
        let fits = !wants_room && taken + old.replicas <= world.desired + surge;
        let previous = record.previous.as_ref().filter(|p| p.revision as u64 == old.number);
        let aborted = record.aborted.as_ref().filter(|_| record.candidate == Some(old.number as i64));
        let since = previous.map(|p| p.moved_at.0).or(aborted.map(|a| a.at.0));
        match since.map(|since| since + KEPT) {
            Some(until) if world.now < until && old.available > 0 && fits => plan.wake(until),
            _ if candidate(record) == Some(old.number) => {
                later.push(Write::delete(Kind::ReplicaSet, &old.meta));
            }
            _ => plan.writes.push(Write::delete(Kind::ReplicaSet, &old.meta)),
        }
    }
    later
}

/// A pod finds no node, or none may be made.
pub(super) fn wants_room(world: &World, number: u64) -> bool {
    pods_of(world.snapshot, number).any(|pod| pod.unschedulable.is_some())
        || world.set(number).is_some_and(|set| set.failure.is_some())
}

/// Pods that answer for a revision, or will once they are ready.
pub(super) fn pods_of(snapshot: &Snapshot, number: u64) -> impl Iterator<Item = &PodView> {
    let pods = snapshot.family.pods.iter().map(|pod| &**pod);
    pods.filter(move |pod| pod.serves(number) && !pod.meta.deleting)
}

fn owned<'a>(snapshot: &'a Snapshot, set: &'a ReplicaSetView) -> impl Iterator<Item = &'a PodView> {
    let pods = snapshot.family.pods.iter().map(|pod| &**pod);
    pods.filter(|pod| pod.meta.owner_uid.as_ref() == Some(&set.meta.uid) && !pod.meta.deleting)
}

/// Live pods of a ReplicaSet.
pub(super) fn pods_in<'a>(
    snapshot: &'a Snapshot,
    set: &'a ReplicaSetView,
) -> impl Iterator<Item = &'a PodView> {
    owned(snapshot, set).filter(|pod| matches!(pod.phase, PodPhase::Pending | PodPhase::Running))
}

fn remove_failed(snapshot: &Snapshot, plan: &mut Plan) {
    for set in &snapshot.family.replica_sets {
        let failed = owned(snapshot, set).filter(|pod| pod.phase == PodPhase::Failed);
        let mut failed: Vec<&PodView> = failed.collect();
        failed.sort_by_key(|pod| std::cmp::Reverse(pod.meta.created));
        for pod in failed.into_iter().skip(FAILED_KEPT) {
            plan.writes.push(Write::delete(Kind::Pod, &pod.meta));
        }
    }
}

/// The revision that answers, or is the first to.
pub fn serving(route: &ModelRouteSpec) -> Option<u64> {
    let heaviest = || route.backends.iter().max_by_key(|b| b.weight).map(|b| b.revision);
    route.rollout.stable.or_else(heaviest).and_then(|number| number.try_into().ok())
}
