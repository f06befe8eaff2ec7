#![no_main]
//! The batch former against a plain list: nothing is lost, doubled, mixed, late, or before its turn.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use modelwright::server::batch::{Entry, Former, Gather, Limits, Shape, Take, Threads, Ticket};

#[derive(Arbitrary, Debug)]
struct Story {
    requests: u8,
    bytes: u16,
    delay: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Push { shape: u8, rows: u8, is_huge: bool, bytes: u16, priority: u8, patience: u8 },
    Leave(u8),
    Take { after: u8, threads: u8, busy_with: u16, cap: u8, gather: u8, moment: u8 },
}

#[derive(Clone, Debug)]
struct Known {
    item: u32,
    ticket: Ticket,
    priority: u8,
    shape: Shape,
    rows: usize,
    bytes: usize,
    queued_at: Instant,
    deadline: Instant,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn shape(number: u8) -> Shape {
    match number % 4 {
        0 => Shape::Alone,
        other => Shape::Of([i64::from(other)].into()),
    }
}

fuzz_target!(|story: Story| {
    let limits = Limits { requests: story.requests.into(), bytes: story.bytes.into() };
    let delay = Duration::from_millis(story.delay.into());
    let mut former: Former<u32> = Former::new(limits, delay);
    // By ticket: priority, then arrival.
    let mut list: Vec<Known> = Vec::new();
    let mut now = *START;
    for (item, step) in (0u32..).zip(story.steps) {
        match step {
            Step::Push { shape: number, rows, is_huge, bytes, priority, patience } => {
                // An axis of a tensor without elements may be as long as it likes.
                let rows = if is_huge { i64::MAX as usize / 8 } else { usize::from(rows) };
                let (bytes, priority) = (usize::from(bytes), priority % 3);
                let deadline = now + Duration::from_millis(patience.into());
                let entry =
                    Entry { shape: shape(number), rows, bytes, priority, queued_at: now, deadline, item };
                let held: usize = list.iter().map(|k| k.bytes).sum();
                let fits = list.len() < limits.requests && (list.is_empty() || held + bytes <= limits.bytes);
                match former.push(entry) {
                    Ok(ticket) => {
                        assert!(fits);
                        let at = list.partition_point(|k| k.ticket < ticket);
                        let shape = shape(number);
                        list.insert(
                            at,
                            Known { item, ticket, priority, shape, rows, bytes, queued_at: now, deadline },
                        );
                    }
                    Err(entry) => assert!(!fits && entry.item == item),
                }
                // A request without elements counts as 2^32 rows.
                let ahead = list.iter().filter(|k| k.priority <= priority);
                assert_eq!(former.rows_before(priority), ahead.map(|k| k.rows.min(1 << 32)).sum::<usize>());
            }
            Step::Leave(which) if !list.is_empty() => {
                let known = list.remove(usize::from(which) % list.len());
                assert_eq!(former.remove(known.ticket).map(|e| e.item), Some(known.item));
                assert!(former.remove(known.ticket).is_none());
            }
            Step::Leave(_) => {}
            Step::Take { after, threads, busy_with, cap, gather, moment } => {
                now += Duration::from_millis(after.into());
                let threads = Threads { count: threads.into(), busy_with: busy_with.into() };
                let gather =
                    Gather { rows: gather.into(), until: now + Duration::from_millis(moment.into()) };
                take(&mut former, &mut list, now, threads, cap.into(), gather, delay);
            }
        }
        assert_eq!((former.len(), former.is_empty()), (list.len(), list.is_empty()));
        assert_eq!(former.bytes(), list.iter().map(|k| k.bytes).sum::<usize>());
    }
});

fn take(
    former: &mut Former<u32>,
    list: &mut Vec<Known>,
    now: Instant,
    threads: Threads,
    cap: usize,
    gather: Gather,
    delay: Duration,
) {
    let mut expired = Vec::new();
    let took = former.take(now, threads, |_| cap, gather, &mut expired);
    for late in expired {
        let at = list.iter().position(|k| k.item == late.item).expect("it waited");
        assert!(list.remove(at).deadline <= now);
    }
    let head = list.iter().find(|k| k.deadline > now).cloned();
    match took {
        Take::Nothing => assert!(list.is_empty()),
        Take::Wait(until) => {
            let head = head.expect("somebody waits");
            let patience = gather.until.max(head.queued_at + delay);
            assert!(until > now && until <= patience && until <= head.deadline);
            assert!(head.shape != Shape::Alone);
        }
        Take::Batch(batch) => {
            let head = head.expect("somebody waits");
            assert_eq!(batch[0].item, head.item, "the first comes first");
            let mut rows = 0usize;
            let mut same = list.iter().filter(|k| k.shape == head.shape && k.deadline > now);
            for entry in &batch {
                // In order, and nobody of its shape is passed over.
                let known = same.next().expect("it waited");
                assert_eq!((entry.item, entry.rows), (known.item, known.rows));
                rows = rows.saturating_add(entry.rows);
            }
            assert!(head.shape != Shape::Alone || batch.len() == 1);
            assert!(rows <= cap.max(1).max(head.rows), "{rows} rows under a cap of {cap}");
            list.retain(|k| batch.iter().all(|e| e.item != k.item));
        }
    }
}
