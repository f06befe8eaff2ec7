use std::collections::BTreeMap;

use super::*;
use crate::formats::{Demand, GatewayReport, PastDemand};
use crate::plan::scale::{Active, Reason, Target, Tuning};

fn settings() -> Settings {
    Settings {
        min: 0,
        max: 10,
        target: Target::RequestsPerSecond(10.0),
        cold_start: Some(1.0),
        stabilization_window: None,
        scale_to_zero_after: Some(30.0),
        is_measured: false,
        proven: true,
        tuning: Tuning::default(),
    }
}

fn key() -> Key {
    ("payments".into(), "fraud".into())
}

fn ready(ready: u32) -> Pods {
    Pods { ready, ..Pods::default() }
}

/// One gateway, and a clock that the test moves.
struct World {
    streams: GatewayStreams,
    scaling: Scaling,
    now: Instant,
    told: Demand,
    held: u64,
}

impl World {
    fn new(pods: u32, past: Vec<PastDemand>, past_seconds: u64) -> Self {
        let streams = GatewayStreams::with_gateway("payments", "a");
        let world = Self {
            streams,
            scaling: Scaling::default(),
            now: Instant::now(),
            told: Demand { arrivals: 7000, request_seconds: 900.0, in_flight: 0 },
            held: 0,
        };
        let mut first = world.line();
        (first.past, first.past_seconds) = (BTreeMap::from([("fraud".to_string(), past)]), past_seconds);
        world.streams.hear("payments", "a", first, true);
        world.decide(pods);
        world
    }

    fn line(&self) -> GatewayReport {
        GatewayReport {
            format_version: 1,
            held: BTreeMap::from([("fraud".to_string(), self.held)]),
            demand: Some(BTreeMap::from([("fraud".to_string(), self.told)])),
            ..GatewayReport::default()
        }
    }

    /// A second in which so many came, each for a tenth of a second. True: a reconcile is to look.
    fn second(&mut self, arrivals: u64) -> bool {
        self.now += Duration::from_secs(1);
        self.told.arrivals += arrivals;
        self.told.request_seconds += arrivals as f64 / 10.0;
        self.streams.hear("payments", "a", self.line(), false);
        let news = self.streams.news();
        self.scaling.tick(self.now, &news, &self.streams) == [key()]
    }

    fn decide(&self, pods: u32) -> Decision {
        self.scaling.decide(self.now, &key(), (settings(), ready(pods)), &self.streams)
    }

    fn told(&self) -> Decision {
        self.scaling.lock()[&key()].told.clone()
    }
}

#[test]
fn a_reconcile_is_woken_when_the_number_changes_and_not_by_each_sample() {
    let last = PastDemand { seconds_ago: 5, arrivals: 25, request_seconds: 2.5 };
    let mut world = World::new(1, vec![last], 600);
    let woken = (0..20).filter(|_| world.second(5)).count();
    assert_eq!((woken, world.told().desired), (0, 1));
    let mut waits = 0;
    while !world.second(50) {
        waits += 1;
        assert!(waits < 20, "{:?}", world.told());
    }
    let told = world.told();
    assert_eq!((told.active, told.reason), (Active::DemandReported, Reason::DemandRose), "{told:?}");
    assert!(told.message.starts_with("1 to "), "{}", told.message);
}

#[test]
fn the_first_request_that_waits_at_zero_is_news_at_once() {
    let mut world = World::new(0, Vec::new(), 600);
    assert!(!world.second(0));
    world.held = 1;
    world.now += Duration::from_millis(10);
    world.told.arrivals += 1;
    let touched = world.streams.hear("payments", "a", world.line(), false);
    assert_eq!(touched, ["fraud"], "this wakes a reconcile, which decides");
    let decision = world.decide(0);
    assert_eq!((decision.desired, decision.reason), (1, Reason::Waking));
}

#[test]
fn a_new_leader_knows_what_the_gateways_remember() {
    let past: Vec<PastDemand> = (1..=120u32)
        .rev()
        .map(|slot| PastDemand { seconds_ago: slot * 5, arrivals: 200, request_seconds: 20.0 })
        .collect();
    let world = World::new(9, past.clone(), 600);
    let known = world.decide(9);
    assert_eq!(known.desired, 4, "40 a second for all of the window: {}", known.message);
    let world = World::new(9, past, 0);
    let unknown = world.decide(9);
    assert_eq!(unknown.desired, 9, "a gateway that has just begun knows no window: {}", unknown.message);
}

#[test]
fn what_a_gateway_had_counted_before_is_no_demand() {
    let mut world = World::new(1, Vec::new(), 600);
    world.second(1);
    let asked = world.streams.asked(&key());
    assert_eq!((asked.arrivals, asked.gateways.reporting), (1, 1));
    // It began anew.
    world.told = Demand { arrivals: 3, request_seconds: 0.5, in_flight: 2 };
    world.streams.hear("payments", "a", world.line(), false);
    let asked = world.streams.asked(&key());
    assert_eq!((asked.arrivals, asked.in_flight), (4, 2));
}

#[test]
fn a_gateway_that_does_not_count_is_not_reporting() {
    let old = GatewayReport { format_version: 1, ..GatewayReport::default() };
    let streams = GatewayStreams::with_gateway("payments", "b");
    streams.hear("payments", "b", old, true);
    assert_eq!(streams.asked(&key()).gateways.reporting, 0);
    let scaling = Scaling::default();
    let decision = scaling.decide(Instant::now(), &key(), (settings(), ready(3)), &streams);
    assert_eq!((decision.desired, decision.active), (3, Active::NoDemandData));
}

#[test]
fn who_is_forgotten_is_asked_nothing() {
    let world = World::new(1, Vec::new(), 600);
    assert!(!world.scaling.measures(&key()), "the user gave a target");
    world.scaling.forget(&key());
    assert!(world.scaling.lock().is_empty());
}
