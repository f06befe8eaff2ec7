use super::*;

const ALL: Gateways = Gateways { reporting: 2, all: 2 };

fn settings() -> Settings {
    Settings {
        min: 0,
        max: 20,
        target: Target::Measured { concurrency: 16.0, per_second: 10.0 },
        cold_start: Some(10.0),
        stabilization_window: None,
        scale_to_zero_after: None,
        is_measured: true,
        proven: true,
        tuning: Tuning::default(),
    }
}

/// A world where pods start at once, so that the decision alone is seen.
struct World {
    scaler: Scaler,
    settings: Settings,
    now: Seconds,
    pods: Pods,
}

impl World {
    fn new(settings: Settings, ready: u32) -> Self {
        Self { scaler: Scaler::new(0.0), settings, now: 0.0, pods: Pods { ready, ..Pods::default() } }
    }

    fn second(&mut self, arrivals: f64, held: u64) -> Decision {
        self.now += 1.0;
        let in_flight = (arrivals / 10.0).ceil() as u64;
        let sample = Sample { arrivals, concurrency: (in_flight + held) as f64, in_flight, held };
        self.scaler.observe(self.now, sample, &self.settings);
        self.decide(ALL)
    }

    fn decide(&mut self, gateways: Gateways) -> Decision {
        let decision = self.scaler.decide(self.now, self.pods, gateways, &self.settings);
        self.pods.ready = decision.desired;
        decision
    }

    fn seconds(&mut self, count: u32, arrivals: f64, held: u64) -> Decision {
        let mut last = self.second(arrivals, held);
        for _ in 1..count {
            last = self.second(arrivals, held);
        }
        last
    }
}

/// splitmix64
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn random_settings(state: &mut u64) -> Settings {
    let min = (next(state) % 3) as u32;
    let pick = |state: &mut u64, from: &[f64]| from[next(state) as usize % from.len()];
    let target = match next(state) % 3 {
        0 => Target::Measured { concurrency: 16.0, per_second: pick(state, &[2.0, 10.0, 100.0]) },
        1 => Target::Concurrency(pick(state, &[1.0, 16.0])),
        _ => Target::RequestsPerSecond(pick(state, &[1.0, 50.0])),
    };
    Settings {
        min,
        max: min + (next(state) % 30) as u32,
        target,
        cold_start: Some(pick(state, &[1.0, 10.0, 60.0])),
        ..settings()
    }
}

