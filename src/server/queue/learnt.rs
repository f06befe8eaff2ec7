//! What the runs so far say of the model.

use super::super::batch::{Curve, MAX_ROWS};
use super::{Batching, Queue};
use crate::formats::Capacity;

impl Queue {
    /// Rows of one run at most, whatever is learnt, where they lie along the first axis of every tensor.
    pub fn max_batch_size(&self) -> Option<usize> {
        let Batching { axes, max_rows, .. } = self.shared.batching.as_ref()?;
        let first = axes.inputs.iter().chain(&axes.outputs).all(|axis| *axis == 0);
        first.then(|| max_rows.unwrap_or(MAX_ROWS))
    }

    /// What all threads take at the knee of the curve that most runs were of; None: not measured yet.
    pub fn capacity(&self) -> Option<Capacity> {
        let state = self.shared.lock();
        let threads = self.shared.brakes.len() as f64;
        let shared = self.shared.batching.as_ref().filter(|_| !state.unbatched);
        let limit = shared.map_or(1, |batching| batching.max_rows.unwrap_or(MAX_ROWS));
        let curves = state.curves.values().chain([&state.alone]);
        let (rows, seconds) = curves.max_by_key(|curve| curve.samples())?.knee(limit)?;
        let requests = threads * (rows as f64 / state.rows).max(1.0);
        Some(Capacity { concurrency: requests, per_second: requests / seconds.max(1e-6) })
    }

    /// Rows of one run at most, of the shape that is learnt best; None: runs are not shared.
    pub fn row_limit(&self) -> Option<usize> {
        let batching = self.shared.batching.as_ref()?;
        let state = self.shared.lock();
        let learnt = state.curves.values().map(Curve::cap).max().unwrap_or_else(|| Curve::default().cap());
        (!state.unbatched).then(|| batching.max_rows.unwrap_or(MAX_ROWS).min(learnt))
    }
}
