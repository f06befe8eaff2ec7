//! How many pods a model should have. Pure: demand, pods, settings and the time go in; a number, its reason and a
//! sentence come out. `operator/scaling` brings the samples and the clock, `plan/autoscale` the rest.
//!
//! ```text
//! samples ─┬─> load, in pods ──> the highest of a window ──┐
//!          ├─> what waits ─────> pods that drain it ───────┼─> bounds, room ──> desired, reason, sentence
//!          └─> pauses ─────────> how long an idle pod pays ┘
//! ```

mod demand;
mod explain;
mod pauses;
mod tuning;

pub use demand::Sample;
pub use explain::{Active, Limit, Reason};
pub use tuning::Tuning;

use demand::{Peaks, Recent};
use pauses::Pauses;

/// On the caller's monotonic clock, from any fixed moment: a clock that is set must not look like a pause.
pub type Seconds = f64;

/// Without a sample for so long nothing is known. Gateways report at least once a second.
const STALE: Seconds = 5.0;
/// Of a model that was never seen to start.
const COLD_START: Seconds = 60.0;
/// The mean of this time is how fast requests come now.
const NOW: Seconds = 2.0;
/// Windows of means are never longer.
const LONGEST: Seconds = 60.0;

/// What one pod is good for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// By the server, at the knee of its batching curve: requests in a pod, and requests a second.
    Measured {
        concurrency: f64,
        per_second: f64,
    },
    /// By the user.
    Concurrency(f64),
    RequestsPerSecond(f64),
    /// What a pod takes is not known: no demand changes the number, but none at all does.
    Unmeasured,
}

