use std::collections::BTreeMap;

use super::MAX_ROWS;

/// Rows of a run while nothing is known.
const FIRST_CAP: usize = 4;
/// At the cap, a row costs at most this much of what it costs in an endless batch: c ÷ (a/b + c) ≥ 0.975, so b is 39
/// times a ÷ c. MiniLM-L3 on a CPU has a ÷ c = 0.19: 8 rows, and no client waits for more than it must.
const ROW_SHARE: f64 = 0.975;
/// A run that was disturbed by a neighbour is no news of the model: a higher sample moves the estimate only by this.
const DRIFT: f64 = 0.02;
/// Sizes whose rows differ by less cost the same.
const TOLERANCE: f64 = 0.02;
/// Samples of one size before it counts.
const SAMPLES: u32 = 3;

/// What runs of `rows` rows cost: seconds(rows) = a + c·rows, by least squares over the sizes that were seen.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    sizes: BTreeMap<usize, Size>,
    line: Option<Line>,
}

#[derive(Clone, Debug)]
struct Size {
    seconds: f64,
    samples: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    a: f64,
    c: f64,
}

impl Curve {
    pub fn observe(&mut self, rows: usize, seconds: f64) {
        if rows == 0 || rows > MAX_ROWS || !seconds.is_finite() {
            return;
        }
        let size = self.sizes.entry(rows).or_insert(Size { seconds, samples: 0 });
        size.samples = size.samples.saturating_add(1);
        size.seconds = match seconds < size.seconds {
            true => seconds,
            false => size.seconds + DRIFT * (seconds - size.seconds),
        };
        self.line = self.fit();
    }

    fn fit(&self) -> Option<Line> {
        let known = || self.sizes.iter().filter(|(_, size)| size.samples >= SAMPLES);
        let count = known().count() as f64;
        if count < 2.0 {
            return None;
        }
        let mean_rows = known().map(|(rows, _)| *rows as f64).sum::<f64>() / count;
        let mean_seconds = known().map(|(_, size)| size.seconds).sum::<f64>() / count;
        let (mut covariance, mut variance) = (0.0, 0.0);
        for (rows, size) in known() {
            let distance = *rows as f64 - mean_rows;
            covariance += distance * (size.seconds - mean_seconds);
            variance += distance * distance;
        }
        let c = (covariance / variance).max(0.0);
        Some(Line { a: (mean_seconds - c * mean_rows).max(0.0), c })
    }

    /// Rows that a run should have at most. At least two, so that the curve goes on learning.
    pub fn cap(&self) -> usize {
        let Some(Line { a, c }) = self.line else { return FIRST_CAP };
        let knee = (ROW_SHARE / (1.0 - ROW_SHARE) * a / c).ceil();
        // A flat curve divides by zero: as many as there are.
        let knee = if knee.is_finite() { (knee as usize).clamp(2, MAX_ROWS) } else { MAX_ROWS };
        let per_row = |(rows, size): (&usize, &Size)| size.seconds / *rows as f64;
        let known = || self.sizes.iter().filter(|(_, size)| size.samples >= SAMPLES);
        let largest = known().next_back().map_or(FIRST_CAP, |(rows, _)| *rows);
        if knee > largest {
            return knee.min(2 * largest);
        }
        // The line knows nothing of caches: on a CPU, rows get dearer again once a run's tensors don't fit. What was
        // tried is known better: the smallest size whose rows are as cheap as any.
        let cheapest = known().map(per_row).fold(f64::INFINITY, f64::min);
        let enough = known().find(|size| per_row(*size) <= cheapest * (1.0 + TOLERANCE));
        enough.map_or(FIRST_CAP, |(rows, _)| (*rows).max(2))
    }

    /// Rows of a run at the cap, `limit` at most, and what it takes; None: too little was seen.
    pub fn knee(&self, limit: usize) -> Option<(usize, f64)> {
        let mut known = self.sizes.iter().filter(|(_, size)| size.samples >= SAMPLES);
        let (largest, size) = known.next_back()?;
        let rows = self.cap().min(limit).max(1);
        Some(self.seconds(rows).map_or((*largest, size.seconds), |seconds| (rows, seconds)))
    }

    pub fn samples(&self) -> u64 {
        self.sizes.values().map(|size| u64::from(size.samples)).sum()
    }

    /// Seconds that a run of `rows` rows takes when nothing disturbs it; None: not known yet.
    pub fn seconds(&self, rows: usize) -> Option<f64> {
        self.line.map(|line| line.a + line.c * rows as f64)
    }
}

#[cfg(test)]
mod tests;
