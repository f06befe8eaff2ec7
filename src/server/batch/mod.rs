//! Dynamic batching without a timer, as far as it can be decided without a clock, a thread or a model.
//!
//! ```text
//! signature ──> axes ──> probe (at warm-up) ──> may requests share a run?
//! requests ──> former ──────────> batch ──> join ──> run ──> split ──> answers
//!                 ^ how many rows              curve <── seconds
//! ```
//! An idle thread takes what waits; nobody waits for company. How many rows it takes follows from the measured cost of
//! a run, t(rows) = a + c·rows.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod axes;
mod curve;
mod former;
mod join;
mod probe;

pub use axes::{BatchAxes, TensorAxes};
pub use curve::Curve;
pub use former::{Entry, Former, Gather, Limits, Shape, Take, Threads, Ticket};
pub use join::{join, split};
pub use probe::{Probe, Unproven, prove};

/// What the user asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchWish {
    /// Rows of one run at most. None: proven first, then as measured. 1: requests never share a run.
    pub max_rows: Option<usize>,
    /// How long an idle thread waits for a fuller batch.
    pub delay: std::time::Duration,
    /// The batch axis of tensors, by name, where the model does not say it.
    pub axes: Vec<(String, usize)>,
}

/// Rows of one run at most, where the user sets no other bound.
pub const MAX_ROWS: usize = 64;
