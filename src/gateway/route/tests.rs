use std::sync::atomic::AtomicI64;
use std::thread;

use arc_swap::ArcSwap;

use super::*;
use crate::gateway::metrics::Metrics;

const NOW: Duration = Duration::from_secs(1);

fn arm(revision: i64, weight: u32, pods: usize) -> Arm {
    let address = "127.0.0.1:1".parse().unwrap();
    let pods = (0..pods).map(|number| Pod::new(format!("r{revision}-{number}"), revision, address)).collect();
    Arm { revision, weight, pods, metrics: Metrics::default().arm("m", revision), part: None }
}

fn route(generation: i64, mode: RouteMode, arms: Vec<Arm>) -> Route {
    Route::new("uid".into(), generation, mode, RouteLimits::default(), arms, None, Arc::default())
}

#[test]
fn requests_go_wait_or_are_refused_as_the_route_says() {
    use RouteMode::{Forward, Hold, Refuse};
    for (mode, arms, target, verdict) in [
        (Forward, vec![arm(1, 100, 1)], None, Verdict::Go),
        (Forward, vec![arm(1, 100, 0)], None, Verdict::Wait),
        (Forward, vec![], None, Verdict::Wait),
        (Forward, vec![arm(1, 100, 0), arm(2, 0, 1)], None, Verdict::Wait),
        (Forward, vec![arm(1, 100, 0), arm(2, 0, 1)], Some(2), Verdict::Go),
        (Forward, vec![arm(1, 99, 0), arm(2, 1, 1)], None, Verdict::Go),
        (Forward, vec![arm(1, 99, 0), arm(2, 1, 1)], Some(1), Verdict::Wait),
        (Forward, vec![arm(1, 100, 1)], Some(3), Verdict::NoSuchVersion),
        (Hold, vec![arm(1, 100, 1)], None, Verdict::Wait),
        (Hold, vec![arm(1, 100, 1)], Some(1), Verdict::Wait),
        (Refuse, vec![arm(1, 100, 1)], None, Verdict::Refuse),
    ] {
        let route = route(1, mode, arms);
        assert_eq!(route.verdict(target, NOW), verdict, "{route:?} {target:?}");
        assert_eq!(route.pick(target, 0, None, NOW).is_some(), verdict == Verdict::Go);
    }
}

#[test]
fn a_failed_pod_is_not_chosen_while_there_is_another() {
    let route = route(1, RouteMode::Forward, vec![arm(1, 100, 3)]);
    let failed = route.arms[0].pods[0].clone();
    for ticket in 0..100 {
        let (_, pod) = route.pick(None, ticket, Some(&failed), NOW).unwrap();
        assert_ne!(pod.uid, failed.uid);
    }
    failed.suspect(NOW);
    for ticket in 0..100 {
        assert_ne!(route.pick(None, ticket, None, NOW).unwrap().1.uid, failed.uid);
    }
    for pod in &route.arms[0].pods {
        pod.suspect(NOW);
    }
    assert_eq!(route.verdict(None, NOW), Verdict::Wait);
    assert_eq!(route.verdict(None, NOW + Duration::from_secs(2)), Verdict::Go);
}

/// The property that destructive steps rest on, with real threads: while somebody may send by a route, no newer one is
/// called applied.
#[test]
fn nothing_is_sent_by_a_route_once_a_newer_one_is_applied() {
    const GENERATIONS: i64 = 2000;
    let current = ArcSwap::from_pointee(route(0, RouteMode::Forward, Vec::new()));
    let applied = AtomicI64::new(0);
    let sent = AtomicI64::new(0);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while applied.load(Ordering::SeqCst) < GENERATIONS {
                        let route = current.load_full();
                        // As a request that connects first.
                        thread::yield_now();
                        if let Some(sending) = route.begin() {
                            assert!(applied.load(Ordering::SeqCst) <= route.generation);
                            sent.fetch_add(1, Ordering::SeqCst);
                            drop(sending);
                        }
                    }
                })
            })
            .collect();
        for generation in 1..=GENERATIONS {
            // Or all generations have passed before the first sender has begun.
            while sent.load(Ordering::SeqCst) < generation
                && !senders.iter().all(|sender| sender.is_finished())
            {
                thread::yield_now();
            }
            let old = current.swap(Arc::new(route(generation, RouteMode::Forward, Vec::new())));
            old.retire();
            while !old.is_sent() {
                thread::yield_now();
            }
            applied.store(generation, Ordering::SeqCst);
        }
    });
    assert!(sent.load(Ordering::SeqCst) >= GENERATIONS);
}
