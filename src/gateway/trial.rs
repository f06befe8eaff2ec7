//! What a canary's analysis counts of the requests that pods answer: see `formats::Trial`.
//!
//! Latencies are compared within an interval, since load and time of day change both revisions' alike. The threshold is
//! an order statistic of the stable revision's n requests, chosen so that a candidate that is its equal exceeds it with
//! 1 % of its requests at most: the k-th of n with (n − k + 1) / (n + 1) ≤ 1 %, which takes n ≥ 99.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::metrics::Code;
use crate::formats;

/// An interval with fewer requests of the stable revision goes on.
const FEWEST: u64 = 100;

/// The attempt that a route is in, as far as it is counted.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialView {
    pub stable: i64,
    pub candidate: i64,
    pub attempt: i64,
    pub interval: Duration,
}

#[derive(Debug)]
pub struct Trial {
    view: TrialView,
    /// The ModelRoute's uid.
    route: String,
    process: u64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    errors: u64,
    latencies: BTreeMap<i32, u64>,
    independent: f64,
    /// Of the interval, by step.
    stable: BTreeMap<i32, u64>,
    candidate: BTreeMap<i32, u64>,
    since: Duration,
}

/// A revision's part in the trial.
#[derive(Clone, Debug)]
pub struct Part {
    pub trial: Arc<Trial>,
    is_candidate: bool,
}

impl Trial {
    /// The former one where it is the same attempt.
    pub fn of(view: &TrialView, route: &str, former: Option<&Arc<Trial>>, now: Duration) -> Arc<Trial> {
        if let Some(former) = former.filter(|former| former.view == *view && former.route == route) {
            return former.clone();
        }
        let counts = Counts { since: now, ..Counts::default() };
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(now);
        let process = u64::try_from(started.as_nanos()).unwrap_or(0);
        Arc::new(Trial { view: view.clone(), route: route.into(), process, counts: Mutex::new(counts) })
    }

    pub fn part(self: &Arc<Self>, revision: i64) -> Option<Part> {
        let is_candidate = revision == self.view.candidate;
        (is_candidate || revision == self.view.stable).then(|| Part { trial: self.clone(), is_candidate })
    }

    pub fn report(&self, now: Duration) -> formats::Trial {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.compare(self.view.interval, now);
        formats::Trial {
            process: self.process,
            route: self.route.clone(),
            candidate: self.view.candidate,
            attempt: self.view.attempt,
            requests: counts.requests,
            errors: counts.errors,
            latencies: counts.latencies.clone(),
            independent: counts.independent,
            shadow: None,
        }
    }
}

impl Counts {
    /// At an interval's end.
    fn compare(&mut self, interval: Duration, now: Duration) {
        let stable: u64 = self.stable.values().sum();
        if now.saturating_sub(self.since) < interval || stable < FEWEST {
            return;
        }
        let rank = (0.99 * (stable + 1) as f64).ceil() as u64;
        let threshold = formats::Trial::step_of(&self.stable, rank).unwrap_or(0);
        let candidate: u64 = self.candidate.values().sum();
        self.independent += stable as f64 * candidate as f64 / (stable + candidate) as f64;
        for (step, count) in std::mem::take(&mut self.candidate) {
            *self.latencies.entry(step - threshold).or_default() += count;
        }
        self.stable.clear();
        self.since = now;
    }
}

impl Part {
    /// A pod has answered. `took`: from the sending to the answer's beginning, which no slow client delays.
    pub fn answered(&self, code: Code, took: Duration, now: Duration) {
        match code {
            Code::Ok => {}
            Code::Server => return self.failed(),
            // The client's fault, or nobody's.
            Code::Client | Code::Cancelled => return,
        }
        let step = ((took.as_micros().max(1) as f64).log2() * formats::Trial::STEPS).round() as i32;
        let mut counts = self.trial.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.compare(self.trial.view.interval, now);
        if self.is_candidate {
            counts.requests += 1;
            *counts.candidate.entry(step).or_default() += 1;
        } else {
            *counts.stable.entry(step).or_default() += 1;
        }
    }

    /// It has failed a request, whether or not another pod answers it then.
    pub fn failed(&self) {
        if self.is_candidate {
            let mut counts = self.trial.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.requests += 1;
            counts.errors += 1;
        }
    }
}

#[cfg(test)]
mod tests;
