//! A new model in the place of the old one, inside the pod: where two workers find no room beside each other. Its files
//! come while the old one still answers. Then the gateways give the pod nothing more, its workers change places, and
//! what ran before keeps its files there, for the way back.

use super::inplace::{free_port, has_pods, is_in_place, is_there, state};
use super::report::Finding;
use super::rollout::pods_in;
use super::strategy::{candidate, stable};
use super::world::{World, is};
use super::{children, faults, sizes, steps};
use crate::api::{DrainedPod, ModelRouteSpec, RolloutRecord, RouteMode};
use crate::formats::{RevisionPhase, Slot};
use crate::observe::{PodView, ReplicaSetView};

/// The pods of a ReplicaSet, of which each runs one revision.
pub(super) struct Swap<'a> {
    world: &'a World<'a>,
    pods: Vec<&'a PodView>,
    /// Is refused more pods than it has.
    refused: bool,
    main: u64,
    /// The candidate, while it may come into pods.
    guest: Option<u64>,
    /// Pods that are to run the guest.
    wanted: usize,
}

/// Of the candidate and the stable revision.
pub(super) fn of<'a>(world: &'a World<'a>, record: &RolloutRecord) -> Option<Swap<'a>> {
    let main = stable(record).filter(|_| is_exclusive(record))?;
    let set = world.set(main)?;
    // What has not been written yet may never be.
    let known = world.route.map(|route| &route.spec.rollout);
    let begun = known.is_some_and(|known| known.candidate == record.candidate && is_exclusive(known));
    let guest = candidate(record).filter(|new| begun && *new != main && !is_there(world, *new));
    Some(within(world, set, main, guest, record))
}

pub(super) fn within<'a>(
    world: &'a World<'a>,
    set: &'a ReplicaSetView,
    main: u64,
    guest: Option<u64>,
    record: &RolloutRecord,
) -> Swap<'a> {
    let pods: Vec<&PodView> = pods_in(world.snapshot, set).collect();
    let guests = pods.iter().filter(|pod| guest.is_some_and(|guest| pod.runs(guest))).count();
    let wanted = match guest {
        None => 0,
        Some(_) if world.returns => (world.desired - sizes::floor(world, record)).min(guests as i32),
        Some(_) if world.is_paused() => guests as i32,
        // One pod for each revision at least.
        Some(_) if !has_pods(world, record) => 0,
        Some(_) => steps::pods(record, world.desired),
    };
    Swap { world, pods, refused: set.failure.is_some(), main, guest, wanted: wanted.max(0) as usize }
}

pub(super) fn is_exclusive(record: &RolloutRecord) -> bool {
    record.exclusive && is_in_place(record)
}

/// A step needs a pod for each revision, and there is but one.
pub(super) fn lacks_pods(world: &World, record: &RolloutRecord) -> bool {
    is_exclusive(record) && steps::current(record).is_some() && world.desired == 1
}

/// The pod that no gateway is to send any more for what it runs.
pub(super) fn drained(world: &World, next: &ModelRouteSpec) -> Option<DrainedPod> {
    let swap = of(world, &next.rollout)?;
    let known = world.route.and_then(|route| route.spec.drained.as_ref());
    let known = known.and_then(|known| Some((known, swap.pods.iter().find(|p| p.meta.name == known.pod)?)));
    if let Some((known, pod)) = known {
        let (run, to) = (running(pod, swap.guest), swap.to(pod));
        let stands = settled(pod, run) && world.available(run) > 0;
        let changes = run == to && known.revision != to as i64 && !stands;
        let goes_on = run != to && known.revision == run as i64 && swap.may(pod, run, to);
        if changes || goes_on {
            return Some(known.clone());
        }
    }
    let asked = |number: u64| next.backends.iter().any(|b| is(b, number));
    let due = |pod: &&&PodView| {
        let (run, to) = (running(pod, swap.guest), swap.to(pod));
        run != to && pod.serves(run) && asked(run) && swap.may(pod, run, to)
    };
    let pod = swap.pods.iter().find(due)?;
    Some(DrainedPod { pod: pod.meta.name.clone(), revision: running(pod, swap.guest) as i64 })
}

