use super::*;

#[test]
fn a_pods_requests_may_all_be_sent_again_at_once() {
    let mut budget = Budget::default();
    let granted = (0..1000).filter(|_| budget.take(0, Duration::ZERO)).count();
    assert_eq!(granted, 512);
}

#[test]
fn a_fifth_of_the_requests_may_be_sent_again() {
    let mut budget = Budget::default();
    while budget.take(0, Duration::ZERO) {}
    let granted = (1..=10_000).filter(|requests| budget.take(*requests, Duration::ZERO)).count();
    assert!((1990..=2001).contains(&granted), "{granted}");
}

#[test]
fn time_brings_the_floor_back() {
    let mut budget = Budget::default();
    while budget.take(0, Duration::ZERO) {}
    assert!(!budget.take(0, Duration::from_millis(10)));
    assert!(budget.take(0, Duration::from_secs(1)));
    let granted = (0..1000).filter(|_| budget.take(0, Duration::from_secs(60))).count();
    assert_eq!(granted, 512, "and no more");
}
