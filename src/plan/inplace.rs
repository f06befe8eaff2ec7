//! A new model inside the running pods: what each of them is to hold. A revision comes beside what a pod serves, is
//! proven there, and only then gets traffic; one goes when no gateway sends to it any more.
//!
//! The ReplicaSet stays. Its template changes once, after the new revision has taken over, so that two revisions
//! live in it for a while: `shared` says which, by the rollout's record alone.

use serde_json::Value;

use super::rollout::pods_in;
use super::strategy::{candidate, is_recreated, stable};
use super::world::World;
use super::{Plan, children, sizes, steps, swap};
use crate::api::{Reason, Replacement, RolloutRecord};
use crate::formats::{Assignments, RevisionPhase, RevisionState, Slot, ports};
use crate::observe::{PodView, ReplicaSetView, RevisionView};

/// Of the second revision in a pod.
const SECOND_PORT: u16 = 8082;

pub(super) fn is_in_place(record: &RolloutRecord) -> bool {
    record.replacement == Replacement::InPlace
}

/// Two revisions that live, or have lived, in one ReplicaSet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shared {
    pub guest: u64,
    pub host: u64,
    /// The guest took over: the ReplicaSet becomes its own.
    stays: bool,
}

impl Shared {
    /// Where the guest lives.
    pub fn home<'a>(self, world: &World<'a>) -> Option<&'a ReplicaSetView> {
        match self.stays {
            true => world.made_for(self.guest).or_else(|| world.made_for(self.host)),
            false => world.made_for(self.host),
        }
    }
}

pub(super) fn shared(record: &RolloutRecord) -> Option<Shared> {
    if !is_in_place(record) {
        return None;
    }
    let number = |revision: i64| u64::try_from(revision).ok();
    let stable = number(record.stable?)?;
    Some(match record.candidate {
        Some(candidate) => Shared { guest: number(candidate)?, host: stable, stays: false },
        None => Shared { guest: stable, host: number(record.previous.as_ref()?.revision)?, stays: true },
    })
}

/// Where no new pod finds room, the new model goes into the old ones; where those have too little memory for two, into
/// the old one's place.
pub(super) fn find_room(world: &World, old: u64, new: u64, record: &mut RolloutRecord) {
    let known = world.route.is_some_and(|route| route.spec.rollout.replacement == record.replacement);
    if is_in_place(record) {
        if known && has_pods(world, record) && lacks_memory(world, record) {
            record.exclusive = true;
            record.replacement_reason = Some(sizes::NO_MEMORY.into());
        }
        return;
    }
    let asked = world.strategy().and_then(|s| s.replacement);
    let may = !matches!(asked, Some(Replacement::Surge | Replacement::Recreate));
    let late = sizes::surge_ends(world, new).is_some_and(|end| world.now >= end);
    let untouched = !is_recreated(record)
        && !sizes::is_squeezed(record)
        && world.available(new) == 0
        && world.is_unrouted(new);
    if may && late && untouched && world.answers(old) && enter(world, old, new, record).is_ok() {
        record.replacement_reason = Some(sizes::NO_ROOM.into());
    }
}

/// The pods of the stable revision take the new one, if they can; else why not.
pub(super) fn enter(
    world: &World,
    old: u64,
    new: u64,
    record: &mut RolloutRecord,
) -> Result<(), &'static str> {
    if let Some(obstacle) = obstacle(world, old, new) {
        return Err(obstacle);
    }
    // Nobody measures a GPU's memory.
    let set = world.made_for(old).and_then(|set| Assignments::revision_of(&set.set));
    let base = set.and_then(|number| world.revision(number)?.data.as_ref());
    let exclusive = base.is_some_and(|base| base.spec.uses_gpu());
    if exclusive && !has_pods(world, record) {
        return Err(Reason::StepsNeedRoom.as_str());
    }
    record.replacement = Replacement::InPlace;
    record.exclusive = exclusive;
    record.replacement_reason = exclusive.then(|| "GPUMemoryUnknown".into());
    Ok(())
}

/// For two revisions, where a step wants both.
pub(super) fn has_pods(world: &World, record: &RolloutRecord) -> bool {
    world.desired > 1 || steps::current(record).is_none()
}

