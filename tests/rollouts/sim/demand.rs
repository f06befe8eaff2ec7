//! What is asked of the model, and how many pods that makes.

use std::cell::RefCell;

use jiff::SignedDuration;
use modelwright::observe::Snapshot;
use modelwright::plan::scale::{self, Decision, Sample, Scaler};
use modelwright::plan::{scaling_pods, scaling_settings};
use serde_json::Value;

use super::{STEP_LIMIT, Sim};

impl Sim {
    /// As `kubectl apply`, with pods that follow the demand.
    pub fn autoscale(&mut self, uri: &str, autoscaling: Value) {
        self.say(format!("user: model {uri}, autoscaling {autoscaling}"));
        self.apply_spec(uri);
        let spec = &mut self.spec.as_mut().unwrap()["spec"];
        spec.as_object_mut().unwrap().remove("replicas");
        spec["autoscaling"] = autoscaling;
        self.read();
    }

    /// So many requests a second come, and so many are at work or wait at each moment; everybody does what there is to
    /// do meanwhile.
    pub fn demand(&mut self, seconds: u32, arrivals: f64, in_flight: u64, held: u64) {
        self.say(format!("demand: {seconds} s of {arrivals}/s, {in_flight} run, {held} wait"));
        self.held = held;
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            let sample = Sample { arrivals, concurrency: (in_flight + held) as f64, in_flight, held };
            self.observe(sample);
            let mut left = STEP_LIMIT;
            while self.work() {
                left -= 1;
                assert!(left > 0, "no end:\n{}", self.transcript());
                if self.held > 0 && self.family.pods.iter().any(|pod| pod.ready) {
                    // They are let out.
                    self.observe(Sample {
                        in_flight: self.held,
                        concurrency: self.held as f64,
                        ..Sample::default()
                    });
                    self.held = 0;
                }
            }
        }
    }

    fn observe(&mut self, sample: Sample) {
        let now = self.seconds();
        if let Some(settings) = scaling_settings(&self.seen()) {
            self.scaler.get_mut().observe(now, sample, &settings);
        }
    }

    /// Another operator, which has heard nothing yet.
    pub fn new_leader(&mut self) {
        self.say("another operator leads".into());
        self.scaler = RefCell::new(Scaler::new(self.seconds()));
    }

    pub(super) fn seconds(&self) -> f64 {
        (self.now.as_second() % 1_000_000) as f64
    }

    pub(super) fn decision(&self, snapshot: &Snapshot) -> Option<Decision> {
        let settings = scaling_settings(snapshot)?;
        let all = self.gateway_views().pods.len() as u32;
        let gateways = scale::Gateways { reporting: all - self.silent, all };
        let pods = scaling_pods(snapshot);
        Some(self.scaler.borrow_mut().decide(self.seconds(), pods, gateways, &settings))
    }
}
