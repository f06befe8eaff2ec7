use super::*;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn what_runs_and_waits_is_counted_over_time() {
    let demand = Demand::default();
    demand.arrived(at(1.0));
    demand.enter(at(1.0));
    demand.arrived(at(2.0));
    demand.enter(at(2.0));
    assert_eq!(demand.present(), 2);
    demand.leave(at(3.0));
    assert_eq!(demand.present(), 1);
    demand.leave(at(6.0));
    // One second alone, one of two, three of one.
    assert_eq!(demand.counted(at(60.0)), Counted { arrivals: 2, request_seconds: 6.0 });
}

#[test]
fn a_clock_that_was_read_earlier_counts_nothing_twice() {
    let demand = Demand::default();
    demand.enter(at(1.0));
    demand.leave(at(3.0));
    demand.enter(at(2.0));
    demand.leave(at(3.0));
    assert_eq!(demand.counted(at(3.0)).request_seconds, 2.0);
}

#[test]
fn a_request_that_stays_long_is_in_every_slot_of_the_past() {
    let demand = Demand::default();
    demand.arrived(at(3.0));
    demand.enter(at(3.0));
    demand.leave(at(12.0));
    let past = demand.past(at(20.0));
    let told: Vec<_> = past.iter().map(|p| (p.seconds_ago, p.arrivals, p.request_seconds)).collect();
    assert_eq!(told, [(20, 1, 2.0), (15, 0, 5.0), (10, 0, 2.0)]);
}

#[test]
fn ten_minutes_are_remembered_and_no_more() {
    let demand = Demand::default();
    for second in 0..5000 {
        demand.arrived(at(f64::from(second)));
    }
    let past = demand.past(at(5000.0));
    assert_eq!(past.len(), 119, "and the slot that is not over");
    assert_eq!(past.iter().map(|p| p.seconds_ago).max(), Some(595));
    assert!(past.iter().all(|p| p.arrivals == 5));
    assert!(demand.past(at(6000.0)).is_empty());
}
