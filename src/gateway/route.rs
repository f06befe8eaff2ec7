//! One deployment's route and ready pods: never changed, only replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::metrics::ArmMetrics;
use super::mirror::Shadow;
use super::pick;
use super::pod::Pod;
use super::trial::{Part, Trial};
use crate::api::{RouteLimits, RouteMode};

#[derive(Debug)]
pub struct Route {
    pub uid: String,
    pub generation: i64,
    pub mode: RouteMode,
    pub limits: RouteLimits,
    pub arms: Vec<Arm>,
    /// Who else gets a share of the requests.
    pub shadow: Option<Shadow>,
    /// The ModelRoute was deleted.
    pub gone: bool,
    /// Requests that were given a pod by this route and are not yet on their way.
    sending: AtomicUsize,
    /// Another is in its place.
    retired: AtomicBool,
    /// Told when a retired route has sent its last.
    sent: Arc<Notify>,
}

/// A backend and its pods that are ready.
#[derive(Clone, Debug)]
pub struct Arm {
    pub revision: i64,
    pub weight: u32,
    pub pods: Vec<Arc<Pod>>,
    pub metrics: Arc<ArmMetrics>,
    /// Some: it is counted for an analysis.
    pub part: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    Wait,
    /// `RouteMode::Refuse`
    Refuse,
    NoSuchVersion,
    Gone,
}

/// Permission to send one request by a route that is still in force.
#[derive(Debug)]
pub struct Sending(Arc<Route>);

impl Drop for Sending {
    fn drop(&mut self) {
        if self.0.sending.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.retired.load(Ordering::SeqCst) {
            self.0.sent.notify_one();
        }
    }
}

impl Route {
    pub fn new(
        uid: String,
        generation: i64,
        mode: RouteMode,
        limits: RouteLimits,
        arms: Vec<Arm>,
        shadow: Option<Shadow>,
        sent: Arc<Notify>,
    ) -> Self {
        let (sending, retired) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { uid, generation, mode, limits, arms, shadow, gone: false, sending, retired, sent }
    }

    /// None: it has been replaced. Whoever retires a route either sees this request or is seen by it: both write
    /// before they read, in one order for all threads.
    pub fn begin(self: &Arc<Self>) -> Option<Sending> {
        self.sending.fetch_add(1, Ordering::SeqCst);
        let sending = Sending(self.clone());
        (!self.retired.load(Ordering::SeqCst)).then_some(sending)
    }

    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }

    /// After `retire`: no request is sent by it any more.
    pub fn is_sent(&self) -> bool {
        self.sending.load(Ordering::SeqCst) == 0
    }

    /// What happens to a request for `target`, a revision, or any.
    pub fn verdict(&self, target: Option<i64>, now: Duration) -> Verdict {
        if self.gone {
            return Verdict::Gone;
        }
        if self.mode == RouteMode::Refuse {
            return Verdict::Refuse;
        }
        if target.is_some_and(|revision| self.arms.iter().all(|arm| arm.revision != revision)) {
            return Verdict::NoSuchVersion;
        }
        let open = self.mode == RouteMode::Forward && self.candidates(target).any(|arm| arm.open(now));
        if open { Verdict::Go } else { Verdict::Wait }
    }

    /// A pod for the `ticket`-th request, rather another than `not`.
    pub fn pick(
        &self,
        target: Option<i64>,
        ticket: u64,
        not: Option<&Pod>,
        now: Duration,
    ) -> Option<(&Arm, &Arc<Pod>)> {
        if self.verdict(target, now) != Verdict::Go {
            return None;
        }
        let chosen = match target {
            Some(_) => self.candidates(target).next()?,
            None => self.arms.get(pick::by_weight(self.arms.iter().map(|arm| arm.weight), ticket)?)?,
        };
        // A revision without a ready pod leaves its share to the others.
        let others = self.candidates(target);
        let arm = std::iter::once(chosen).chain(others).find(|arm| arm.open(now))?;
        let other = |pod: &Arc<Pod>| not.is_none_or(|not| not.uid != pod.uid);
        let random = pick::mixed(ticket);
        let pod = pick::of_two(&arm.pods, |pod| pod.load(now).filter(|_| other(pod)), random)
            .or_else(|| pick::of_two(&arm.pods, |pod| pod.load(now), random))?;
        Some((arm, pod))
    }

    /// Whether a request for `target` may go to `pod`, which another route has picked.
    pub fn allows(&self, target: Option<i64>, pod: &Arc<Pod>) -> bool {
        self.mode == RouteMode::Forward
            && !self.gone
            && self.candidates(target).any(|arm| arm.pods.iter().any(|one| Arc::ptr_eq(one, pod)))
    }

    /// Requests that `arm` answers are compared with another's answers.
    pub fn shadow_of(&self, arm: &Arm) -> Option<&Shadow> {
        self.shadow.as_ref().filter(|shadow| shadow.mirror.revision != arm.revision)
    }

    fn candidates(&self, target: Option<i64>) -> impl Iterator<Item = &Arm> {
        self.arms.iter().filter(move |arm| match target {
            Some(revision) => arm.revision == revision,
            None => arm.weight > 0,
        })
    }

    pub fn trial(&self) -> Option<&Arc<Trial>> {
        self.arms.iter().find_map(|arm| Some(&arm.part.as_ref()?.trial))
    }

    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.arms.iter().flat_map(|arm| &arm.pods)
    }
}

impl Arm {
    fn open(&self, now: Duration) -> bool {
        self.pods.iter().any(|pod| pod.load(now).is_some())
    }
}

#[cfg(test)]
mod tests;