/// Nobody else answers: requests wait.
pub(super) fn holds(world: &World, next: &ModelRouteSpec) -> bool {
    let Some(drained) = &next.drained else { return false };
    let weighted = |number: &u64| next.backends.iter().any(|b| is(b, *number) && b.weight > 0);
    let mut pods = world.snapshot.family.pods.iter().filter(|pod| pod.ready && !pod.meta.deleting);
    let answers = |pod: &PodView| {
        let mut slots = pod.slots.iter().map(|slot| slot.revision);
        slots.any(|number| {
            let given_up = pod.meta.name == drained.pod && drained.revision == number as i64;
            weighted(&number) && pod.serves(number) && !given_up
        })
    };
    !pods.any(|pod| answers(pod))
}

/// The candidate has taken a place, and does not serve in it yet.
pub(super) fn is_changing(world: &World, record: &RolloutRecord) -> bool {
    let Some(swap) = of(world, record) else { return false };
    swap.guest.is_some_and(|guest| swap.pods.iter().any(|pod| pod.runs(guest) && !settled(pod, guest)))
}

/// What went wrong with the candidate, where it runs in place of the stable revision and serves nowhere.
pub(super) fn failed(world: &World, record: &RolloutRecord) -> Option<Finding> {
    let swap = of(world, record)?;
    let guest = swap.guest?;
    if swap.pods.iter().any(|pod| pod.serves(guest)) {
        return None;
    }
    let name = children::revision_name(world.snapshot, guest);
    let mut pods = swap.pods.iter().filter(|pod| pod.runs(guest) && !pod.runs(swap.main));
    pods.find_map(|pod| {
        let state = state(world, pod, guest);
        let said = state.is_some_and(|state| state.phase == RevisionPhase::Failed || state.reason.is_some());
        let waiting = pod.containers.iter().filter_map(|container| container.waiting.as_ref());
        let loops = waiting.into_iter().any(|(reason, _)| reason == "CrashLoopBackOff");
        faults::of_pod(world.snapshot, pod, Some(&name)).filter(|_| said || loops)
    })
}

