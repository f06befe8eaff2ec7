//! One deployment: its route in force, who runs, who waits.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::budget::Budget;
use super::demand::Demand;
use super::hold::{Place, Queue, Step, unavailable};
use super::pod::now;
use super::refused::Refused;
use super::route::{Route, Verdict};
use crate::api::{Authentication, RouteLimits};
use crate::bodies::Bodies;
use crate::formats;
use crate::protocol::{Error, Kind};

/// Requests that may run at once; more wait. One deployment must not take all of the gateway's memory.
const MOST_ACTIVE: usize = 2048;
/// Requests that a pod has in flight before more are let out of the queue, at first: it is busy with these, and all that
/// wait at once would overflow its own queue. Each one that ends lets out two.
const WINDOW: usize = 64;

pub struct Deployment {
    pub name: String,
    route: ArcSwap<Route>,
    active: AtomicUsize,
    queue: Queue<Active>,
    /// How far the window is open beyond its first width.
    opened: AtomicUsize,
    requests: AtomicU64,
    budget: Mutex<Budget>,
    demand: Demand,
    pub bodies: Arc<Bodies>,
    /// Told when `held` has changed.
    changes: watch::Sender<()>,
}

/// A request that runs, until it is dropped; the next in the queue follows.
pub struct Active(Option<Arc<Deployment>>);

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Active")
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(deployment) = &self.0 {
            deployment.end(1);
            if !deployment.queue.is_empty() {
                deployment.opened.fetch_add(1, Ordering::Relaxed);
                deployment.pump();
            }
        }
    }
}

/// One that waits, in the demand.
struct Present<'a>(&'a Demand);

impl<'a> Present<'a> {
    fn of(demand: &'a Demand) -> Self {
        demand.enter(now());
        Self(demand)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.leave(now());
    }
}

/// What a request remembers of its waits.
#[derive(Debug, Default)]
pub struct Waits {
    /// It has been counted as one that arrived.
    counted: bool,
    /// Its place; it keeps it.
    number: Option<u64>,
    /// It has been given to a pod before: no bound refuses it any more.
    accepted: bool,
    /// Since when it has not been sent.
    pub since: Option<Instant>,
}

impl Waits {
    /// Until when it waits at most, and how many seconds that is.
    fn end(&mut self, limits: &RouteLimits) -> (Instant, u64) {
        let limit = u64::try_from(limits.queue_timeout_seconds).unwrap_or(0);
        (*self.since.get_or_insert_with(Instant::now) + Duration::from_secs(limit), limit)
    }

    /// A pod could not be reached.
    ///
    /// # Errors
    /// It has been tried for long enough: where nobody can be reached some pod can always be tried again.
    pub fn go_on(&mut self, limits: &RouteLimits, patience: Option<Instant>) -> Result<(), (Refused, Error)> {
        let ((end, limit), now) = (self.end(limits), Instant::now());
        if patience.is_some_and(|patience| patience <= now) {
            let message = "no pod could be reached within the client's own deadline";
            return Err((Refused::Deadline, Error::new(Kind::DeadlineExceeded, message)));
        }
        if end <= now {
            let message =
                format!("no pod could be reached within {limit} s (spec.traffic.queue.timeoutSeconds)");
            return Err((Refused::Unreachable, unavailable(message)));
        }
        Ok(())
    }
}