/// Why a revision can't be swapped into the pods of another. None: it can.
fn obstacle(world: &World, old: u64, new: u64) -> Option<&'static str> {
    const UNKNOWN: Option<&str> = Some("RevisionUnreadable");
    let Some(set) = world.made_for(old) else { return Some("NoPods") };
    let base = Assignments::revision_of(&set.set).and_then(|number| world.revision(number));
    let read =
        |revision: Option<&RevisionView>| Some((revision?.data.clone()?, revision?.restarted_at.clone()));
    let (Some((base, _)), Some((old, restarted)), Some((new, restarts))) =
        (read(base), read(world.revision(old)), read(world.revision(new)))
    else {
        return UNKNOWN;
    };
    if restarts.is_some() && restarts != restarted {
        return Some("NewPodsAskedFor");
    }
    let (mut running, mut wanted) = (base.template.to_value(), new.template.to_value());
    let room = take_model(&mut running);
    take_model(&mut wanted);
    if running != wanted {
        return Some("NotOnlyTheModel");
    }
    let bytes = old.resolved.source.size().saturating_add(new.resolved.source.size());
    match room {
        Some(room) if bytes <= room => None,
        _ => Some("NoDiskBeside"),
    }
}

/// Takes what a change of the model alone changes out of a template; the bytes that its models may have.
fn take_model(template: &mut Value) -> Option<u64> {
    children::name_set(template, None);
    let metadata = template.get_mut("metadata")?;
    metadata.get_mut("annotations")?.as_object_mut()?.remove(Assignments::ANNOTATION);
    let volumes = template.pointer_mut("/spec/volumes")?.as_array_mut()?;
    let models = volumes.iter_mut().find(|volume| volume["name"] == "models")?;
    let limit = models.get_mut("emptyDir")?.as_object_mut()?.remove("sizeLimit")?;
    let mib: u64 = limit.as_str()?.strip_suffix("Mi")?.parse().ok()?;
    mib.checked_mul(1 << 20)
}

/// A worker of the candidate found no memory beside the stable one.
pub(super) fn lacks_memory(world: &World, record: &RolloutRecord) -> bool {
    let short = [Reason::OutOfMemory.as_str(), Reason::InsufficientGPUMemory.as_str()];
    let beside = world.shared.is_some() && is_in_place(record) && !record.exclusive;
    let Some(new) = candidate(record).filter(|_| beside) else {
        return false;
    };
    let pods = world.set(new).into_iter().flat_map(|set| pods_in(world.snapshot, set));
    let mut states =
        pods.filter(|pod| pod.slots.len() > 1 && !pod.serves(new)).filter_map(|pod| state(world, pod, new));
    states.any(|state| {
        state.phase == RevisionPhase::Failed
            && state.reason.as_deref().is_some_and(|reason| short.contains(&reason))
    })
}

pub(super) fn state<'a>(world: &'a World, pod: &PodView, number: u64) -> Option<&'a RevisionState> {
    world.snapshot.revision_state(pod, &children::revision_name(world.snapshot, number))
}

/// The stable revision took over, and new pods of its ReplicaSet would still get the one before.
pub(super) fn hands_over(world: &World, record: &RolloutRecord) -> bool {
    let Some(shared) = shared(record).filter(|shared| shared.stays) else { return false };
    shared.home(world).is_some_and(|set| set.number != shared.guest)
}

/// Every pod of the stable revision holds it, and nothing else.
pub(super) fn is_settled(world: &World, record: &RolloutRecord) -> bool {
    let Some(number) = stable(record) else { return true };
    let Some(set) = world.set(number) else { return true };
    set.number == number && pods_in(world.snapshot, set).all(|pod| pod.slots.len() == 1 && pod.holds(number))
}