fn histories() -> u64 {
    // More than the inner loop should wait for: HISTORIES=1000000 cargo test --release --lib plan::scale
    option_env!("HISTORIES").and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

#[test]
fn no_history_leads_out_of_bounds() {
    for seed in 0..histories() / 4 {
        let mut state = seed;
        let mut world = World::new(random_settings(&mut state), (next(&mut state) % 30) as u32);
        for _ in 0..20 {
            world.now += (next(&mut state) % 4) as f64 * 0.7;
            let arrivals = (next(&mut state) % 400) as f64 * (next(&mut state) % 2) as f64;
            world.pods.starting = (next(&mut state) % 4) as u32;
            world.pods.unschedulable = (next(&mut state) % 2) as u32;
            let held = next(&mut state) % 300;
            let decision = match next(&mut state) % 5 {
                0 => world.decide(Gateways { reporting: 0, all: 2 }),
                _ => world.second(arrivals, held),
            };
            let Settings { min, max, .. } = world.settings;
            assert!((min..=max).contains(&decision.desired), "seed {seed}: {decision:?}");
            assert!(!decision.message.is_empty());
        }
    }
}

#[test]
fn more_demand_never_means_fewer_pods() {
    for seed in 0..histories() / 4 {
        let mut state = seed;
        let settings = random_settings(&mut state);
        let (mut less, mut more) = (World::new(settings.clone(), 1), World::new(settings, 1));
        for _ in 0..20 {
            let (arrivals, held) = ((next(&mut state) % 100 + 1) as f64, next(&mut state) % 50);
            // The same pods in both, so that only the demand differs.
            let a = less.second(arrivals, held);
            let b = more.second(arrivals * 1.5, held * 2);
            assert!(b.desired >= a.desired, "seed {seed}: {a:?} {b:?}");
            (less.pods.ready, more.pods.ready) = (a.desired, a.desired);
            (less.scaler.desired, more.scaler.desired) = (Some(a.desired), Some(a.desired));
        }
    }
}

#[test]
fn constant_demand_converges_and_then_nothing_changes() {
    for seed in 0..histories() / 200 {
        let mut state = seed;
        let settings = random_settings(&mut state);
        let mut world = World::new(settings, (next(&mut state) % 30) as u32);
        let arrivals = (next(&mut state) % 200 + 1) as f64;
        let settled = world.seconds(700, arrivals, 0).desired;
        for _ in 0..60 {
            assert_eq!(world.second(arrivals, 0).desired, settled, "seed {seed}");
        }
    }
}

#[test]
fn without_data_the_count_is_held() {
    for seed in 0..histories() / 4 {
        let mut state = seed;
        let mut world = World::new(random_settings(&mut state), 1);
        let before = world.seconds(10, (next(&mut state) % 100) as f64, 0).desired;
        let silent = world.decide(Gateways { reporting: 0, all: 2 });
        assert_eq!((silent.desired, silent.active), (before, Active::NoDemandData), "seed {seed}");
        world.now += 3600.0;
        let stale = world.decide(ALL);
        assert_eq!((stale.desired, stale.reason), (before, Reason::NoDemandData), "seed {seed}");
    }
}

#[test]
fn a_new_leader_without_data_keeps_what_is_there() {
    let mut world = World::new(settings(), 7);
    let decision = world.decide(ALL);
    assert_eq!((decision.desired, decision.active), (7, Active::NoDemandData));
    assert_eq!(decision.message, "stays at 7: none of 2 gateways reports demand");
}

#[test]
fn a_new_leader_shrinks_nothing_before_the_window_has_passed() {
    let mut world = World::new(settings(), 7);
    assert_eq!(world.second(1.0, 0).desired, 7);
    assert_eq!(world.seconds(20, 1.0, 0).desired, 7);
    assert_eq!(world.seconds(30, 1.0, 0).desired, 1);
}

#[test]
fn while_one_gateway_is_silent_nothing_shrinks_but_it_may_grow() {
    let mut world = World::new(settings(), 1);
    assert_eq!(world.seconds(60, 50.0, 0).desired, 7);
    world.seconds(29, 0.0, 0);
    world.now += 4.0;
    let half = Gateways { reporting: 1, all: 2 };
    world.pods.ready = 7;
    world.scaler.desired = Some(7);
    world.scaler.observe(world.now + 60.0, Sample::default(), &world.settings);
    world.now += 60.0;
    let decision = world.decide(half);
    assert_eq!((decision.desired, decision.reason), (7, Reason::GatewaySilent));
    assert_eq!(decision.message, "stays at 7: 1 of 2 gateways report, so it does not shrink");
    let sample = Sample { arrivals: 2000.0, concurrency: 60.0, in_flight: 60, held: 0 };
    world.now += 10.0;
    world.scaler.observe(world.now, sample, &world.settings);
    assert_eq!(world.decide(half).desired, 20);
}

#[test]
fn an_idle_pod_goes_after_its_time_and_not_before() {
    let mut world = World::new(Settings { scale_to_zero_after: Some(30.0), ..settings() }, 1);
    world.seconds(10, 1.0, 0);
    let warm = world.seconds(29, 0.0, 0);
    assert_eq!((warm.desired, warm.reason, warm.wake_at), (1, Reason::KeptWarm, Some(40.0)));
    assert_eq!(warm.message, "stays at 1: no request for 29 s, 0 in 1 s without one");
    let idle = world.second(0.0, 0);
    assert_eq!((idle.desired, idle.message.as_str()), (0, "1 to 0: no request for 30 s"));
    let still = world.second(0.0, 0);
    assert_eq!((still.desired, still.message.as_str()), (0, "stays at 0: no request for 31 s"));
}

#[test]
fn zero_is_left_for_the_first_held_request_and_never_taken_while_one_is_held() {
    let mut world = World::new(Settings { scale_to_zero_after: Some(30.0), ..settings() }, 0);
    let woken = world.second(1.0, 1);
    assert_eq!((woken.reason, woken.desired > 0), (Reason::Waking, true));
    assert!(woken.message.starts_with("0 to 1: 1 request waiting"), "{}", woken.message);
    for _ in 0..200 {
        assert!(world.second(0.0, 1).desired > 0);
    }
}

#[test]
fn pods_that_start_do_not_change_the_number() {
    let mut world = World::new(settings(), 1);
    let wanted = world.seconds(60, 50.0, 0).desired;
    for starting in 0..=wanted {
        world.pods = Pods { ready: wanted - starting, starting, unschedulable: 0 };
        world.now += 1.0;
        let sample = Sample { arrivals: 50.0, concurrency: 5.0, in_flight: 5, held: 0 };
        world.scaler.observe(world.now, sample, &world.settings);
        let decision = world.scaler.decide(world.now, world.pods, ALL, &world.settings);
        assert_eq!(decision.desired, wanted);
    }
}

#[test]
fn a_burst_that_is_over_before_a_pod_could_start_needs_none() {
    let slow = Settings { cold_start: Some(60.0), ..settings() };
    let mut world = World::new(slow, 1);
    world.seconds(60, 1.0, 0);
    assert_eq!(world.second(20.0, 15).desired, 1);
    let quick = Settings { cold_start: Some(1.0), ..settings() };
    let mut world = World::new(quick, 1);
    world.seconds(60, 1.0, 0);
    assert!(world.second(20.0, 15).desired > 1);
}

#[test]
fn without_room_one_pod_waits_and_the_rest_is_not_asked_for() {
    let mut world = World::new(settings(), 2);
    world.seconds(60, 100.0, 0);
    world.pods = Pods { ready: 2, starting: 0, unschedulable: 5 };
    let decision = world.scaler.decide(world.now, world.pods, ALL, &world.settings);
    assert_eq!((decision.desired, decision.limited), (3, Limit::NoGpuAvailable));
    assert!(
        decision.message.ends_with("; the scheduler has room for 2, so 3 are asked for"),
        "{}",
        decision.message
    );
    world.pods = Pods { ready: 3, starting: 0, unschedulable: 0 };
    assert_eq!(world.scaler.decide(world.now, world.pods, ALL, &world.settings).desired, 13);
}

#[test]
fn bounds_are_told() {
    let mut world = World::new(Settings { max: 3, ..settings() }, 1);
    let decision = world.seconds(60, 100.0, 0);
    assert_eq!((decision.desired, decision.limited), (3, Limit::TooManyReplicas));
    assert!(decision.message.ends_with("; held at maxReplicas, 3"), "{}", decision.message);
    let mut world = World::new(Settings { min: 2, ..settings() }, 2);
    let decision = world.seconds(60, 1.0, 0);
    assert_eq!((decision.desired, decision.limited), (2, Limit::TooFewReplicas));
}

#[test]
fn a_report_that_is_older_or_no_number_is_passed_over() {
    let mut world = World::new(settings(), 1);
    world.seconds(60, 50.0, 0);
    let before = format!("{:?}", world.scaler);
    let sample = Sample { arrivals: 1e6, concurrency: 1e6, in_flight: 1, held: 1 };
    world.scaler.observe(world.now - 30.0, sample, &world.settings);
    world.scaler.observe(world.now + 1.0, Sample { arrivals: f64::NAN, ..sample }, &world.settings);
    assert_eq!(format!("{:?}", world.scaler), before);
}

#[test]
fn pauses_far_longer_than_a_pod_is_worth_are_not_waited_out() {
    let quick = Settings { cold_start: Some(1.0), ..settings() };
    let idle_after = |pause: u32| {
        let mut world = World::new(quick.clone(), 1);
        for _ in 0..20 {
            world.second(1.0, 0);
            world.seconds(pause, 0.0, 0);
        }
        world.scaler.keep_idle(&world.settings)
    };
    assert!(idle_after(300) < 10.0, "{}", idle_after(300));
    assert!(idle_after(20) > 20.0, "{}", idle_after(20));
}

#[test]
fn what_is_remembered_does_not_grow() {
    let mut world = World::new(settings(), 1);
    world.seconds(10, 5.0, 0);
    let size = format!("{:?}", world.scaler.recent).matches("Bucket").count();
    world.seconds(5000, 5.0, 0);
    assert_eq!(format!("{:?}", world.scaler.recent).matches("Bucket").count(), size);
}

#[test]
fn while_nobody_knows_what_a_pod_takes_the_number_stays() {
    let unmeasured = Settings { target: Target::Unmeasured, scale_to_zero_after: Some(30.0), ..settings() };
    let mut world = World::new(unmeasured.clone(), 3);
    let decision = world.seconds(600, 500.0, 0);
    assert_eq!((decision.desired, decision.current), (3, Some(500.0 / 3.0)));
    assert_eq!(decision.message, "stays at 3: what a pod can take is not measured yet");
    assert_eq!(world.seconds(40, 0.0, 0).desired, 0);
    assert_eq!(world.second(1.0, 1).desired, 1);
}

#[test]
fn a_new_leader_wakes_nothing_and_stops_nothing_that_is_still_in_its_time() {
    let mut world = World::new(Settings { scale_to_zero_after: Some(30.0), ..settings() }, 0);
    let asleep = world.second(0.0, 0);
    assert_eq!((asleep.desired, asleep.reason), (0, Reason::Idle));
    let mut world = World::new(Settings { scale_to_zero_after: Some(30.0), ..settings() }, 1);
    assert_eq!(world.seconds(29, 0.0, 0).reason, Reason::KeptWarm);
    // It has heard of the ten minutes before.
    world.scaler = Scaler::new(world.now - 600.0);
    assert_eq!(world.second(0.0, 0).desired, 0);
}

#[test]
fn a_model_that_never_was_ready_is_tried_whatever_the_demand() {
    let mut world = World::new(Settings { proven: false, scale_to_zero_after: Some(30.0), ..settings() }, 1);
    let decision = world.seconds(100, 0.0, 0);
    assert_eq!((decision.desired, decision.reason), (1, Reason::NeverReady));
    assert_eq!(decision.message, "stays at 1: no pod was ready yet");
}
