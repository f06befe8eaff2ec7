use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// Times are differences to one moment: nothing here reads a clock twice.
#[allow(clippy::disallowed_methods)]
fn moment() -> Instant {
    static MOMENT: OnceLock<Instant> = OnceLock::new();
    *MOMENT.get_or_init(Instant::now)
}

fn at(millis: u64) -> Instant {
    moment() + Duration::from_millis(millis)
}

fn idle(count: usize) -> Threads {
    Threads { count, busy_with: 0 }
}

fn none() -> Gather {
    Gather { rows: 0, until: at(0) }
}

fn shape(of: i64) -> Shape {
    Shape::Of(Box::new([of]))
}

fn entry(item: u32, shape: Shape, rows: usize) -> Entry<u32> {
    Entry { shape, rows, bytes: 10, priority: 5, queued_at: at(0), deadline: at(1000), item }
}

fn former(requests: usize, bytes: usize) -> Former<u32> {
    Former::new(Limits { requests, bytes }, Duration::ZERO)
}

fn items(take: Take<u32>) -> Vec<u32> {
    match take {
        Take::Batch(batch) => batch.into_iter().map(|e| e.item).collect(),
        other => panic!("{other:?}"),
    }
}

fn take(former: &mut Former<u32>, runners: usize, cap: usize) -> Vec<u32> {
    items(former.take(at(1), idle(runners), |_| cap, none(), &mut Vec::new()))
}

#[test]
fn threads_share_what_waits_and_runs() {
    let mut former = former(100, 10_000);
    for item in 0..8 {
        former.push(entry(item, shape(1), 1)).unwrap();
    }
    assert_eq!(take(&mut former, 2, 8), [0, 1, 2, 3]);
    let busy = Threads { count: 2, busy_with: 4 };
    assert_eq!(items(former.take(at(1), busy, |_| 8, none(), &mut Vec::new())), [4, 5, 6, 7]);
    assert!(matches!(former.take(at(1), idle(1), |_| 8, none(), &mut Vec::new()), Take::Nothing));
}

#[test]
fn shapes_are_not_mixed_and_the_oldest_goes_first() {
    let mut former = former(100, 10_000);
    for (item, of) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
        former.push(entry(item, shape(of), 1)).unwrap();
    }
    assert_eq!(take(&mut former, 1, 8), [0, 2]);
    assert_eq!(take(&mut former, 1, 8), [1, 3]);
}

#[test]
fn a_request_larger_than_the_cap_runs_alone_and_no_run_exceeds_the_cap() {
    let mut former = former(100, 10_000);
    for (item, rows) in [(0, 10), (1, 3), (2, 2), (3, 1)] {
        former.push(entry(item, shape(1), rows)).unwrap();
    }
    assert_eq!(take(&mut former, 1, 4), [0]);
    assert_eq!(take(&mut former, 1, 4), [1], "3 + 2 are more than 4");
    assert_eq!(take(&mut former, 1, 4), [2, 3]);
}

#[test]
fn rows_without_elements_may_be_as_many_as_they_like() {
    let mut former = former(100, 100);
    for item in 0..100 {
        former.push(Entry { bytes: 0, ..entry(item, shape(1), i64::MAX as usize / 8) }).unwrap();
    }
    assert!(former.rows_before(u8::MAX) >= 100 << 32);
    assert_eq!(take(&mut former, 1, 8), [0]);
}

#[test]
fn an_urgent_request_goes_before_those_that_wait() {
    let mut former = former(100, 10_000);
    former.push(entry(0, Shape::Alone, 1)).unwrap();
    former.push(Entry { priority: 1, ..entry(1, Shape::Alone, 1) }).unwrap();
    assert_eq!(former.rows_before(1), 1);
    assert_eq!(former.rows_before(5), 2);
    assert_eq!(take(&mut former, 1, 8), [1]);
}

#[test]
fn requests_and_bytes_are_bounded_and_one_large_request_is_let_in_alone() {
    let mut counted = former(2, 10_000);
    counted.push(entry(0, shape(1), 1)).unwrap();
    let second = counted.push(entry(1, shape(1), 1)).unwrap();
    assert_eq!(counted.push(entry(2, shape(1), 1)).unwrap_err().item, 2);
    assert_eq!(counted.remove(second).unwrap().item, 1);
    assert_eq!(counted.bytes(), 10);
    assert!(counted.remove(second).is_none());

    let mut weighed = former(100, 15);
    weighed.push(Entry { bytes: 100, ..entry(0, shape(1), 1) }).unwrap();
    assert!(weighed.push(entry(1, shape(1), 1)).is_err());
}