impl Swap<'_> {
    /// What a pod is to hold, one change of it at a time.
    pub fn slots(&self, pod: &PodView) -> Vec<Slot> {
        let (run, to) = (running(pod, self.guest), self.to(pod));
        let mut slots = pod.slots.clone();
        let asked = |number: u64| pod.serves(number) && !self.world.is_unrouted(number);
        // Two that ran beside each other, as far as there was room.
        slots
            .iter_mut()
            .filter(|s| s.revision != run && !pod.serves(s.revision))
            .for_each(|s| s.fetch_only = true);
        if run != to && pod.holds(to) {
            if self.may(pod, run, to) && self.is_quiet(pod, run) {
                slots.iter_mut().for_each(|slot| slot.fetch_only = slot.revision != to);
            }
        } else if let Some(missing) = self.missing(pod, to) {
            if slots.len() < 2 {
                slots.push(Slot { revision: missing, port: free_port(&slots), fetch_only: true });
            } else {
                slots.retain(|slot| slot.revision == run || asked(slot.revision));
            }
        } else if settled(pod, run) {
            slots.retain(|slot| slot.revision == run || asked(slot.revision) || self.keeps(slot.revision));
        }
        slots.sort_by_key(|slot| slot.fetch_only);
        slots
    }

    /// Whose files a pod lacks.
    fn missing(&self, pod: &PodView, to: u64) -> Option<u64> {
        let due = self.chosen().any(|chosen| chosen.meta.uid == pod.meta.uid);
        let guest = self.guest.filter(|guest| due && !pod.holds(*guest));
        guest.or((!pod.holds(to)).then_some(to))
    }

    /// What ran before, or will: for the way there, and back.
    fn keeps(&self, number: u64) -> bool {
        self.guest.is_some() && (number == self.main || Some(number) == self.guest)
    }

    /// Pods that run another revision and are to run the guest: first who answers nobody.
    fn chosen(&self) -> impl Iterator<Item = &PodView> {
        let guest = self.guest;
        let (guests, mut others): (Vec<&PodView>, Vec<&PodView>) =
            self.pods.iter().copied().partition(|pod| guest.is_some_and(|guest| pod.runs(guest)));
        others.sort_by_key(|pod| {
            (settled(pod, running(pod, guest)), guest.is_none_or(|guest| !pod.holds(guest)))
        });
        others.into_iter().take(self.wanted.saturating_sub(guests.len()))
    }

    /// What a pod is to run.
    fn to(&self, pod: &PodView) -> u64 {
        let Some(guest) = self.guest else { return self.main };
        let is_it = |other: &&PodView| other.meta.uid == pod.meta.uid;
        let mut guests = self.pods.iter().copied().filter(|pod| pod.runs(guest)).take(self.wanted);
        // It can come only where its files are.
        let comes = self.chosen().filter(|pod| pod.holds(guest)).any(|other| is_it(&other));
        if guests.any(|other| is_it(&other)) || comes { guest } else { self.main }
    }

    /// No more than one pod less answers, and what is to run there can.
    fn may(&self, pod: &PodView, run: u64, to: u64) -> bool {
        let others = || self.pods.iter().filter(|other| other.meta.uid != pod.meta.uid);
        let mut changes = others().filter(|other| other.runs(to) && !settled(other, to));
        let comes = Some(to) == self.guest;
        if comes && !self.is_fetched(pod, to) {
            return false;
        }
        if !settled(pod, run) || self.world.is_unrouted(run) {
            return !(comes && changes.next().is_some());
        }
        let desired = usize::try_from(self.world.desired).unwrap_or(0);
        let answer = others().filter(|other| settled(other, running(other, self.guest))).count();
        // Those that find no place answer nobody, whatever happens here.
        let homeless = others().filter(|other| other.unschedulable.is_some()).count();
        let refused = if self.refused { desired.saturating_sub(self.pods.len()) } else { 0 };
        answer + homeless == others().count()
            && answer + homeless + refused + 1 >= desired
            && self.is_fetched(pod, to)
    }

    fn is_fetched(&self, pod: &PodView, number: u64) -> bool {
        match state(self.world, pod, number) {
            Some(state) => state.phase == RevisionPhase::Fetched,
            // An older server says nothing of them: they come when it runs them.
            None => {
                self.world.snapshot.pod_states.get(&pod.meta.uid).is_some_and(|state| !state.fetches_only)
            }
        }
    }

    /// No gateway sends a request to this pod for the revision.
    fn is_quiet(&self, pod: &PodView, number: u64) -> bool {
        let world = self.world;
        let drains = |drained: &DrainedPod| drained.pod == pod.meta.name && drained.revision == number as i64;
        let drained = world.route.is_some_and(|route| {
            route.spec.mode != RouteMode::Forward || route.spec.drained.as_ref().is_some_and(drains)
        });
        !pod.serves(number) || world.is_unrouted(number) || drained && world.may_move()
    }
}

/// The revision that a pod runs; of two, the newer one where it serves.
fn running(pod: &PodView, guest: Option<u64>) -> u64 {
    let mut slots = pod.slots.iter().filter(|slot| !slot.fetch_only).map(|slot| slot.revision);
    let serving = guest.filter(|guest| pod.serves(*guest));
    serving.or_else(|| slots.next()).unwrap_or_default()
}

/// It answers for what it runs.
fn settled(pod: &PodView, run: u64) -> bool {
    pod.ready && pod.serves(run)
}