impl Target {
    /// What is planned with, in requests a second or at a time.
    pub fn of_a_pod(&self, tuning: &Tuning) -> Option<f64> {
        match *self {
            Target::Measured { per_second, .. } => Some(per_second * tuning.utilization),
            Target::Concurrency(target) | Target::RequestsPerSecond(target) => Some(target),
            Target::Unmeasured => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub min: u32,
    pub max: u32,
    pub target: Target,
    /// From a pod's creation until it is proven; None: never measured.
    pub cold_start: Option<Seconds>,
    /// HPA's `behavior.scaleDown.stabilizationWindowSeconds`; None: from the cold start.
    pub stabilization_window: Option<Seconds>,
    /// None: from the cold start and the pauses that were seen.
    pub scale_to_zero_after: Option<Seconds>,
    /// The target is the server's, or will be.
    pub is_measured: bool,
    /// A pod was ready once. Until then one is tried, whatever the demand.
    pub proven: bool,
    pub tuning: Tuning,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pods {
    pub ready: u32,
    /// On their way, with a node.
    pub starting: u32,
    /// The scheduler has no room for them.
    pub unschedulable: u32,
}

impl Pods {
    pub fn all(&self) -> u32 {
        self.ready + self.starting + self.unschedulable
    }
}

/// Whose samples these are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gateways {
    pub reporting: u32,
    pub all: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub desired: u32,
    pub reason: Reason,
    /// One sentence for status and events.
    pub message: String,
    /// For each ready pod, in what the target counts.
    pub current: Option<f64>,
    /// For `ScalingActive` and `ScalingLimited`.
    pub active: Active,
    pub limited: Limit,
    /// Without news, look again then.
    pub wake_at: Option<Seconds>,
}

/// What is remembered of the demand on one model: of fixed size.
#[derive(Clone, Debug)]
pub struct Scaler {
    recent: Recent,
    peaks: Peaks,
    pauses: Pauses,
    newest: Sample,
    sampled_at: Option<Seconds>,
    since: Seconds,
    busy_at: Seconds,
    /// It ever was.
    was_busy: bool,
    desired: Option<u32>,
}

/// The demand in pods, as of one look.
struct Load {
    now: f64,
    /// The highest of the window.
    peak: f64,
    /// So many would drain what waits in time.
    draining: u32,
}

impl Scaler {
    /// `since`: from then on, all that was asked for will be observed.
    pub fn new(since: Seconds) -> Self {
        Self {
            recent: Recent::new(),
            peaks: Peaks::new(),
            pauses: Pauses::new(),
            newest: Sample::default(),
            sampled_at: None,
            since,
            busy_at: since,
            was_busy: false,
            desired: None,
        }
    }

    /// A report; one that is not newer than the last is passed over.
    pub fn observe(&mut self, now: Seconds, sample: Sample, settings: &Settings) {
        let from = self.sampled_at.unwrap_or(self.since);
        if now < from || !sample.is_valid() {
            return;
        }
        self.recent.record(from, now, &sample);
        let busy = sample.arrivals > 0.0 || sample.in_flight + sample.held > 0;
        if busy {
            self.pauses.record(now - self.busy_at, now, sample.arrivals, cold_start(settings));
            self.busy_at = now;
            self.was_busy = true;
        }
        self.newest = sample;
        self.sampled_at = Some(now);
        let load = self.load_now(now, settings);
        self.peaks.record(now, load);
    }

    pub fn decide(&mut self, now: Seconds, pods: Pods, gateways: Gateways, settings: &Settings) -> Decision {
        let before = self.desired.unwrap_or(pods.all());
        let stale = self.sampled_at.is_none_or(|at| now - at > STALE);
        if stale || gateways.reporting == 0 {
            let desired = before.clamp(settings.min, settings.max.max(settings.min));
            self.desired = Some(desired);
            return explain::no_data(desired, gateways);
        }
        if self.desired.is_none() && now - self.since < window(settings) {
            // A new leader that does not know all of the window: nothing shrinks before it has passed.
            self.peaks.record(now, f64::from(pods.all()));
        }
        let load = self.load(now, pods, settings);
        // Where nothing was ever asked for, no pod needs none.
        let idle_until = match self.was_busy || before > 0 {
            true => self.busy_at + self.keep_idle(settings),
            false => now,
        };
        let (mut wanted, mut reason) = self.wanted(now, before, &load, idle_until, settings);
        if gateways.reporting < gateways.all && wanted < before {
            // What the silent ones see is not known.
            (wanted, reason) = (before, Reason::GatewaySilent);
        }
        let (desired, limited) = bounded(wanted, pods, settings);
        self.desired = Some(desired);
        let wake_at = match reason {
            Reason::KeptWarm => Some(idle_until),
            Reason::Stabilizing => Some(now + Peaks::SLOT),
            _ => None,
        };
        let facts = explain::Facts {
            desired,
            wanted,
            before,
            load: load.now,
            current: self.current(now, pods, settings),
            held: self.newest.held,
            pods,
            gateways,
            idle_for: now - self.busy_at,
            idle_until,
            now,
        };
        explain::decision(reason, limited, wake_at, &facts, settings)
    }

    fn wanted(
        &self,
        now: Seconds,
        before: u32,
        load: &Load,
        idle_until: Seconds,
        settings: &Settings,
    ) -> (u32, Reason) {
        let busy = self.newest.held + self.newest.in_flight > 0 || (self.was_busy && now <= self.busy_at);
        if !busy && now >= idle_until {
            return if settings.proven { (0, Reason::Idle) } else { (1, Reason::NeverReady) };
        }
        if settings.target == Target::Unmeasured {
            return (before.max(1), if before == 0 { Reason::Waking } else { Reason::AsNeeded });
        }
        let steady = (load.peak.ceil() as u32).max(1);
        if load.draining > steady.max(before) || (load.draining >= before && load.draining > steady) {
            return (load.draining, if before == 0 { Reason::Waking } else { Reason::RequestsWait });
        }
        let tolerated = f64::from(before) * (1.0 + settings.tuning.tolerance);
        if steady > before {
            return match before {
                0 => (steady, Reason::Waking),
                _ if load.peak <= tolerated => (before.max(load.draining), Reason::WithinTolerance),
                _ => (steady, Reason::DemandRose),
            };
        }
        let wanted = steady.max(load.draining);
        let needed = (load.now.ceil() as u32).max(1);
        let reason = match () {
            () if wanted < before => Reason::DemandFell,
            () if !busy && wanted == 1 => Reason::KeptWarm,
            () if wanted > needed => Reason::Stabilizing,
            () => Reason::AsNeeded,
        };
        (wanted, reason)
    }

    fn load_now(&self, now: Seconds, settings: &Settings) -> f64 {
        let target = settings.target.of_a_pod(&settings.tuning);
        target.map_or(0.0, |target| self.metric(now, settings) / target)
    }

    /// What the target counts, of all pods.
    fn metric(&self, now: Seconds, settings: &Settings) -> f64 {
        let tuning = &settings.tuning;
        let window = (tuning.smooth_share * cold_start(settings)).clamp(tuning.smooth_least, LONGEST);
        let (per_second, concurrency) = self.recent.mean(now, window);
        match settings.target {
            Target::Concurrency(_) => concurrency,
            _ => per_second,
        }
    }

    fn current(&self, now: Seconds, pods: Pods, settings: &Settings) -> Option<f64> {
        Some(self.metric(now, settings) / f64::from(pods.ready.max(1)))
    }

    fn load(&self, now: Seconds, pods: Pods, settings: &Settings) -> Load {
        let load = self.load_now(now, settings);
        // A hair less: three pods' worth of demand is not to be four by a rounding error.
        let peak = self.peaks.highest(now, window(settings)).max(load) * (1.0 - 1e-6);
        Load { now: load, peak, draining: self.draining(now, pods, settings) }
    }

    /// Pods for what waits, if it will still wait when a pod that is created now is ready.
    fn draining(&self, now: Seconds, pods: Pods, settings: &Settings) -> u32 {
        let tuning = &settings.tuning;
        let held = self.newest.held as f64;
        if held == 0.0 {
            return 0;
        }
        let cold_start = cold_start(settings);
        let capacity = match settings.target {
            Target::Measured { per_second, .. } | Target::RequestsPerSecond(per_second) => per_second,
            Target::Concurrency(target) => {
                let (_, concurrency) = self.recent.mean(now, NOW);
                return (concurrency / target).ceil() as u32;
            }
            Target::Unmeasured => return 0,
        };
        let (soon, _) = self.recent.mean(now, (tuning.burst_share * cold_start).clamp(NOW, LONGEST));
        let (mean, _) = self.recent.mean(now, tuning.smooth_least);
        let coming = soon.max(mean);
        let then = held + (coming - capacity * f64::from(pods.ready)) * cold_start;
        if then <= 0.0 {
            return 0;
        }
        let within = (tuning.drain_share * cold_start).max(tuning.drain_least);
        ((coming + held.max(then) / within) / capacity).ceil() as u32
    }

    fn keep_idle(&self, settings: &Settings) -> Seconds {
        settings
            .scale_to_zero_after
            .unwrap_or_else(|| self.pauses.keep(cold_start(settings), &settings.tuning))
    }
}

/// In which a count that was needed stays.
fn window(settings: &Settings) -> Seconds {
    let tuning = &settings.tuning;
    let by_cold_start = (tuning.window_share * cold_start(settings)).clamp(tuning.window_least, 600.0);
    settings.stabilization_window.unwrap_or(by_cold_start)
}

fn cold_start(settings: &Settings) -> Seconds {
    settings.cold_start.unwrap_or(COLD_START)
}

fn bounded(wanted: u32, pods: Pods, settings: &Settings) -> (u32, Limit) {
    let max = settings.max.max(settings.min);
    let desired = wanted.clamp(settings.min, max);
    // One pod that waits for room is enough to notice that there is some.
    let room = pods.ready + pods.starting + 1;
    if pods.unschedulable > 0 && desired > room {
        return (room.max(settings.min), Limit::NoGpuAvailable);
    }
    let limit = match () {
        () if wanted > max => Limit::TooManyReplicas,
        () if wanted < settings.min => Limit::TooFewReplicas,
        () => Limit::WithinRange,
    };
    (desired, limit)
}

#[cfg(test)]
mod tests;
