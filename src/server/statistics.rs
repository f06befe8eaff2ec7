//! What Triton's statistics extension reports: cumulative counts and times since the process started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::protocol::grpc::proto::{
    InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration,
};

/// Batch sizes that are told apart; a client's own batches may have any size.
const BATCH_SIZES: usize = 128;

/// One model's. Readers may see a request's parts counted one after the other.
#[derive(Debug, Default)]
pub struct Statistics {
    success: Counter,
    fail: Counter,
    queue: Counter,
    compute_input: Counter,
    compute_infer: Counter,
    compute_output: Counter,
    /// Milliseconds since 1970.
    last_inference: AtomicU64,
    inferences: AtomicU64,
    executions: AtomicU64,
    batches: Mutex<BTreeMap<u64, Batch>>,
}

#[derive(Debug, Default)]
struct Counter {
    count: AtomicU64,
    ns: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    count: u64,
    infer: Duration,
}

impl Statistics {
    /// A request was answered, `took` after it came.
    pub fn succeeded(&self, took: Duration) {
        self.success.add(1, took);
    }

    pub fn failed(&self, took: Duration) {
        self.fail.add(1, took);
    }

    /// A request's message was read.
    pub fn decoded(&self, took: Duration) {
        self.compute_input.add(1, took);
    }

    /// A request's answer was written.
    pub fn encoded(&self, took: Duration) {
        self.compute_output.add(1, took);
    }

    /// A request waited for a thread.
    pub fn queued(&self, took: Duration) {
        self.queue.add(1, took);
    }

    /// The model ran once, without an error, for `requests` requests of together `rows` inferences.
    pub fn executed(&self, requests: usize, rows: usize, took: Duration) {
        let (requests, rows) = (requests as u64, rows as u64);
        self.inferences.fetch_add(rows, Relaxed);
        self.executions.fetch_add(1, Relaxed);
        // Each request of a batch has waited for the whole of it.
        self.compute_infer.add(requests, took.saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX)));
        if let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) {
            self.last_inference.store(now.as_millis() as u64, Relaxed);
        }
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.len() < BATCH_SIZES || batches.contains_key(&rows) {
            let batch = batches.entry(rows).or_default();
            batch.count += 1;
            batch.infer += took;
        }
    }

    pub fn report(&self, name: &str, version: &str) -> ModelStatistics {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let batch_stats = batches.into_iter().map(|(batch_size, batch)| {
            let time = |time| Some(StatisticDuration { count: batch.count, ns: nanoseconds(time) });
            // Messages are read and written request by request.
            let (compute_input, compute_output) = (time(Duration::ZERO), time(Duration::ZERO));
            InferBatchStatistics {
                batch_size,
                compute_input,
                compute_infer: time(batch.infer),
                compute_output,
            }
        });
        ModelStatistics {
            name: name.into(),
            version: version.into(),
            last_inference: self.last_inference.load(Relaxed),
            inference_count: self.inferences.load(Relaxed),
            execution_count: self.executions.load(Relaxed),
            inference_stats: Some(InferStatistics {
                success: self.success.report(),
                fail: self.fail.report(),
                queue: self.queue.report(),
                compute_input: self.compute_input.report(),
                compute_infer: self.compute_infer.report(),
                compute_output: self.compute_output.report(),
            }),
            batch_stats: batch_stats.collect(),
        }
    }
}

impl Counter {
    fn add(&self, count: u64, took: Duration) {
        self.count.fetch_add(count, Relaxed);
        self.ns.fetch_add(nanoseconds(took), Relaxed);
    }

    fn report(&self) -> Option<StatisticDuration> {
        Some(StatisticDuration { count: self.count.load(Relaxed), ns: self.ns.load(Relaxed) })
    }
}

/// Saturates after 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
