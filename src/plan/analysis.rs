//! Whether a candidate's requests fail, or are slow, more often than allowed: a test that may be read at any time.
//!
//! Requests arrive one by one and the verdict is looked at after each, so a test of fixed size would raise a false
//! alarm sooner or later. This one is a mixture of likelihood ratios: with x bad ones of n requests and the allowed
//! share p, `M = Σ wₖ (qₖ/p)^x ((1−qₖ)/(1−p))^(n−x)` over shares qₖ > p. While the true share is at most p, M is a
//! supermartingale that starts at 1, so that it ever reaches 1/α has a probability of at most α (Ville's
//! inequality; Robbins 1970, "Statistical methods related to the law of the iterated logarithm").

use crate::api::AnalysisVerdict as Verdict;

/// Of all verdicts `Failed` on a candidate that is within its limit, at most this share is wrong, however often the
/// verdict is read.
const ALPHA: f64 = 0.05;
/// Alternatives of the mixture: shares between the limit and 1, each √2 times as far from it in odds as the one before.
const ALTERNATIVES: i32 = 48;

/// Requests of one kind, and how many of them were bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub requests: u64,
    pub bad: u64,
}

impl Sample {
    pub fn share(self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.bad as f64 / self.requests as f64 }
    }
}

/// `limit`: the share of bad ones that is allowed, 0 to 1.
pub fn judge(sample: Sample, limit: f64, min_requests: u64) -> Verdict {
    if exceeds(sample, limit) {
        Verdict::Failed
    } else if sample.requests >= min_requests && sample.share() <= limit {
        Verdict::Passed
    } else {
        Verdict::Inconclusive
    }
}

/// Whether the true share is above `limit` at confidence 1 − α.
fn exceeds(sample: Sample, limit: f64) -> bool {
    let bad = sample.bad.min(sample.requests) as f64;
    let good = sample.requests as f64 - bad;
    if sample.share() <= limit {
        return false;
    }
    if limit <= 0.0 {
        return bad > 0.0; // nothing was allowed
    }
    let odds = limit / (1.0 - limit);
    let logs: Vec<f64> = (1..=ALTERNATIVES)
        .map(|k| {
            let odds = odds * 2f64.powf(f64::from(k) / 2.0);
            let share = odds / (1.0 + odds);
            bad * (share / limit).ln() + good * ((1.0 - share) / (1.0 - limit)).ln()
        })
        .collect();
    // In logarithms: a ratio of a thousand requests is beyond what a float holds.
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - largest).exp()).sum();
    largest + (sum / f64::from(ALTERNATIVES)).ln() >= (1.0 / ALPHA).ln()
}

#[cfg(test)]
pub(super) mod tests;
