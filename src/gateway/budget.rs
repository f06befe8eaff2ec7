//! How many requests may be sent again. Pure: the time is an argument.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// All that a pod has in flight may be sent again when it dies.
const FLOOR: f64 = 512.0;
/// Of the requests since: more would make an overload worse.
const SHARE: f64 = 0.2;
/// Deployments with few requests get their floor back too.
const REFILL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Budget {
    left: f64,
    requests: u64,
    at: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: FLOOR, requests: 0, at: Duration::ZERO }
    }
}

impl Budget {
    /// Whether one more may be sent again. `requests`: that came until `now`, time since any fixed moment.
    pub fn take(&mut self, requests: u64, now: Duration) -> bool {
        let came = requests.saturating_sub(self.requests) as f64;
        let passed = now.saturating_sub(self.at).as_secs_f64() / REFILL.as_secs_f64();
        self.left = (self.left + came * SHARE + passed * FLOOR).min(FLOOR.max(came * SHARE));
        self.requests = requests;
        self.at = now;
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests;
