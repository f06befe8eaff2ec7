use super::*;

const INTERVAL: Duration = Duration::from_secs(30);

fn mk_trial() -> (Arc<Trial>, Part, Part) {
    let view = TrialView { stable: 1, candidate: 2, attempt: 1, interval: INTERVAL };
    let trial = Trial::of(&view, "route", None, Duration::ZERO);
    let (stable, candidate) = (trial.part(1).unwrap(), trial.part(2).unwrap());
    (trial, stable, candidate)
}

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn only_what_the_candidate_failed_itself_is_an_error() {
    let (trial, stable, candidate) = mk_trial();
    for code in [Code::Ok, Code::Server, Code::Client, Code::Cancelled] {
        stable.answered(code, ms(1), at(1));
        candidate.answered(code, ms(1), at(1));
    }
    stable.failed();
    candidate.failed();
    let report = trial.report(at(1));
    assert_eq!((report.requests, report.errors), (3, 2), "a client's error and one that left count nothing");
    assert!(trial.part(3).is_none(), "another revision has no part");
}

#[test]
fn latencies_are_multiples_of_the_stable_revisions_p99_of_the_same_interval() {
    let (trial, stable, candidate) = mk_trial();
    (0..197).for_each(|_| stable.answered(Code::Ok, ms(10), at(1)));
    (0..3).for_each(|_| stable.answered(Code::Ok, ms(100), at(1)));
    (0..50).for_each(|_| candidate.answered(Code::Ok, ms(100), at(2)));
    (0..50).for_each(|_| candidate.answered(Code::Ok, ms(200), at(2)));
    assert_eq!(trial.report(at(29)).latencies, BTreeMap::new(), "the interval has not ended");
    let report = trial.report(at(30));
    assert_eq!(report.latencies, BTreeMap::from([(0, 50), (32, 50)]));
    assert!((report.independent - 200.0 * 100.0 / 300.0).abs() < 1e-9);
    // A slow hour slows both.
    (0..200).for_each(|_| stable.answered(Code::Ok, ms(800), at(40)));
    (0..100).for_each(|_| candidate.answered(Code::Ok, ms(800), at(40)));
    assert_eq!(trial.report(at(60)).latencies, BTreeMap::from([(0, 150), (32, 50)]));
}

#[test]
fn an_interval_with_few_requests_of_the_stable_revision_goes_on() {
    let (trial, stable, candidate) = mk_trial();
    (0..99).for_each(|_| stable.answered(Code::Ok, ms(10), at(1)));
    candidate.answered(Code::Ok, ms(10), at(1));
    assert!(trial.report(at(90)).latencies.is_empty());
    stable.answered(Code::Ok, ms(10), at(91));
    assert_eq!(trial.report(at(91)).latencies, BTreeMap::from([(0, 1)]));
}

#[test]
fn another_attempt_or_route_is_counted_from_nothing() {
    let (trial, _, candidate) = mk_trial();
    candidate.failed();
    let same = Trial::of(&trial.view, "route", Some(&trial), at(5));
    assert_eq!(same.report(at(5)).requests, 1);
    let other = Trial::of(&trial.view, "another", Some(&trial), at(5));
    assert_eq!(other.report(at(5)).requests, 0);
    let retry = TrialView { attempt: 2, ..trial.view.clone() };
    assert_eq!(Trial::of(&retry, "route", Some(&trial), at(5)).report(at(5)).requests, 0);
}
