//! The operator's own decision, fed as the gateways feed it.

use modelwright::plan::scale::{Gateways, Pods, Sample, Scaler, Settings};

use super::sim::{Autoscaler, View};

pub struct Ours {
    pub settings: Settings,
    scaler: Scaler,
    seen: View,
}

impl Ours {
    pub fn new(settings: Settings) -> Self {
        Self { settings, scaler: Scaler::new(0.0), seen: View::default() }
    }
}

impl Autoscaler for Ours {
    fn period(&self) -> f64 {
        1.0
    }

    fn look(&mut self, view: &View, _woken: bool) -> Option<usize> {
        let elapsed = view.now - self.seen.now;
        let sample = Sample {
            arrivals: (view.arrivals - self.seen.arrivals) as f64,
            concurrency: (view.request_seconds - self.seen.request_seconds) / elapsed.max(1e-9),
            in_flight: view.in_flight as u64,
            held: view.held as u64,
        };
        self.seen = *view;
        self.scaler.observe(view.now, sample, &self.settings);
        let pods = Pods { ready: view.ready as u32, starting: view.starting as u32, unschedulable: 0 };
        let gateways = Gateways { reporting: 1, all: 1 };
        Some(self.scaler.decide(view.now, pods, gateways, &self.settings).desired as usize)
    }
}
