use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What the requests of one run have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Axes other than the batch, and the outputs asked for.
    Of(Box<[i64]>),
    /// Runs alone.
    Alone,
}

/// One request that waits.
#[derive(Debug)]
pub struct Entry<T> {
    pub shape: Shape,
    /// Its own length along the batch axis.
    pub rows: usize,
    /// Of its inputs.
    pub bytes: usize,
    /// Lower comes first.
    pub priority: u8,
    pub queued_at: Instant,
    /// Nobody wants the answer later.
    pub deadline: Instant,
    pub item: T,
}

impl<T> Entry<T> {
    /// Its rows in sums. Of tensors without elements there may be 2^60, and a sum of those overflows.
    fn weight(&self) -> usize {
        self.rows.min(1 << 32)
    }
}

/// What the queue holds at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub requests: usize,
    pub bytes: usize,
}

/// The place of an entry: by priority, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    priority: u8,
    number: u64,
}

/// A thread that has just answered several requests gives their clients a moment to come back: without it, the first
/// that does runs alone, and the others wait for the end of that.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// Worth waiting for.
    pub rows: usize,
    pub until: Instant,
}

/// Those that take from the queue.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    pub count: usize,
    /// Rows that the others run at this moment.
    pub busy_with: usize,
}

/// What a thread finds when it looks for work.
#[derive(Debug)]
pub enum Take<T> {
    /// At least one, of one shape.
    Batch(Vec<Entry<T>>),
    /// Company may come until then.
    Wait(Instant),
    Nothing,
}

/// The queue: bounded by requests and bytes, first come first served within a priority; requests of the same shape
/// share a run.
#[derive(Debug)]
pub struct Former<T> {
    entries: BTreeMap<Ticket, Entry<T>>,
    limits: Limits,
    /// How long the first may wait for company; zero: not at all.
    delay: Duration,
    bytes: usize,
    rows: usize,
    arrived: u64,
}

impl<T> Former<T> {
    pub fn new(limits: Limits, delay: Duration) -> Self {
        Self { entries: BTreeMap::new(), limits, delay, bytes: 0, rows: 0, arrived: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Of all that waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of those that come before a new entry of `priority`.
    pub fn rows_before(&self, priority: u8) -> usize {
        match self.entries.last_key_value() {
            Some((last, _)) if last.priority > priority => {
                self.entries.iter().take_while(|(t, _)| t.priority <= priority).map(|(_, e)| e.weight()).sum()
            }
            _ => self.rows,
        }
    }

    /// The entry again, when there is no room. One larger than the bound on bytes is let in when nothing else waits:
    /// the limit on a request's size is another.
    pub fn push(&mut self, entry: Entry<T>) -> Result<Ticket, Entry<T>> {
        let too_many = self.entries.len() >= self.limits.requests;
        let too_large = !self.is_empty() && self.bytes.saturating_add(entry.bytes) > self.limits.bytes;
        if too_many || too_large {
            return Err(entry);
        }
        let ticket = Ticket { priority: entry.priority, number: self.arrived };
        self.arrived += 1;
        self.bytes += entry.bytes;
        self.rows += entry.weight();
        self.entries.insert(ticket, entry);
        Ok(ticket)
    }

    /// Takes one out whose client has gone. None: it was taken before.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Entry<T>> {
        let entry = self.entries.remove(&ticket)?;
        self.bytes -= entry.bytes;
        self.rows -= entry.weight();
        Some(entry)
    }

    /// The next run: the first that waits, and others of its shape behind it. It takes its share of what waits and runs
    /// elsewhere, so that two threads work on eight requests as four and four; at most `cap` rows, unless the first alone
    /// has more; not yet, while it is to `gather` and fewer wait. Entries whose deadline has passed are left out, in
    /// `expired`.
    pub fn take(
        &mut self,
        now: Instant,
        threads: Threads,
        cap: impl Fn(&Shape) -> usize,
        gather: Gather,
        expired: &mut Vec<Entry<T>>,
    ) -> Take<T> {
        let late: Vec<Ticket> =
            self.entries.iter().take_while(|(_, e)| e.deadline <= now).map(|(ticket, _)| *ticket).collect();
        expired.extend(late.into_iter().filter_map(|ticket| self.remove(ticket)));
        let Some((first, head)) = self.entries.first_key_value() else { return Take::Nothing };
        if head.shape == Shape::Alone {
            let first = *first;
            return self.remove(first).map_or(Take::Nothing, |entry| Take::Batch(vec![entry]));
        }
        let cap = cap(&head.shape).max(1);
        let mut same = Vec::new();
        let mut waiting = 0;
        for (ticket, entry) in self.entries.iter().filter(|(_, e)| e.shape == head.shape) {
            same.push((*ticket, entry.rows, entry.deadline <= now));
            waiting += entry.rows;
            if waiting >= cap * threads.count {
                break;
            }
        }
        let until = match waiting < gather.rows.min(cap) {
            true => gather.until.max(head.queued_at + self.delay),
            false => head.queued_at + self.delay,
        };
        if waiting < cap && now < until {
            return Take::Wait(until.min(head.deadline));
        }
        // Whoever waits for a full batch does not want halves of one.
        let share = match self.delay.is_zero() {
            true => (waiting + threads.busy_with).div_ceil(threads.count.max(1)),
            false => waiting,
        };
        let share = share.clamp(1, cap);
        let (mut batch, mut rows) = (Vec::with_capacity(share), 0);
        for (ticket, its_rows, is_late) in same {
            if !is_late && !batch.is_empty() && rows + its_rows > share {
                break;
            }
            let Some(entry) = self.remove(ticket) else { continue };
            if is_late {
                expired.push(entry);
            } else {
                rows += its_rows;
                batch.push(entry);
            }
        }
        Take::Batch(batch)
    }
}

#[cfg(test)]
mod tests;