#[test]
fn what_is_late_is_given_back_and_not_run() {
    let mut former = former(100, 10_000);
    for (item, deadline) in [(0, 5), (1, 100), (2, 5), (3, 100)] {
        former.push(Entry { deadline: at(deadline), ..entry(item, shape(1), 1) }).unwrap();
    }
    let mut expired = Vec::new();
    assert_eq!(items(former.take(at(5), idle(1), |_| 8, none(), &mut expired)), [1, 3]);
    assert_eq!(expired.iter().map(|e| e.item).collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn with_a_delay_the_first_waits_for_company_but_not_for_ever() {
    let mut former = Former::new(Limits { requests: 10, bytes: 1000 }, Duration::from_millis(20));
    former.push(entry(0, shape(1), 1)).unwrap();
    let until = former.take(at(1), idle(1), |_| 2, none(), &mut Vec::new());
    assert!(matches!(until, Take::Wait(until) if until == at(20)), "{until:?}");
    former.push(entry(1, shape(1), 1)).unwrap();
    assert_eq!(items(former.take(at(1), idle(1), |_| 2, none(), &mut Vec::new())), [0, 1], "it is full");
    former.push(entry(2, shape(1), 1)).unwrap();
    assert_eq!(items(former.take(at(20), idle(1), |_| 2, none(), &mut Vec::new())), [2], "it has waited");
}

#[test]
fn whoever_has_just_answered_several_gives_their_clients_a_moment() {
    let mut former = former(100, 10_000);
    let gather = Gather { rows: 3, until: at(20) };
    let take = |former: &mut Former<u32>, now| former.take(at(now), idle(2), |_| 8, gather, &mut Vec::new());
    assert!(matches!(take(&mut former, 1), Take::Nothing));
    former.push(entry(0, shape(1), 1)).unwrap();
    assert!(matches!(take(&mut former, 1), Take::Wait(until) if until == at(20)));
    former.push(entry(1, shape(1), 2)).unwrap();
    assert_eq!(items(take(&mut former, 1)), [0], "three rows wait: its half of them");
    assert_eq!(items(take(&mut former, 20)), [1], "the moment is over");
}

proptest! {
    /// Against the sentence that describes it: everything leaves once, in order within its shape and priority, no run
    /// mixes shapes or exceeds the cap, and the counts come back to nothing.
    #[test]
    fn everything_that_enters_leaves_once_in_its_order(
        arrivals in prop::collection::vec((0i64..4, 1usize..6, 0u8..3, 0usize..50), 1..60),
        runners in 1usize..4,
        cap in 1usize..9,
    ) {
        let mut former = former(1000, usize::MAX);
        for (item, (of, rows, priority, bytes)) in arrivals.iter().enumerate() {
            let shape = if *of == 0 { Shape::Alone } else { shape(*of) };
            former.push(Entry { priority: *priority, bytes: *bytes, ..entry(item as u32, shape, *rows) }).unwrap();
        }
        let mut order = Vec::new();
        while let Take::Batch(batch) = former.take(at(1), idle(runners), |_| cap, none(), &mut Vec::new()) {
            prop_assert!(batch.iter().all(|e| e.shape == batch[0].shape));
            prop_assert!(batch[0].shape != Shape::Alone || batch.len() == 1);
            let rows: usize = batch.iter().map(|e| e.rows).sum();
            prop_assert!(batch.len() == 1 || rows <= cap);
            order.extend(batch.into_iter().map(|e| (e.shape, e.priority, e.item)));
        }
        prop_assert_eq!(former.bytes(), 0);
        prop_assert_eq!(former.rows_before(u8::MAX), 0);
        prop_assert_eq!(order.len(), arrivals.len());
        for of in 0..4 {
            let same = if of == 0 { Shape::Alone } else { shape(of) };
            let left: Vec<(u8, u32)> =
                order.iter().filter(|(s, ..)| *s == same).map(|(_, p, i)| (*p, *i)).collect();
            prop_assert!(left.is_sorted(), "{left:?}");
        }
    }
}
