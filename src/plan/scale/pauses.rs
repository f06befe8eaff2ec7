//! How long to keep an idle pod: learned from the pauses between requests.
//!
//! Renting until the rent has cost as much as buying is the best that can be done without knowing the future; with a
//! histogram of the past it is known which time costs the least.

use super::{Seconds, Tuning};

/// Shorter pauses say nothing of when to stop.
const SHORTEST: Seconds = 5.0;
/// Pauses before they count.
const ENOUGH: f64 = 5.0;
/// An older pause counts less by this, each time a newer one comes.
const MEMORY: f64 = 0.99;
/// A cost below this share of the usual one is no accident of the sample.
const EVIDENT: f64 = 0.5;
const MARGIN: f64 = 2.0;
const EDGES: [Seconds; 20] = [
    5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 130.0, 160.0, 200.0, 250.0, 300.0,
    370.0, 440.0, 520.0, 600.0,
];

#[derive(Clone, Debug)]
pub(super) struct Pauses {
    /// The pauses from each edge to the next.
    bins: [Bin; EDGES.len()],
    pauses: f64,
    requests: f64,
    /// The newest pause's bin, and until when those who come would have waited for a pod.
    open: Option<(usize, Seconds)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    pauses: f64,
    seconds: f64,
    /// Requests within a cold start after the pause.
    requests: f64,
}

impl Pauses {
    pub fn new() -> Self {
        Self { bins: [Bin::default(); EDGES.len()], pauses: 0.0, requests: 0.0, open: None }
    }

    /// Requests came, `pause` after the last.
    pub fn record(&mut self, pause: Seconds, now: Seconds, arrivals: f64, cold_start: Seconds) {
        if pause >= SHORTEST && arrivals > 0.0 {
            for bin in &mut self.bins {
                bin.pauses *= MEMORY;
                bin.seconds *= MEMORY;
                bin.requests *= MEMORY;
            }
            self.pauses = self.pauses * MEMORY + 1.0;
            self.requests *= MEMORY;
            let at = EDGES.partition_point(|edge| *edge <= pause) - 1;
            self.bins[at].pauses += 1.0;
            self.bins[at].seconds += pause;
            self.open = Some((at, now + cold_start));
        }
        self.requests += arrivals;
        if let Some((at, until)) = self.open {
            match now <= until {
                true => self.bins[at].requests += arrivals,
                false => self.open = None,
            }
        }
    }

    /// The time that costs the least, in idle pods and in waits; no longer than the share of cold requests asks for.
    pub fn keep(&self, cold_start: Seconds, tuning: &Tuning) -> Seconds {
        let usual = (tuning.idle_share * cold_start).clamp(tuning.idle_least, tuning.idle_most);
        if self.pauses < ENOUGH {
            return usual;
        }
        let enough = |at: usize| self.after(at).1 <= tuning.cold_budget * self.requests;
        let last = (0..EDGES.len()).find(|at| enough(*at)).unwrap_or(EDGES.len() - 1);
        let cost = |at: usize| self.cost(at, cold_start, tuning);
        let best = (0..=last).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(last);
        if EDGES[best] >= usual {
            return EDGES[best];
        }
        // Sooner than usual needs evidence: the past's longest pause is seldom the future's.
        let at_usual = EDGES.partition_point(|edge| *edge < usual).min(EDGES.len() - 1);
        match () {
            () if cost(best) < EVIDENT * cost(at_usual) => EDGES[best],
            () if best == last => (MARGIN * EDGES[best]).min(usual),
            () => usual,
        }
    }

    /// Pauses of at least this edge, and the requests that would find no pod after them.
    fn after(&self, at: usize) -> (f64, f64) {
        let longer = &self.bins[at..];
        (longer.iter().map(|bin| bin.pauses).sum(), longer.iter().map(|bin| bin.requests).sum())
    }

    /// Of stopping at this edge, in pod-seconds.
    fn cost(&self, at: usize, cold_start: Seconds, tuning: &Tuning) -> f64 {
        let (pauses, requests) = self.after(at);
        let idle = self.bins[..at].iter().map(|bin| bin.seconds).sum::<f64>() + pauses * EDGES[at];
        // The first of each waits for the whole start, the rest for half of it.
        let waits = (pauses + (requests - pauses).max(0.0) / 2.0) * cold_start;
        idle + pauses * cold_start + tuning.wait_worth * waits
    }
}