/// Assigns pods anew, one step of each at most.
pub(super) fn assign(world: &World, record: &RolloutRecord, plan: &mut Plan) {
    // What has not been written yet may never be.
    let known = world.route.map(|route| &route.spec.rollout);
    let begun = known.is_some_and(|known| known.candidate == record.candidate && is_in_place(known));
    let home = stable(record).and_then(|number| world.set(number));
    for set in world.snapshot.family.replica_sets.iter().filter(|set| !set.meta.deleting) {
        let is_home = home.is_some_and(|home| home.meta.uid == set.meta.uid);
        let main = stable(record).filter(|_| is_home).unwrap_or(set.number);
        let guest = candidate(record).filter(|new| is_home && begun && is_in_place(record) && *new != main);
        // Of its own, from the attempt to get new pods: it would be taken for the shared one.
        let guest = guest.filter(|new| !is_there(world, *new));
        let exclusive = swap::is_exclusive(record) && is_home;
        // Of an attempt before: what it left is cleared up first.
        let mut left = pods_in(world.snapshot, set).flat_map(|pod| &pod.slots).filter(|slot| slot.fetch_only);
        if exclusive || left.next().is_some() {
            let swap = swap::within(world, set, main, guest.filter(|_| exclusive), record);
            pods_in(world.snapshot, set).for_each(|pod| hold(world, pod, swap.slots(pod), plan));
        } else {
            assign_in(world, set, main, guest.filter(|_| !world.is_paused()), record, plan);
        }
        if set.number != main && !plan.writes.iter().any(|write| write.name() == set.meta.name) {
            plan.writes.extend(children::replica_set(world, Some(set), main, set.replicas));
        }
    }
}

pub(super) fn is_there(world: &World, number: u64) -> bool {
    world.snapshot.family.replica_sets.iter().any(|set| set.number == number)
}

fn assign_in(
    world: &World,
    set: &ReplicaSetView,
    main: u64,
    guest: Option<u64>,
    record: &RolloutRecord,
    plan: &mut Plan,
) {
    let pods: Vec<&PodView> = pods_in(world.snapshot, set).collect();
    let wanted = guest.map_or(0, |_| steps::pods(record, world.desired)).max(0) as usize;
    let mut guests = pods.iter().filter(|pod| guest.is_some_and(|guest| pod.holds(guest))).count();
    // One at a time: the next only when every other pod serves what it holds.
    let mut unsettled = pods.iter().filter(|pod| !is_proven(pod)).count();
    for pod in &pods {
        let candidate = candidate(record).filter(|new| is_in_place(record) && *new != main);
        let kept = |number: u64| number == main || candidate == Some(number);
        let mut slots = pod.slots.clone();
        // What serves main's place goes on until main does.
        let serves_main = pod.ready && pod.serves(main);
        slots.retain(|slot| {
            kept(slot.revision)
                || pod.serves(slot.revision) && !(serves_main && world.is_unrouted(slot.revision))
        });
        let others_settled = unsettled == usize::from(!is_proven(pod));
        let missing = if !pod.holds(main) { Some(main) } else { guest.filter(|guest| !pod.holds(*guest)) };
        let may_add = others_settled && slots.len() < 2 && slots.len() == pod.slots.len();
        if let Some(number) = missing.filter(|_| may_add && pod.ready)
            && (number == main || guests < wanted)
        {
            guests += 1;
            unsettled += 1;
            slots.push(Slot { revision: number, port: free_port(&slots), fetch_only: false });
        }
        hold(world, pod, slots, plan);
    }
}

pub(super) fn free_port(slots: &[Slot]) -> u16 {
    if slots.iter().any(|slot| slot.port == ports::INFERENCE) { SECOND_PORT } else { ports::INFERENCE }
}

fn hold(world: &World, pod: &PodView, slots: Vec<Slot>, plan: &mut Plan) {
    let proven = proven(world, pod, &slots);
    let same = slots == pod.slots && pod.proven.as_ref().is_none_or(|known| *known == proven);
    if !same {
        plan.writes.extend(children::assign(world, pod, &slots, &proven));
    }
}

/// It answers for everything that it holds.
fn is_proven(pod: &PodView) -> bool {
    pod.ready && pod.slots.iter().all(|slot| pod.serves(slot.revision))
}

/// Which of `slots` answer, as the pod says; where it has not been heard, as it was.
fn proven(world: &World, pod: &PodView, slots: &[Slot]) -> Vec<u64> {
    let is_proven = |number: &u64| match state(world, pod, *number) {
        Some(state) if pod.holds(*number) => state.phase == RevisionPhase::Proven,
        _ => pod.serves(*number),
    };
    slots.iter().filter(|slot| !slot.fetch_only).map(|slot| slot.revision).filter(is_proven).collect()
}