impl Deployment {
    pub fn new(name: &str, route: Route, bodies: Arc<Bodies>, changes: watch::Sender<()>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            route: ArcSwap::from_pointee(route),
            active: AtomicUsize::new(0),
            queue: Queue::default(),
            opened: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            budget: Mutex::default(),
            demand: Demand::default(),
            bodies,
            changes,
        })
    }

    pub fn route(&self) -> Arc<Route> {
        self.route.load_full()
    }

    pub fn authentication(&self) -> Authentication {
        self.route.load().limits.authentication
    }

    /// Whether a request could be sent now.
    pub fn is_ready(&self, target: Option<i64>) -> bool {
        self.route.load().verdict(target, now()) == Verdict::Go
    }

    /// The route that was in force. It is retired: what it still sends is known by `is_sent`.
    pub fn replace(self: &Arc<Self>, route: Route) -> Arc<Route> {
        let old = self.route.swap(Arc::new(route));
        old.retire();
        self.pump();
        old
    }

    pub fn held(&self) -> usize {
        self.queue.len()
    }

    /// Requests that run or wait.
    pub fn present(&self) -> u64 {
        self.demand.present()
    }

    /// A number for each request, also of those that are sent again.
    pub fn ticket(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub fn may_retry(&self) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.take(self.requests.load(Ordering::Relaxed), now())
    }

    fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::SeqCst);
        self.demand.enter(now());
        Active(Some(self.clone()))
    }

    fn end(&self, count: usize) {
        self.active.fetch_sub(count, Ordering::SeqCst);
        (0..count).for_each(|_| self.demand.leave(now()));
    }

    /// What was asked of it so far.
    pub fn demand(&self) -> formats::Demand {
        let counted = self.demand.counted(now());
        formats::Demand {
            arrivals: counted.arrivals,
            request_seconds: (counted.request_seconds * 1e3).round() / 1e3,
            in_flight: self.active.load(Ordering::SeqCst) as u64,
        }
    }

    pub fn past(&self) -> Vec<formats::PastDemand> {
        self.demand.past(now())
    }

    /// Waits until the request may be sent: at once, as a rule. `patience`: of the client.
    ///
    /// # Errors
    /// What the client is told.
    pub async fn admit(
        self: &Arc<Self>,
        target: Option<i64>,
        bytes: usize,
        waits: &mut Waits,
        patience: Option<Instant>,
    ) -> Result<Active, (Refused, Error)> {
        let route = self.route.load_full();
        let verdict = route.verdict(target, now());
        // Also one that finds the queue full: it is asked for.
        if matches!(verdict, Verdict::Go | Verdict::Wait) && !std::mem::replace(&mut waits.counted, true) {
            self.demand.arrived(now());
        }
        match verdict {
            Verdict::Go if self.queue.is_empty() && self.active.load(Ordering::SeqCst) < MOST_ACTIVE => {
                waits.accepted = true;
                return Ok(self.begin());
            }
            Verdict::Go | Verdict::Wait => {}
            refusal => return Err(self.refusal(refusal, target)),
        }
        if waits.accepted && waits.number.is_none() {
            waits.number = Some(self.queue.number());
        }
        let mut place = self.queue.enter(target, bytes, waits.number, &route.limits)?;
        waits.number = Some(place.number);
        let present = Present::of(&self.demand);
        self.changes.send_replace(());
        // A pod may have come between the look at the route and the queue.
        self.pump();
        let result = self.turn(&mut place, &route, waits, patience).await;
        drop((present, place));
        self.changes.send_replace(());
        let active = result?;
        waits.accepted = true;
        match self.route.load().verdict(target, now()) {
            Verdict::Go | Verdict::Wait => Ok(active),
            refusal => Err(self.refusal(refusal, target)),
        }
    }

    async fn turn(
        &self,
        place: &mut Place<'_, Active>,
        route: &Route,
        waits: &mut Waits,
        patience: Option<Instant>,
    ) -> Result<Active, (Refused, Error)> {
        let (end, limit) = waits.end(&route.limits);
        let until = patience.map_or(end, |patience| patience.min(end));
        match tokio::time::timeout_at(until, &mut place.turn).await {
            Ok(Ok(active)) => Ok(active),
            Err(_) if until < end => Err((
                Refused::Deadline,
                Error::new(Kind::DeadlineExceeded, "no pod became ready within the client's own deadline"),
            )),
            _ => Err((
                Refused::QueueTimeout,
                unavailable(format!(
                    "no pod became ready within {limit} s (spec.traffic.queue.timeoutSeconds)"
                )),
            )),
        }
    }

    fn refusal(&self, verdict: Verdict, target: Option<i64>) -> (Refused, Error) {
        let name = &self.name;
        match verdict {
            Verdict::NoSuchVersion => {
                let version = target.unwrap_or_default();
                let message = format!(
                    "model {name:?} has no version {version} now: leave it out to get the current one"
                );
                (Refused::Unknown, Error::not_found(message))
            }
            Verdict::Gone => (Refused::Unknown, Error::not_found(format!("model {name:?} was deleted"))),
            _ => {
                (Refused::Refusing, unavailable(format!("model {name:?} takes no requests: it is suspended")))
            }
        }
    }

    /// Lets out whose turn it is.
    pub fn pump(self: &Arc<Self>) {
        // A receiver that is gone gives its turn back: once more for each, at most.
        while !self.queue.is_empty() {
            let (route, now) = (self.route.load_full(), now());
            let pods = route.pods().filter(|pod| pod.load(now).is_some()).count();
            let window = (WINDOW * pods + self.opened.load(Ordering::Relaxed)).min(MOST_ACTIVE);
            let released = self.queue.release(|target| match route.verdict(target, now) {
                Verdict::Wait => Step::Stay,
                Verdict::Go if self.active.load(Ordering::SeqCst) >= window => Step::Stop,
                // Who is refused is told so by its own task.
                _ => Step::Go(self.begin()),
            });
            let mut unclaimed = 0;
            for (turn, active) in released {
                if let Err(mut active) = turn.send(active) {
                    active.0 = None;
                    unclaimed += 1;
                }
            }
            self.end(unclaimed);
            if self.queue.is_empty() {
                self.opened.store(0, Ordering::Relaxed);
            }
            if unclaimed == 0 {
                return;
            }
        }
    }
}
