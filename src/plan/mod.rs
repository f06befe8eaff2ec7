//! Decides. Pure: everything that the decision depends on is in the snapshot and the time.
//!
//! ```text
//! spec ──> which revision is that? ──known──────────────────────────> rollout: pods, route, retire
//!                │ new source                                            ▲
//!                └──> resolve pod ──> report ──> new ControllerRevision ─┘
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod analysis;
mod autoscale;
mod children;
mod compatibility;
pub mod difference;
mod faults;
mod gateway;
mod inplace;
mod progress;
mod report;
mod resolve;
mod revision;
mod rollout;
mod route;
pub mod scale;
mod shadow;
mod sizes;
mod steps;
mod strategy;
mod swap;
mod trial;
mod verbs;
mod world;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::formats::Assignments;
use crate::observe::{Family, RevisionView, Snapshot};

pub use autoscale::{Measured, desired, pods as scaling_pods, settings as scaling_settings};
pub use children::{image_for, owner_reference};
pub use faults::of_refusal;
pub use gateway::{GatewayPlan, Namespace, gateway};
pub use report::{Finding, Report};
pub use revision::{RevisionData, RevisionSpec};
pub use rollout::serving;
pub use shadow::shadow_end;
pub use steps::pause_end;
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
    let broken = target.as_deref().and_then(|target| compatibility::broken(snapshot, target));
    rollout::roll(snapshot, target.as_deref().filter(|_| broken.is_none()), now, &mut plan);
    if let Some(broken) = broken {
        plan.report.incompatible(broken);
    }
    autoscale::note(snapshot, &mut plan);
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
    let used = used.chain(of_sets(family));
    let number = used.chain(routed(family)).chain(remembered(family)).max().unwrap_or(0) + 1;
    let data = children::revision_data(snapshot, number, resolved);
    plan.writes.push(children::controller_revision(snapshot, number, &data));
    Arc::new(children::recorded(snapshot, number, data))
}

/// Revisions that the route or the Service of an older operator names.
fn routed(family: &Family) -> impl Iterator<Item = u64> {
    let route = family.route.iter().flat_map(|route| {
        let record = &route.spec.rollout;
        let backends = route.spec.backends.iter().map(|b| b.revision);
        backends.chain(record.stable).chain(record.candidate)
    });
    let route = route.filter_map(|number| u64::try_from(number).ok());
    route.chain(family.service.iter().filter_map(|service| service.number))
}

/// Revisions that the route knows something of, though they may be gone: another of such a number would pass for it.
fn remembered(family: &Family) -> impl Iterator<Item = u64> {
    let records = family.route.iter().map(|route| &route.spec.rollout);
    let numbers = records.flat_map(|record| {
        let previous = record.previous.as_ref().map(|previous| previous.revision);
        record.proven.iter().copied().chain(record.tried.iter().map(|tried| tried.revision)).chain(previous)
    });
    numbers.filter_map(|number| u64::try_from(number).ok())
}

/// Revisions that ReplicaSets were made for, whose templates they have, and those that their pods hold.
fn of_sets(family: &Family) -> impl Iterator<Item = u64> {
    let sets = family.replica_sets.iter();
    let sets = sets.flat_map(|set| Assignments::revision_of(&set.set).into_iter().chain([set.number]));
    sets.chain(family.pods.iter().flat_map(|pod| pod.slots.iter().map(|slot| slot.revision)))
}

/// Forgets revisions beyond the history limit: never one that serves, is wanted, or has pods.
fn prune(snapshot: &Snapshot, plan: &mut Plan) {
    let family = &snapshot.family;
    let limit = snapshot.deployment.spec.revision_history_limit.unwrap_or(10).max(0) as usize;
    let used: BTreeSet<u64> = plan.target.into_iter().chain(routed(family)).chain(of_sets(family)).collect();
    let retained: Vec<_> = family.revisions.iter().filter(|r| !used.contains(&r.number)).collect();
    for revision in retained.iter().take(retained.len().saturating_sub(limit)) {
        plan.writes.push(Write::delete(Kind::ControllerRevision, &revision.meta));
    }
}

#[cfg(test)]
mod tests;
