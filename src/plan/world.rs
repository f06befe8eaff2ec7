//! What the decisions look at: the snapshot, and what follows from it.

use jiff::Timestamp;

use super::inplace::{self, Shared};
use super::rollout::pods_of;
use super::{autoscale, strategy};
use crate::api::{Backend, RouteMode, StrategySpec};
use crate::observe::{ReplicaSetView, RevisionView, RouteView, Snapshot};

/// What the decisions look at.
pub(super) struct World<'a> {
    pub snapshot: &'a Snapshot,
    pub now: Timestamp,
    /// Replicas that are to serve.
    pub desired: i32,
    /// The route as the API server has it.
    pub route: Option<&'a RouteView>,
    /// Every gateway forwards by it.
    pub acknowledged: bool,
    /// The revision of the newest spec.
    pub target: Option<&'a RevisionView>,
    pub shared: Option<Shared>,
    /// The traffic is to go back to the stable revision, which has given pods up and gets them again first.
    pub returns: bool,
}

impl<'a> World<'a> {
    pub fn of(snapshot: &'a Snapshot, target: Option<&'a RevisionView>, now: Timestamp) -> Self {
        let route = snapshot.family.route.as_deref();
        let mut world = Self {
            snapshot,
            now,
            target,
            shared: route.and_then(|route| inplace::shared(&route.spec.rollout)),
            returns: false,
            desired: 0,
            route,
            acknowledged: route.is_some_and(|route| snapshot.gateways.acknowledged(route.generation)),
        };
        if !world.is_suspended() {
            world.desired = autoscale::desired(snapshot);
        }
        world.returns = route.is_some_and(|route| strategy::returns(&world, &route.spec));
        world
    }

    /// The ReplicaSet whose pods serve, or are to serve, a revision.
    pub fn set(&self, number: u64) -> Option<&'a ReplicaSetView> {
        match self.shared {
            Some(shared) if number == shared.guest => shared.home(self),
            _ => self.made_for(number),
        }
    }

    /// The ReplicaSet whose new pods get a revision.
    pub fn made_for(&self, number: u64) -> Option<&'a ReplicaSetView> {
        let sets = &self.snapshot.family.replica_sets;
        sets.iter().find(|s| s.number == number && !s.meta.deleting).map(|s| &**s)
    }

    pub fn revision(&self, number: u64) -> Option<&'a RevisionView> {
        let known = self.snapshot.family.revisions.iter().map(|r| &**r);
        known.chain(self.target).find(|r| r.number == number)
    }

    /// Pods of its ReplicaSet that have proven it, and are ready.
    pub fn ready(&self, number: u64) -> i32 {
        let set = self.set(number);
        let pods = pods_of(self.snapshot, number).filter(|pod| pod.ready);
        pods.filter(|pod| set.is_none_or(|set| pod.meta.owner_uid.as_ref() == Some(&set.meta.uid))).count()
            as i32
    }

    /// Pods that surely answer: ReplicaSets and pods are watched apart, and either may lag.
    pub fn available(&self, number: u64) -> i32 {
        self.set(number).map_or(0, |set| set.available.min(set.replicas)).min(self.ready(number))
    }

    /// A pod may answer.
    pub fn answers(&self, number: u64) -> bool {
        // Of two in one ReplicaSet only its pods say which is meant.
        let own = self.set(number).filter(|set| set.number == number && self.shared.is_none());
        own.is_some_and(|set| set.available > 0) || self.ready(number) > 0
    }

    /// As many pods as are wanted have loaded and proven the model.
    pub fn is_full(&self, number: u64, wanted: i32) -> bool {
        let replicas = if self.is_guest(number) { self.desired } else { wanted };
        self.set(number).is_some_and(|s| s.observed && s.replicas == replicas)
            && self.available(number) >= wanted
    }

    /// It lives in the ReplicaSet of another revision.
    pub fn is_guest(&self, number: u64) -> bool {
        self.shared.is_some_and(|shared| shared.guest == number)
    }

    pub fn strategy(&self) -> Option<&'a StrategySpec> {
        self.snapshot.deployment.spec.strategy.as_ref()
    }

    pub fn is_suspended(&self) -> bool {
        self.snapshot.deployment.spec.suspend == Some(true)
    }

    pub fn is_paused(&self) -> bool {
        self.snapshot.deployment.spec.paused == Some(true)
    }

    /// Its share of the traffic by the route that is there.
    pub fn routed_weight(&self, number: u64) -> i32 {
        let backends = self.route.iter().flat_map(|route| &route.spec.backends);
        backends.filter(|b| is(b, number)).map(|b| b.weight).sum()
    }

    /// No request reaches a pod of any revision: all wait in the gateways, or are refused.
    pub fn is_held(&self) -> bool {
        self.acknowledged && self.route.is_some_and(|route| route.spec.mode != RouteMode::Forward)
    }

    /// No request reaches a pod of this revision, nor will by what the gateways know.
    pub fn is_unrouted(&self, number: u64) -> bool {
        let Some(route) = self.route else { return false };
        let direct = self.snapshot.family.service.as_ref().and_then(|service| service.number);
        self.acknowledged && direct != Some(number) && !route.spec.backends.iter().any(|b| is(b, number))
    }

    /// Traffic may move: no gateway lags behind, and the address is theirs.
    pub fn may_move(&self) -> bool {
        self.acknowledged && self.has_gateways_address()
    }

    /// An older operator's Service selects the pods of one revision.
    fn has_gateways_address(&self) -> bool {
        self.snapshot.family.service.as_ref().is_none_or(|service| service.to_gateways)
    }
}

pub(super) fn is(backend: &Backend, number: u64) -> bool {
    u64::try_from(backend.revision) == Ok(number)
}
