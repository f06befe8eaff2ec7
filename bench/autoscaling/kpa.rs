//! Knative's KPA from its published rules: 1 s buckets, 2 s ticks, stable and panic windows, the scale-to-zero steps.

use super::sim::{Autoscaler, View};

const TICK: f64 = 2.0;
const PANIC_SHARE: f64 = 0.1;
const PANIC_THRESHOLD: f64 = 2.0;
const MAX_UP: f64 = 1000.0;
const MAX_DOWN: f64 = 2.0;
const BURST_CAPACITY: f64 = 211.0;

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Knee × utilisation.
    pub target: f64,
    /// The pod's whole concurrency, for the excess burst capacity.
    pub capacity: f64,
    pub window: f64,
    pub min_scale: usize,
    pub grace: f64,
}

pub struct Kpa {
    setting: Setting,
    stable: Buckets,
    panic: Buckets,
    seen: View,
    looks: u64,
    panicked: Option<f64>,
    most_in_panic: f64,
    /// Since when the activator is in the path.
    proxied: Option<f64>,
    active_since: Option<f64>,
}

impl Kpa {
    pub fn new(setting: Setting) -> Self {
        Self {
            setting,
            stable: Buckets::new(setting.window),
            panic: Buckets::new((setting.window * PANIC_SHARE).max(1.0)),
            seen: View::default(),
            looks: 0,
            panicked: None,
            most_in_panic: 0.0,
            proxied: None,
            active_since: None,
        }
    }

    fn decide(&mut self, view: &View, stable: f64, panic: f64) -> usize {
        let Setting { target, window, .. } = self.setting;
        let ready = view.ready.max(1) as f64;
        let (most, least) = ((MAX_UP * ready).ceil(), (view.ready as f64 / MAX_DOWN).floor());
        let over = (panic / target).ceil() / ready >= PANIC_THRESHOLD;
        let want_stable = (stable / target).ceil().clamp(least, most);
        let want_panic = (panic / target).ceil().clamp(least, most);
        if over {
            self.panicked = Some(view.now);
        } else if self.panicked.is_some_and(|at| at + window < view.now) {
            self.panicked = None;
            self.most_in_panic = 0.0;
        }
        let mut desired = want_stable;
        if self.panicked.is_some() {
            // In panic it never shrinks.
            self.most_in_panic = self.most_in_panic.max(desired.max(want_panic));
            desired = self.most_in_panic;
        }
        let spare = (view.ready as f64 * self.setting.capacity - BURST_CAPACITY - panic).floor();
        let in_path = spare < 0.0;
        self.proxied = in_path.then(|| self.proxied.unwrap_or(view.now));
        self.zero(view, (desired as usize).max(self.setting.min_scale))
    }

    /// Idle through the window, then at 1 until the activator has been in the path for the grace period.
    fn zero(&mut self, view: &View, desired: usize) -> usize {
        if desired > 0 {
            self.active_since.get_or_insert(view.now);
            return desired;
        }
        let active = self.active_since.is_some_and(|since| view.now - since < self.setting.window);
        let proxied = *self.proxied.get_or_insert(view.now);
        if active || view.now - proxied < self.setting.grace {
            return 1;
        }
        self.active_since = None;
        0
    }
}

impl Autoscaler for Kpa {
    fn period(&self) -> f64 {
        1.0 // the scrape's
    }

    fn look(&mut self, view: &View, woken: bool) -> Option<usize> {
        if woken {
            // The activator pokes with the first request.
            self.stable.record(view.now, 1.0);
            self.panic.record(view.now, 1.0);
        } else {
            // At zero nobody scrapes, and the activator reports only what it holds.
            let elapsed = view.now - self.seen.now;
            let mean = (view.request_seconds - self.seen.request_seconds) / elapsed.max(1e-9);
            if elapsed > 0.0 && (view.ready > 0 || mean > 0.0) {
                self.stable.record(view.now, mean);
                self.panic.record(view.now, mean);
            }
            self.seen = *view;
            self.looks += 1;
            if !self.looks.is_multiple_of(TICK as u64) {
                return None;
            }
        }
        let (stable, panic) = (self.stable.average(view.now)?, self.panic.average(view.now)?);
        Some(self.decide(view, stable, panic))
    }
}

/// One value a second; the average is over the seconds since the first one that is still of this stretch.
struct Buckets {
    values: Vec<f64>,
    total: f64,
    first: u64,
    last: Option<u64>,
}

impl Buckets {
    fn new(window: f64) -> Self {
        Self { values: vec![0.0; window as usize], total: 0.0, first: 0, last: None }
    }

    fn record(&mut self, now: f64, value: f64) {
        let second = now as u64;
        let size = self.values.len() as u64;
        match self.last {
            Some(last) if second < last + size => {
                for empty in last + 1..=second {
                    self.total -= std::mem::take(&mut self.values[(empty % size) as usize]);
                }
            }
            _ => {
                self.values.fill(0.0);
                (self.total, self.first) = (0.0, second);
            }
        }
        self.values[(second % size) as usize] += value;
        self.total += value;
        self.last = Some(second);
    }

    fn average(&self, now: f64) -> Option<f64> {
        let (second, size) = (now as u64, self.values.len() as u64);
        let last = self.last?;
        let silent = second.saturating_sub(last);
        if silent >= size {
            return None;
        }
        let outdated: f64 = (last + 1..=second).map(|s| self.values[(s % size) as usize]).sum();
        let filled = (last - self.first + 1).min(size) - silent.min((last - self.first + 1).min(size) - 1);
        let average = (self.total - outdated) / filled as f64;
        Some((average * 1e6).round() / 1e6) // Knative rounds to six digits, too
    }
}
