use std::collections::BTreeMap;

use crate::formats::{ShadowReport, Trial};

/// What the analysis of the attempt that the ModelRoute names goes by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Of all gateways together.
    pub counts: Counts,
    /// By metric: what Prometheus said.
    pub measurements: BTreeMap<String, Measurement>,
}

/// See `formats::Trial`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub requests: u64,
    pub errors: u64,
    pub latencies: BTreeMap<i32, u64>,
    pub independent: f64,
    pub shadow: ShadowReport,
}

impl Counts {
    pub fn add(&mut self, trial: &Trial) {
        self.requests += trial.requests;
        self.errors += trial.errors;
        self.independent += trial.independent;
        if let Some(shadow) = &trial.shadow {
            self.shadow.add(shadow);
        }
        for (step, count) in &trial.latencies {
            *self.latencies.entry(*step).or_default() += count;
        }
    }
}

/// The values of one query since this operator leads: what its predecessor has seen is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    pub values: u64,
    /// Of these, above the metric's `max`.
    pub failures: u64,
    pub last: Option<f64>,
    /// Why the last query gave no value.
    pub error: Option<String>,
}
