//! How many pods each ModelDeployment with `spec.autoscaling` should have: feeds the pure decision with what the gateways
//! count, and wakes a reconcile only when it changes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::gateways::{Asked, GatewayStreams};
use super::{Lease, Trigger};
use crate::observe::Key;
use crate::plan::scale::{Decision, Pods, Sample, Scaler, Settings};

/// News of the demand wait for so long at most.
const TICK: Duration = Duration::from_millis(250);
/// Without news.
const PULSE: Duration = Duration::from_secs(1);
/// How long the past of all gateways is waited for. Without it a decision shrinks nothing for a window.
const HISTORY: Duration = Duration::from_secs(3);
/// What is said of a number that stays is renewed after this: each time is a write.
const FRESH: Duration = Duration::from_secs(30);

/// Of the leader, in memory: what is lost with it is in the gateways.
#[derive(Default)]
pub(crate) struct Scaling {
    entries: Mutex<HashMap<Key, Entry>>,
}

struct Entry {
    settings: Settings,
    pods: Pods,
    since: Instant,
    scaler: Option<Scaler>,
    /// When the gateways were last asked, and what they had counted.
    asked_at: Instant,
    asked: Asked,
    newest: Decision,
    /// What reconciles are told, and when it was decided: as it was when the number changed.
    told: Decision,
    told_at: Instant,
    /// No reconcile was told yet.
    is_news: bool,
}

impl Scaling {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one reconcile, with the settings and the pods as they are now.
    pub fn decide(
        &self,
        now: Instant,
        key: &Key,
        (settings, pods): (Settings, Pods),
        streams: &GatewayStreams,
    ) -> Decision {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            let nothing = streams.asked(key);
            let decision = Scaler::new(0.0).decide(0.0, pods, nothing.gateways, &settings);
            Entry {
                settings: settings.clone(),
                pods,
                since: now,
                scaler: None,
                asked_at: now,
                asked: nothing,
                newest: decision.clone(),
                told: decision,
                told_at: now,
                is_news: false,
            }
        });
        (entry.settings, entry.pods) = (settings, pods);
        entry.look(now, key, streams);
        if entry.is_stale(now) {
            (entry.told, entry.told_at) = (entry.newest.clone(), now);
        }
        entry.is_news = false;
        entry.told.clone()
    }

    /// What its pods take is asked for: the user gave no target.
    pub fn measures(&self, key: &Key) -> bool {
        self.lock().get(key).is_some_and(|entry| entry.settings.is_measured)
    }

    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Decides again by what the gateways say, for as long as we lead.
    pub(super) async fn run(
        self: Arc<Self>,
        streams: Arc<GatewayStreams>,
        lease: Arc<Lease>,
        trigger: mpsc::Sender<Trigger>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let news = streams.news();
            if !lease.held() {
                // Another leads meanwhile, and what it has decided is not known.
                self.lock().clear();
                continue;
            }
            for (namespace, name) in self.tick(Instant::now(), &news, &streams) {
                // Closed only when the process ends.
                let _ = trigger.send(Trigger::new(&name).within(&namespace)).await;
            }
        }
    }

    /// Names those whose number changes.
    fn tick(&self, now: Instant, news: &HashSet<Key>, streams: &GatewayStreams) -> Vec<Key> {
        let mut changed = Vec::new();
        // One whose sentence is old: what it says is for people, and may wait its turn.
        let mut stale = None;
        for (key, entry) in self.lock().iter_mut() {
            if !news.contains(key) && now.duration_since(entry.asked_at) < PULSE {
                continue;
            }
            entry.look(now, key, streams);
            if entry.is_news {
                changed.push(key.clone());
            } else if entry.is_stale(now) {
                stale = Some(key.clone());
            }
        }
        changed.extend(stale);
        changed
    }
}

impl Entry {
    /// What was asked for since the last look, and what follows.
    fn look(&mut self, now: Instant, key: &Key, streams: &GatewayStreams) {
        let asked = streams.asked(key);
        if self.scaler.is_none() {
            let all = asked.gateways.reporting >= asked.gateways.all && asked.gateways.all > 0;
            // Who waits for a first pod does not wait for the past.
            if !all && asked.held == 0 && now.duration_since(self.since) < HISTORY {
                return;
            }
            self.scaler = Some(remembered(now, key, streams, &self.settings));
            (self.asked_at, self.asked) = (now, asked.clone());
        }
        let Some(scaler) = &mut self.scaler else { return };
        let passed = now.duration_since(self.asked_at).as_secs_f64();
        if passed > 0.0 && asked.gateways.reporting > 0 {
            let request_seconds = (asked.request_seconds - self.asked.request_seconds).max(0.0);
            let sample = Sample {
                arrivals: asked.arrivals.saturating_sub(self.asked.arrivals) as f64,
                concurrency: request_seconds / passed,
                in_flight: asked.in_flight,
                held: asked.held,
            };
            scaler.observe(seconds(now), sample, &self.settings);
            self.asked_at = now;
        }
        self.newest = scaler.decide(seconds(now), self.pods, asked.gateways, &self.settings);
        self.asked = asked;
        let what = |decision: &Decision| (decision.desired, decision.active, decision.limited);
        if what(&self.newest) != what(&self.told) {
            (self.told, self.told_at) = (self.newest.clone(), now);
            self.is_news = true;
        }
    }

    fn is_stale(&self, now: Instant) -> bool {
        now.duration_since(self.told_at) >= FRESH && self.newest != self.told
    }
}

/// With what the gateways remember from before we led.
fn remembered(now: Instant, key: &Key, streams: &GatewayStreams, settings: &Settings) -> Scaler {
    let (known, past) = streams.past(key, now);
    let mut scaler = Scaler::new(seconds(now) - known.as_secs_f64());
    for (ago, sample) in past {
        scaler.observe(seconds(now) - ago.as_secs_f64(), sample, settings);
    }
    scaler
}

/// Of the monotonic clock, and never below zero: the past is ten minutes.
fn seconds(at: Instant) -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    1000.0 + at.duration_since(*START.get_or_init(|| at)).as_secs_f64()
}

#[cfg(test)]
mod tests;
