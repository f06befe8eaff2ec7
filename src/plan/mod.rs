//! Decides. Pure: everything that the decision depends on is in the snapshot and the time.
//!
//! ```text
//! spec ──> which revision is that? ──known──────────────────────────> rollout: pods, address, retire
//!                │ new source                                            ▲
//!                └──> resolve pod ──> report ──> new ControllerRevision ─┘
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod children;
mod faults;
mod report;
mod resolve;
mod revision;
mod rollout;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::observe::{RevisionView, Snapshot};

pub use children::{image_for, owner_reference};
pub use faults::of_refusal;
pub use report::{Finding, Report};
pub use revision::{RevisionData, RevisionSpec};
pub use write::{Kind, Write};

/// What to do, and why. `apply` executes it without deciding anything.
#[derive(Clone, Debug, Default)]
#[must_use = "a plan that is not applied changes nothing"]
pub struct Plan {
    /// In order: a later write relies on the earlier ones.
    pub writes: Vec<Write>,
    /// The revision of the newest spec, once it is known.
    pub target: Option<u64>,
    pub report: Report,
    /// Look again at this time, even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// The earlier of the two times stands.
    pub(crate) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
    }
}

pub fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if snapshot.deployment.metadata.deletion_timestamp.is_some() {
        return plan; // the garbage collector takes the children
    }
    let mut resolver = None;
    let target = match revision::choose(snapshot) {
        revision::Choice::Known(revision) => Some(revision),
        revision::Choice::Resolved(resolved) => Some(record(snapshot, *resolved, &mut plan)),
        revision::Choice::Resolve { fallback } => {
            let (name, body) = children::resolve_pod(snapshot);
            resolver = Some(name.clone());
            match (resolve::resolve(snapshot, name, body, now, &mut plan), fallback) {
                (None, fallback) => fallback,
                // The verb found the same bytes: note that it was done, nothing else changes.
                (Some(resolved), Some(same)) if revision::same_bytes(&same, &resolved) => {
                    plan.writes.push(children::note_resolved_at(snapshot, &same));
                    Some(same)
                }
                (Some(resolved), _) => Some(record(snapshot, resolved, &mut plan)),
            }
        }
    };
    if let Some(target) = &target {
        plan.target = Some(target.number);
        plan.report.resolved(target);
    }
    rollout::roll(snapshot, target.as_deref(), now, &mut plan);
    prune(snapshot, &mut plan);
    resolve::retire(snapshot, resolver.as_deref(), &mut plan);
    // Last: a resolve pod that is refused (a quota, a policy) must not hold up what serves.
    plan.writes.sort_by_key(|write| matches!(write, Write::Create { kind: Kind::Pod, .. }));
    plan
}

/// A new revision: its number is the next one that nothing has ever borne.
fn record(snapshot: &Snapshot, resolved: crate::formats::Resolved, plan: &mut Plan) -> Arc<RevisionView> {
    let family = &snapshot.family;
    let used = family.revisions.iter().map(|r| r.number);
    let used = used.chain(family.replica_sets.iter().map(|r| r.number));
    let number = used.chain(family.service.iter().filter_map(|s| s.number)).max().unwrap_or(0) + 1;
    let data = children::revision_data(snapshot, number, resolved);
    plan.writes.push(children::controller_revision(snapshot, number, &data));
    Arc::new(children::recorded(snapshot, number, data))
}

/// Forgets revisions beyond the history limit: never one that serves, is wanted, or has pods.
fn prune(snapshot: &Snapshot, plan: &mut Plan) {
    let family = &snapshot.family;
    let limit = snapshot.deployment.spec.revision_history_limit.unwrap_or(10).max(0) as usize;
    let used: BTreeSet<u64> = plan
        .target
        .into_iter()
        .chain(family.service.iter().filter_map(|s| s.number))
        .chain(family.replica_sets.iter().map(|r| r.number))
        .collect();
    let retained: Vec<_> = family.revisions.iter().filter(|r| !used.contains(&r.number)).collect();
    for revision in retained.iter().take(retained.len().saturating_sub(limit)) {
        plan.writes.push(Write::delete(Kind::ControllerRevision, &revision.meta));
    }
}

#[cfg(test)]
mod tests;
