//! Says what is so. Pure but for `write`, the one writer of status.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod conditions;
mod events;
mod write;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{LastFailure, ModelDeploymentStatus, RevisionRole, RevisionStatus, SourceStatus, labels};
use crate::apply::{Applied, WriteError};
use crate::observe::{PodView, RevisionView, Snapshot};
use crate::plan::{Finding, Plan, Report};

pub use write::{StatusBudget, write};

/// What this pass knows. Times of transition come from `write`, which alone sees the former status.
pub fn derive(snapshot: &Snapshot, plan: &Plan, applied: &Applied, now: Timestamp) -> ModelDeploymentStatus {
    let family = &snapshot.family;
    let stable = family.service.as_ref().and_then(|s| s.number);
    let report = report(plan, applied);
    let mut status = ModelDeploymentStatus {
        observed_generation: snapshot.deployment.metadata.generation,
        url: family.service.as_ref().map(|_| {
            format!(
                "http://{}.{}.svc.{}",
                snapshot.name(),
                snapshot.namespace(),
                snapshot.settings.cluster_domain
            )
        }),
        stable_revision: stable.map(|number| name(snapshot, number)),
        updated_revision: plan.target.map(|number| name(snapshot, number)),
        desired_replicas: snapshot.deployment.spec.replicas.unwrap_or(1),
        replicas: family.replica_sets.iter().map(|s| s.live).sum(),
        ready_replicas: family.replica_sets.iter().map(|s| s.ready).sum(),
        available_replicas: available(snapshot, stable),
        updated_replicas: family
            .replica_sets
            .iter()
            .filter(|s| Some(s.number) == plan.target)
            .map(|s| s.live)
            .sum(),
        selector: Some(format!("{}={}", labels::DEPLOYMENT, snapshot.name())),
        last_failure: report.fault.as_ref().map(|f| failure(f, now)),
        ..Default::default()
    };
    let shown = family.revisions.iter().rev().filter(|r| r.data.is_some());
    status.revisions = shown.map(|r| revision(snapshot, r, stable, plan.target)).collect();
    status.device = stable.and_then(|number| {
        let name = name(snapshot, number);
        status.revisions.iter().find(|r| r.name == name)?.device.clone()
    });
    status.conditions = conditions::conditions(snapshot, &report, plan.target, &status, now);
    status
}

/// The plan's, and what came of it.
fn report(plan: &Plan, applied: &Applied) -> Report {
    let mut report = plan.report.clone();
    if let Some(fault) = applied.finding() {
        if let Some(WriteError::PodRefused { .. }) = applied.failure {
            report.refused(fault.clone());
        }
        report.fault = Some(fault);
    }
    report
}

fn name(snapshot: &Snapshot, number: u64) -> String {
    format!("{}-r{number}", snapshot.name())
}

fn available(snapshot: &Snapshot, stable: Option<u64>) -> i32 {
    let sets = snapshot.family.replica_sets.iter();
    sets.filter(|s| Some(s.number) == stable).map(|s| s.available).sum()
}

fn failure(fault: &Finding, now: Timestamp) -> LastFailure {
    LastFailure {
        reason: fault.reason.as_str().into(),
        message: fault.message.clone(),
        revision: fault.revision.clone(),
        time: Time(now),
    }
}

fn revision(
    snapshot: &Snapshot,
    revision: &RevisionView,
    stable: Option<u64>,
    target: Option<u64>,
) -> RevisionStatus {
    let role = match Some(revision.number) {
        number if number == stable => RevisionRole::Stable,
        number if number == target => RevisionRole::Candidate,
        _ => RevisionRole::Retained,
    };
    let mut status = RevisionStatus {
        name: revision.meta.name.clone(),
        role,
        digest: None,
        source: SourceStatus { uri: String::new(), version: None, immutable: false },
        image: String::new(),
        device: None,
        graph_nodes: BTreeMap::new(),
        cold_start_seconds: BTreeMap::new(),
    };
    if let Some(data) = &revision.data {
        let source = &data.resolved.source;
        status.digest = source.sha256.clone().or_else(|| source.request.digest.clone());
        status.source = SourceStatus {
            uri: source.request.uri.clone(),
            version: source.version().map(str::to_string),
            immutable: source.immutable,
        };
        status.image = data.image.clone();
    }
    let pods = snapshot.family.pods.iter();
    for pod in pods.filter(|pod| pod.number == Some(revision.number) && pod.ready && !pod.meta.deleting) {
        let Some(state) = snapshot.revision_state(pod, &revision.meta.name) else { continue };
        status.digest = status.digest.or_else(|| state.digest.clone());
        status.device = status.device.or_else(|| state.device.clone());
        if status.graph_nodes.is_empty() {
            let nodes = state.graph_nodes.iter();
            status.graph_nodes =
                nodes.map(|(k, n)| (k.clone(), i64::try_from(*n).unwrap_or(i64::MAX))).collect();
        }
        let phases = started(pod).into_iter().chain(state.seconds.iter().map(|(k, v)| (k.clone(), *v)));
        for (phase, seconds) in phases {
            let slowest = status.cold_start_seconds.entry(phase).or_insert(0.0);
            *slowest = slowest.max((seconds * 100.0).round() / 100.0);
        }
    }
    status
}

/// Seconds until the pod was bound, and until its server ran (image pull included).
fn started(pod: &PodView) -> Vec<(String, f64)> {
    let seconds = |from: Timestamp, to: Timestamp| (to.as_second() - from.as_second()).max(0) as f64;
    let Some(scheduled) = pod.scheduled_at else { return Vec::new() };
    let mut phases = vec![("schedule".to_string(), seconds(pod.meta.created, scheduled))];
    let server = pod.container("server").filter(|c| c.restarts == 0);
    if let Some(running) = server.and_then(|c| c.started_at) {
        phases.push(("pull".to_string(), seconds(scheduled, running)));
    }
    phases
}

#[cfg(test)]
mod tests;
