use super::*;

fn limits(requests: i64, bytes: i64) -> RouteLimits {
    RouteLimits { queue_requests: requests, queue_bytes: bytes, ..RouteLimits::default() }
}

#[test]
fn turns_come_in_order_and_a_place_is_kept() {
    let queue: Queue<u64> = Queue::default();
    let limits = limits(3, 100);
    let mut first = queue.enter(None, 1, None, &limits).unwrap();
    let number = first.number;
    let mut second = queue.enter(None, 1, None, &limits).unwrap();
    let mut count = 0;
    let mut let_one_out = || {
        let mut once = false;
        count += 1;
        for (turn, place) in
            queue.release(|_| if std::mem::replace(&mut once, true) { Step::Stop } else { Step::Go(count) })
        {
            turn.send(place).unwrap();
        }
    };
    let_one_out();
    assert_eq!(first.turn.try_recv(), Ok(1));
    drop(first);
    // Its pod failed: it is in front of who came later.
    let mut again = queue.enter(None, 1, Some(number), &limits).unwrap();
    let_one_out();
    assert_eq!(again.turn.try_recv(), Ok(2));
    assert!(second.turn.try_recv().is_err());
    drop(again);
    let_one_out();
    assert_eq!(second.turn.try_recv(), Ok(3));
}

#[test]
fn who_waits_for_a_revision_without_pods_holds_up_nobody() {
    let queue: Queue<()> = Queue::default();
    let limits = limits(10, 100);
    let mut waits = queue.enter(Some(2), 1, None, &limits).unwrap();
    let mut goes = queue.enter(None, 1, None, &limits).unwrap();
    for (turn, place) in queue.release(|target| if target.is_some() { Step::Stay } else { Step::Go(()) }) {
        turn.send(place).unwrap();
    }
    assert!(goes.turn.try_recv().is_ok() && waits.turn.try_recv().is_err());
    assert_eq!(queue.len(), 1);
}

#[test]
fn bounds_count_who_is_there_and_not_who_was_accepted_before() {
    let queue: Queue<()> = Queue::default();
    let limits = limits(2, 10);
    let one = queue.enter(None, 8, None, &limits).unwrap();
    assert_eq!(queue.enter(None, 3, None, &limits).unwrap_err().0, Refused::QueueBytes);
    let two = queue.enter(None, 2, None, &limits).unwrap();
    assert_eq!(queue.enter(None, 0, None, &limits).unwrap_err().0, Refused::QueueRequests);
    let back = queue.enter(None, 8, Some(0), &limits).unwrap();
    assert_eq!(queue.len(), 3);
    drop((one, two, back));
    assert_eq!(queue.len(), 0);
    assert_eq!(queue.lock().bytes, 0);
}
