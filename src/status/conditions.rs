use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{ConditionType, ModelDeploymentStatus, Reason, StatusCondition};
use crate::observe::Snapshot;
use crate::plan::Report;
use crate::plan::scale::{Active, Limit};

/// Condition messages are for people: a scheduler's or a runtime's essay is cut.
const MESSAGE_LIMIT: usize = 1024;

struct Verdict(&'static str, Reason, String);

pub(super) fn conditions(
    snapshot: &Snapshot,
    report: &Report,
    target: Option<u64>,
    status: &ModelDeploymentStatus,
    now: Timestamp,
) -> Vec<StatusCondition> {
    let verdicts = [
        (ConditionType::Ready, ready(snapshot, report, status)),
        (ConditionType::Available, available(snapshot, report, status)),
        (ConditionType::Progressing, progressing(report)),
        (ConditionType::Degraded, degraded(snapshot, report)),
        (ConditionType::ModelResolved, resolved(report)),
    ];
    let runtime = runtime(snapshot, target).map(|verdict| (ConditionType::RuntimeCurrent, verdict));
    let limited = limited(snapshot).map(|verdict| (ConditionType::ScalingLimited, verdict));
    verdicts
        .into_iter()
        .chain(runtime)
        .chain([(ConditionType::ScalingActive, scaling(snapshot))])
        .chain(limited)
        .map(|(kind, Verdict(value, reason, message))| StatusCondition {
            type_: kind.as_str().into(),
            status: value.into(),
            reason: reason.as_str().into(),
            message: cut(message),
            last_transition_time: Time(now),
            observed_generation: snapshot.deployment.metadata.generation,
        })
        .collect()
}

fn ready(snapshot: &Snapshot, report: &Report, status: &ModelDeploymentStatus) -> Verdict {
    let reached = available(snapshot, report, status);
    if reached.1 == Reason::Suspended {
        return reached;
    }
    let serving = status.available_replicas > 0;
    let replaced = status.updated_revision.is_none() || status.updated_revision != status.stable_revision;
    let shared = status.rollout.as_ref().is_some_and(|rollout| rollout.weight > 0);
    let rest = match &status.stable_revision {
        Some(stable) if serving && replaced && shared => format!("; {stable} answers the rest"),
        Some(stable) if serving && replaced => format!("; {stable} serves on"),
        _ => String::new(),
    };
    if report.complete {
        return match (status.desired_replicas, &report.fault) {
            (0, _) if reached.1 == Reason::ScaledToZero => reached,
            (0, _) => Verdict("False", Reason::NoReplicas, "replicas is 0".into()),
            // Served, and yet a person is needed: the verb `resolve-at` failed, for example.
            (_, Some(fault)) if report.fault == report.resolution => {
                Verdict("False", fault.reason, format!("{}{rest}", fault.message))
            }
            _ if reached.1 == Reason::GatewayUnavailable => reached,
            (desired, _) => Verdict(
                "True",
                Reason::Serving,
                format!(
                    "{} serves with {} of {desired} replicas",
                    revision(status),
                    status.available_replicas.min(desired)
                ),
            ),
        };
    }
    if let Some(fault) = report.halted.as_ref().or(report.fault.as_ref()) {
        return Verdict("False", fault.reason, format!("{}{rest}", fault.message));
    }
    let progress = report.progress.as_ref().map(|p| p.message.clone()).unwrap_or_default();
    if report.deadline_exceeded {
        return Verdict("False", Reason::ProgressDeadlineExceeded, format!("{progress}{rest}"));
    }
    let moving = report.progress.as_ref().is_some_and(|p| p.reason == Reason::Promoting);
    let reason = if serving && (replaced || moving) { Reason::RolloutInProgress } else { Reason::Starting };
    Verdict("Unknown", reason, format!("{progress}{rest}"))
}

fn revision(status: &ModelDeploymentStatus) -> &str {
    status.stable_revision.as_deref().unwrap_or_default()
}

fn available(snapshot: &Snapshot, report: &Report, status: &ModelDeploymentStatus) -> Verdict {
    if snapshot.deployment.spec.suspend == Some(true) {
        let message = "suspend is true: requests are answered 503".into();
        return Verdict("False", Reason::Suspended, message);
    }
    let direct = snapshot.family.service.as_ref().is_some_and(|service| service.number.is_some());
    if !direct && snapshot.gateways.ready() == 0 {
        let fault = snapshot.gateways.fault.as_ref().map(|fault| format!(": {fault}"));
        let message = format!("no gateway is ready{}", fault.unwrap_or_default());
        return Verdict("False", Reason::GatewayUnavailable, message);
    }
    let (ready, desired) = (status.available_replicas, status.desired_replicas);
    let message = format!("{} of {desired} replicas available", ready.min(desired));
    let wakes = snapshot.deployment.spec.autoscaling.is_some() && report.fault.is_none();
    let held: u64 = snapshot.gateways.pods.iter().map(|gateway| gateway.held).sum();
    if wakes && desired == 0 {
        let message = "no replica: the next request starts one".into();
        Verdict("True", Reason::ScaledToZero, message)
    } else if wakes && ready == 0 && held > 0 {
        Verdict("True", Reason::Activating, "requests wait for the first replica".into())
    } else if ready > 0 {
        Verdict("True", Reason::MinimumReplicasAvailable, message)
    } else {
        Verdict("False", Reason::NoReplicas, message)
    }
}

fn progressing(report: &Report) -> Verdict {
    if let Some(halted) = &report.halted {
        return Verdict("False", halted.reason, halted.message.clone());
    }
    let Some(progress) = &report.progress else {
        let message = report.fault.as_ref().map(|f| f.message.clone()).unwrap_or_default();
        return Verdict("Unknown", Reason::Resolving, message);
    };
    if report.deadline_exceeded {
        return Verdict("False", Reason::ProgressDeadlineExceeded, progress.message.clone());
    }
    Verdict("True", progress.reason, progress.message.clone())
}

fn degraded(snapshot: &Snapshot, report: &Report) -> Verdict {
    match &report.fault {
        Some(fault) => Verdict("True", fault.reason, fault.message.clone()),
        None if snapshot.settings.crd_outdated => Verdict(
            "True",
            Reason::CRDOutdated,
            "the CustomResourceDefinition is older than the operator: upgrade the chart's CRDs".into(),
        ),
        None => Verdict("False", Reason::AsExpected, String::new()),
    }
}

fn resolved(report: &Report) -> Verdict {
    match &report.resolution {
        Some(f) if matches!(f.reason, Reason::Pinned | Reason::MutableSource) => {
            Verdict("True", f.reason, f.message.clone())
        }
        Some(f) if f.reason == Reason::Resolving => Verdict("Unknown", f.reason, f.message.clone()),
        Some(f) => Verdict("False", f.reason, f.message.clone()),
        None => Verdict("Unknown", Reason::Resolving, String::new()),
    }
}

/// Of the revision that serves, since that is what an upgrade of the operator leaves behind.
fn runtime(snapshot: &Snapshot, target: Option<u64>) -> Option<Verdict> {
    let stable = super::serving(snapshot).or(target)?;
    let revisions = &snapshot.family.revisions;
    let data = revisions.iter().find(|r| r.number == stable)?.data.as_ref()?;
    let (running, shipped) = (&data.runtime_version, &snapshot.settings.runtime_version);
    let pinned = data.spec.runtime.as_ref().is_some_and(|r| r.version.is_some());
    Some(if running == shipped {
        Verdict("True", Reason::Current, format!("running {running}"))
    } else if pinned {
        Verdict("True", Reason::PinnedByUser, format!("running {running} as runtime.version asks"))
    } else {
        Verdict(
            "False",
            Reason::NewerRuntimeAvailable,
            format!(
                "running {running}, the operator ships {shipped}; set runtime.version: {shipped} to roll"
            ),
        )
    })
}

fn scaling(snapshot: &Snapshot) -> Verdict {
    let spec = &snapshot.deployment.spec;
    if spec.autoscaling.is_some() {
        return match &snapshot.scaling {
            Some(decision) if decision.active == Active::DemandReported => {
                Verdict("True", Reason::DemandReported, decision.message.clone())
            }
            Some(decision) => Verdict("False", Reason::NoDemandData, decision.message.clone()),
            None => Verdict("Unknown", Reason::NoDemandData, "demand was not heard of yet".into()),
        };
    }
    match (spec.replicas, scaled_by(snapshot)) {
        (Some(_), Some(manager)) => Verdict(
            "False",
            Reason::ExternallyScaled,
            format!("{manager} writes spec.replicas through the scale subresource"),
        ),
        (Some(_), None) => Verdict("False", Reason::Disabled, "spec.replicas is the number".into()),
        (None, _) => Verdict(
            "False",
            Reason::Disabled,
            format!(
                "neither spec.autoscaling nor spec.replicas is set: 1 replica. A HorizontalPodAutoscaler or KEDA can \
                 scale once spec.replicas is set: kubectl scale mdep {} --replicas=1",
                snapshot.name()
            ),
        ),
    }
}

/// Who wrote `spec.replicas` last, if it was through `/scale`, by who owns it. For a custom resource the API server
/// takes it from all others then, and notes nobody instead (seen on 1.35.4).
fn scaled_by(snapshot: &Snapshot) -> Option<&str> {
    let owners = snapshot.deployment.metadata.managed_fields.as_ref()?;
    match owners.iter().rev().find(|entry| entry.subresource.as_deref() == Some("scale")) {
        Some(entry) => entry.manager.as_deref(),
        None => owners.is_empty().then_some("kubectl scale, a HorizontalPodAutoscaler or KEDA"),
    }
}

fn limited(snapshot: &Snapshot) -> Option<Verdict> {
    let decision = snapshot.scaling.as_ref()?;
    let told = |reason| Verdict("True", reason, decision.message.clone());
    Some(match decision.limited {
        Limit::WithinRange => Verdict("False", Reason::DesiredWithinRange, String::new()),
        Limit::TooManyReplicas => told(Reason::TooManyReplicas),
        Limit::TooFewReplicas => told(Reason::TooFewReplicas),
        Limit::NoGpuAvailable => told(Reason::NoGPUAvailable),
    })
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_LIMIT {
        let mut end = MESSAGE_LIMIT;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}
