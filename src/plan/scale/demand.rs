//! What was asked for, in buckets: fixed memory, and no cost of a decision grows with the time that it looks back at.

use super::Seconds;

/// One report of all gateways together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests that arrived since the sample before.
    pub arrivals: f64,
    /// In flight + held, on average since the sample before.
    pub concurrency: f64,
    /// At this moment.
    pub in_flight: u64,
    pub held: u64,
}

impl Sample {
    pub(super) fn is_valid(&self) -> bool {
        [self.arrivals, self.concurrency].iter().all(|value| value.is_finite() && *value >= 0.0)
    }
}

/// Seconds of one bucket each, the newest last; a minute of them.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    buckets: [Bucket; Recent::SIZE],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which second this is of; another one's content counts as nothing.
    second: Option<u64>,
    arrivals: f64,
    /// Integral of the concurrency.
    request_seconds: f64,
    covered: f64,
}

impl Recent {
    pub const SIZE: usize = 64;

    pub fn new() -> Self {
        Self { buckets: [Bucket::default(); Self::SIZE] }
    }

    /// What happened between two times; spread evenly where that spans buckets.
    pub fn record(&mut self, from: Seconds, to: Seconds, sample: &Sample) {
        let from = from.max(to - (Self::SIZE - 1) as f64);
        let whole = (to - from).max(1e-9);
        let (first, last) = (from as u64, to as u64);
        for second in first..=last {
            let covered = (to.min((second + 1) as f64) - from.max(second as f64)).max(0.0);
            if covered == 0.0 && second != last {
                continue;
            }
            let slot = &mut self.buckets[second as usize % Self::SIZE];
            if slot.second != Some(second) {
                *slot = Bucket { second: Some(second), ..Bucket::default() };
            }
            slot.arrivals += sample.arrivals * covered / whole;
            slot.request_seconds += sample.concurrency * covered;
            slot.covered += covered;
        }
    }

    /// Per second, over the last `window` seconds that were recorded: (arrivals, concurrency).
    pub fn mean(&self, now: Seconds, window: Seconds) -> (f64, f64) {
        let newest = now as u64;
        let oldest = (now - window).max(0.0).floor() as u64;
        let (mut arrivals, mut request_seconds, mut covered) = (0.0, 0.0, 0.0);
        for bucket in &self.buckets {
            if bucket.second.is_some_and(|s| s >= oldest && s <= newest) {
                arrivals += bucket.arrivals;
                request_seconds += bucket.request_seconds;
                covered += bucket.covered;
            }
        }
        match covered > 0.0 {
            true => (arrivals / covered, request_seconds / covered),
            false => (0.0, 0.0),
        }
    }
}

/// The highest value of the last hour at most, in slots of a few seconds.
#[derive(Clone, Debug)]
pub(super) struct Peaks {
    slots: Box<[(u32, f32)]>,
}

impl Peaks {
    pub const SLOT: Seconds = 5.0;
    const SIZE: usize = 721;

    pub fn new() -> Self {
        Self { slots: vec![(u32::MAX, 0.0); Self::SIZE].into_boxed_slice() }
    }

    pub fn record(&mut self, now: Seconds, value: f64) {
        let slot = (now / Self::SLOT) as u32;
        let entry = &mut self.slots[slot as usize % Self::SIZE];
        let before = if entry.0 == slot { entry.1 } else { 0.0 };
        *entry = (slot, before.max(value as f32));
    }

    /// The highest of the last `window` seconds, and of up to one slot more.
    pub fn highest(&self, now: Seconds, window: Seconds) -> f64 {
        let newest = (now / Self::SLOT) as u32;
        let oldest = ((now - window).max(0.0) / Self::SLOT) as u32;
        let within = self.slots.iter().filter(|(slot, _)| (oldest..=newest).contains(slot));
        within.map(|(_, value)| f64::from(*value)).fold(0.0, f64::max)
    }
}
