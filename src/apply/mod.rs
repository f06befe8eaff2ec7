//! Executes a plan. Every API write of the operator goes through one numbered choke point (the lease, which decides
//! who may write, is the one exception).

mod expectations;
#[cfg(feature = "faults")]
mod faults;
mod writer;

pub use expectations::{Expectations, find};
pub use writer::{WriteError, Writer, Written};

use crate::observe::Snapshot;
use crate::plan::{Finding, Plan};

/// What became of a plan: how far it went, and why no further.
#[derive(Debug, Default)]
pub struct Applied {
    pub done: usize,
    pub failure: Option<WriteError>,
}

impl Applied {
    /// The failure as a person should see it. None where it passes by itself: a stale view, a busy API server.
    pub fn finding(&self) -> Option<Finding> {
        self.failure.as_ref().and_then(WriteError::finding)
    }
}

/// Writes in order and stops at the first failure: a later write relies on the earlier ones.
pub async fn apply(
    writer: &Writer,
    expectations: &Expectations,
    snapshot: &Snapshot,
    plan: &Plan,
) -> Applied {
    let mut applied = Applied::default();
    for write in &plan.writes {
        match writer.send(snapshot.namespace(), write).await {
            Ok(written) => {
                expectations.expect(snapshot.key(), write, written);
                applied.done += 1;
            }
            Err(error) => {
                applied.failure = Some(error);
                break;
            }
        }
    }
    applied
}
