//! What is asked of one deployment: counted exactly, and remembered for ten minutes, so that a new leader of the
//! operator knows what the last one knew.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::formats::PastDemand;

const SLOT: u64 = PastDemand::SECONDS;
/// Seconds.
pub const MEMORY: u64 = 600;
const SLOTS: u64 = MEMORY / SLOT;

/// Times are since the process began to look.
#[derive(Debug, Default)]
pub struct Demand(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Requests that run or wait.
    present: u64,
    arrivals: u64,
    request_seconds: f64,
    /// Until when that is counted.
    until: Duration,
    /// Those in which something happened, the newest last.
    past: VecDeque<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u64,
    arrivals: u64,
    request_seconds: f64,
}

/// Since the gateway began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    pub arrivals: u64,
    pub request_seconds: f64,
}

impl Demand {
    pub fn arrived(&self, now: Duration) {
        let mut inner = self.at(now);
        inner.arrivals += 1;
        inner.slot(now.as_secs() / SLOT).arrivals += 1;
    }

    /// A request begins to run, or to wait.
    pub fn enter(&self, now: Duration) {
        self.at(now).present += 1;
    }

    pub fn leave(&self, now: Duration) {
        let mut inner = self.at(now);
        inner.present = inner.present.saturating_sub(1);
    }

    pub fn present(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).present
    }

    pub fn counted(&self, now: Duration) -> Counted {
        let inner = self.at(now);
        Counted { arrivals: inner.arrivals, request_seconds: inner.request_seconds }
    }

    /// Without the slot that is not over.
    pub fn past(&self, now: Duration) -> Vec<PastDemand> {
        let mut inner = self.at(now);
        let newest = now.as_secs() / SLOT;
        inner.forget(newest);
        let over = inner.past.iter().filter(|slot| slot.number < newest);
        over.map(|slot| PastDemand {
            seconds_ago: (now.as_secs() - slot.number * SLOT) as u32,
            arrivals: slot.arrivals,
            request_seconds: slot.request_seconds,
        })
        .collect()
    }

    fn at(&self, now: Duration) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.count_until(now);
        inner
    }
}

impl Inner {
    fn count_until(&mut self, now: Duration) {
        // Threads take the lock in another order than they looked at the clock.
        let Some(passed) = now.checked_sub(self.until) else { return };
        if self.present == 0 {
            self.until = now;
            return;
        }
        let present = self.present as f64;
        self.request_seconds += passed.as_secs_f64() * present;
        let oldest = Duration::from_secs(now.as_secs().saturating_sub(SLOT * SLOTS));
        let mut from = self.until.max(oldest);
        while from < now {
            let number = from.as_secs() / SLOT;
            let to = Duration::from_secs((number + 1) * SLOT).min(now);
            self.slot(number).request_seconds += (to - from).as_secs_f64() * present;
            from = to;
        }
        self.until = now;
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        let newest = self.past.back().map_or(0, |slot| slot.number);
        if self.past.is_empty() || newest < number {
            self.forget(number);
            self.past.push_back(Slot { number, arrivals: 0, request_seconds: 0.0 });
        }
        let last = self.past.len() - 1;
        &mut self.past[last]
    }

    fn forget(&mut self, newest: u64) {
        while self.past.front().is_some_and(|slot| slot.number + SLOTS <= newest) {
            self.past.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
