//! What gateways have counted for analyses. They count from the beginning of an attempt, so a new leader has all of it
//! with their first line; only what a gateway had counted that is gone is then lost, and less evidence holds.

use std::collections::{BTreeMap, HashMap};

use crate::formats::Trial;
use crate::observe::Counts;

/// Processes of gateways, a route: one that starts again and again must not fill the memory.
const MOST: usize = 64;

/// By the ModelRoute's uid, and by the start of a gateway's process and its pod.
#[derive(Default)]
pub(super) struct Trials(HashMap<String, BTreeMap<(u64, String), Trial>>);

impl Trials {
    pub fn hear(&mut self, pod: &str, trial: Trial) {
        let told = self.0.entry(trial.route.clone()).or_default();
        told.insert((trial.process, pod.into()), trial);
        if told.len() > MOST {
            told.pop_first();
        }
    }

    /// Of all gateways together.
    pub fn counts(&self, route: &str, candidate: i64, attempt: i64) -> Counts {
        let mut counts = Counts::default();
        let told = self.0.get(route).into_iter().flat_map(|told| told.values());
        for trial in told.filter(|trial| trial.candidate == candidate && trial.attempt == attempt) {
            counts.add(trial);
        }
        counts
    }

    pub fn retain(&mut self, is_analysed: impl Fn(&str) -> bool) {
        self.0.retain(|route, _| is_analysed(route));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
