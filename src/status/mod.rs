//! Says what is so. Pure but for `write`, the one writer of status.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod conditions;
mod events;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{
    AutoscalingStatus, Backend, GatewayStatus, LastFailure, ModelDeploymentStatus, ModelRouteSpec,
    RevisionRole, RevisionStatus, RolloutStatus, RouteMode, ScalingMetric, SourceStatus, TrafficStatus,
    labels,
};
use crate::apply::{Applied, WriteError};
use crate::observe::{RevisionView, Snapshot};
use crate::plan::scale::Target;
use crate::plan::{self, Finding, Plan, Report};

pub use write::{Pass, StatusBudget, write};

/// What this pass knows. Times of transition come from `write`, which alone sees the former status.
pub fn derive(snapshot: &Snapshot, plan: &Plan, applied: &Applied, now: Timestamp) -> ModelDeploymentStatus {
    let family = &snapshot.family;
    let stable = serving(snapshot);
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
        desired_replicas: plan::desired(snapshot),
        autoscaling: autoscaling(snapshot),
        replicas: family.replica_sets.iter().map(|s| s.live).sum(),
        ready_replicas: family.replica_sets.iter().map(|s| s.ready).sum(),
        available_replicas: answering(snapshot, stable),
        updated_replicas: plan.target.map_or(0, |target| family.live(target)),
        traffic: traffic(snapshot),
        gateway: family.route.as_ref().map(|route| {
            let (replicas, acknowledged) = snapshot.gateways.count(route.generation);
            GatewayStatus {
                route_generation: route.generation,
                replicas: replicas as i32,
                acknowledged: acknowledged as i32,
            }
        }),
        rollout: family.route.as_ref().and_then(|route| rollout(snapshot, &route.spec, &report)),
        last_verb: report.verb.clone(),
        // An autoscaler's average is over these pods, and a resolve pod has no container `server`.
        selector: Some(format!("{}={},{}=serve", labels::DEPLOYMENT, snapshot.name(), labels::ROLE)),
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

fn autoscaling(snapshot: &Snapshot) -> Option<AutoscalingStatus> {
    let settings = plan::scaling_settings(snapshot)?;
    let decision = snapshot.scaling.as_ref()?;
    let decimal = |value: f64| format!("{:.1}", value).trim_end_matches(".0").to_string();
    let metric = match settings.target {
        Target::Concurrency(_) => ScalingMetric::Concurrency,
        _ => ScalingMetric::RequestsPerSecond,
    };
    Some(AutoscalingStatus {
        desired_replicas: plan::desired(snapshot),
        metric: metric.as_str().into(),
        current: decision.current.map(decimal),
        target: settings.target.of_a_pod(&settings.tuning).map(decimal),
        reason: decision.reason.as_str().into(),
    })
}

fn name(snapshot: &Snapshot, number: u64) -> String {
    format!("{}-r{number}", snapshot.name())
}

/// The revision that answers.
fn serving(snapshot: &Snapshot) -> Option<u64> {
    let family = &snapshot.family;
    let direct = family.service.as_ref().and_then(|service| service.number);
    direct.or_else(|| family.route.as_ref().and_then(|route| plan::serving(&route.spec)))
}

/// What every gateway forwards by: nothing is said while they differ, or refuse everything.
fn traffic(snapshot: &Snapshot) -> Vec<TrafficStatus> {
    let route = snapshot.family.route.as_ref();
    let route = route.filter(|route| {
        route.spec.mode != RouteMode::Refuse
            && snapshot.gateways.ready() > 0
            && snapshot.gateways.acknowledged(route.generation)
    });
    let backends = route.iter().flat_map(|route| &route.spec.backends);
    let share = |backend: &Backend| {
        let number = u64::try_from(backend.revision).ok()?;
        Some(TrafficStatus {
            revision: name(snapshot, number),
            percent: backend.weight,
            ready_replicas: snapshot.family.available(&BTreeSet::from([number])),
        })
    };
    backends.filter_map(share).collect()
}

fn rollout(snapshot: &Snapshot, route: &ModelRouteSpec, report: &Report) -> Option<RolloutStatus> {
    let record = &route.rollout;
    let candidate = u64::try_from(record.candidate?).ok()?;
    let from = record.stable.and_then(|number| u64::try_from(number).ok());
    let to = name(snapshot, candidate);
    let weights = route.backends.iter().filter(|b| Some(b.revision) == record.candidate);
    Some(RolloutStatus {
        id: format!("{to}.{}", record.attempt),
        from: from.map(|number| name(snapshot, number)),
        to,
        replacement: from.map(|_| record.replacement.as_str().into()),
        replacement_reason: record.replacement_reason.clone(),
        current_step_index: record.step,
        step_count: record.steps.len() as i32,
        weight: weights.map(|b| b.weight).sum(),
        start_time: record.started_at.clone(),
        pause_end_time: plan::pause_end(record).or(plan::shadow_end(route)).map(Time),
        analysis: report.analysis.clone(),
    })
}

/// Ready pods of the revisions that share the traffic; one that serves two of them is one.
fn answering(snapshot: &Snapshot, stable: Option<u64>) -> i32 {
    let route = snapshot.family.route.iter().flat_map(|route| &route.spec.backends);
    let shares = route.filter(|b| b.weight > 0).filter_map(|b| u64::try_from(b.revision).ok());
    let numbers: BTreeSet<u64> = shares.chain(stable).collect();
    snapshot.family.available(&numbers)
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
    for pod in pods.filter(|pod| pod.serves(revision.number) && pod.ready && !pod.meta.deleting) {
        let Some(state) = snapshot.revision_state(pod, &revision.meta.name) else { continue };
        status.digest = status.digest.or_else(|| state.digest.clone());
        status.device = status.device.or_else(|| state.device.clone());
        if status.graph_nodes.is_empty() {
            let nodes = state.graph_nodes.iter();
            status.graph_nodes =
                nodes.map(|(k, n)| (k.clone(), i64::try_from(*n).unwrap_or(i64::MAX))).collect();
        }
        let phases = pod.started().into_iter().chain(state.seconds.iter().map(|(k, v)| (k.as_str(), *v)));
        for (phase, seconds) in phases {
            let slowest = status.cold_start_seconds.entry(phase.into()).or_insert(0.0);
            *slowest = slowest.max((seconds * 100.0).round() / 100.0);
        }
    }
    status
}

#[cfg(test)]
mod tests;
