use super::*;
use crate::formats::{OutputReport, ShadowReport};

fn mk_trial(process: u64, attempt: i64, requests: u64) -> Trial {
    let latencies = BTreeMap::from([(0, requests)]);
    Trial { process, route: "route".into(), candidate: 2, attempt, requests, latencies, ..Trial::default() }
}

#[test]
fn all_gateways_count_and_one_that_starts_again_loses_nothing() {
    let mut trials = Trials::default();
    trials.hear("a", mk_trial(1, 1, 10));
    trials.hear("b", mk_trial(1, 1, 5));
    trials.hear("a", mk_trial(1, 1, 20));
    assert_eq!(trials.counts("route", 2, 1).requests, 25, "the newest word of each");
    trials.hear("a", mk_trial(7, 1, 3));
    let counts = trials.counts("route", 2, 1);
    assert_eq!((counts.requests, counts.latencies[&0]), (28, 28), "its former process counts too");
    assert_eq!(trials.counts("route", 2, 2), Counts::default(), "that is another attempt");
    assert_eq!(trials.counts("another", 2, 1), Counts::default());
}

#[test]
fn what_two_gateways_compared_is_the_worst_of_both() {
    let compared = |process, max_absolute| {
        let output = OutputReport { samples: 1, max_absolute, ..OutputReport::default() };
        let outputs = [("score".to_string(), output)].into();
        let shadow = Some(ShadowReport { compared: 1, outputs, ..ShadowReport::default() });
        Trial { shadow, ..mk_trial(process, 1, 0) }
    };
    let mut trials = Trials::default();
    trials.hear("a", compared(1, 0.25));
    trials.hear("b", compared(2, 0.5));
    let found = trials.counts("route", 2, 1).shadow;
    assert_eq!((found.compared, found.outputs["score"].max_absolute), (2, 0.5));
}

#[test]
fn a_gateway_that_has_gone_on_to_another_attempt_counts_for_that_alone() {
    let mut trials = Trials::default();
    trials.hear("a", mk_trial(1, 1, 10));
    trials.hear("a", mk_trial(1, 2, 4));
    assert_eq!(trials.counts("route", 2, 1).requests, 0);
    assert_eq!(trials.counts("route", 2, 2).requests, 4);
    trials.retain(|route| route != "route");
    assert!(trials.is_empty());
}

#[test]
fn a_gateway_that_starts_for_ever_does_not_fill_the_memory() {
    let mut trials = Trials::default();
    (0..1000).for_each(|process| trials.hear("a", mk_trial(process, 1, 1)));
    assert_eq!(trials.counts("route", 2, 1).requests, MOST as u64);
}
