use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{ConditionType, ModelDeploymentStatus, Reason, StatusCondition};
use crate::observe::Snapshot;
use crate::plan::Report;

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
        (ConditionType::Ready, ready(report, status)),
        (ConditionType::Available, available(status)),
        (ConditionType::Progressing, progressing(report)),
        (ConditionType::Degraded, degraded(snapshot, report)),
        (ConditionType::ModelResolved, resolved(report)),
    ];
    let runtime = runtime(snapshot, target).map(|verdict| (ConditionType::RuntimeCurrent, verdict));
    verdicts
        .into_iter()
        .chain(runtime)
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

fn ready(report: &Report, status: &ModelDeploymentStatus) -> Verdict {
    let serving = status.available_replicas > 0;
    let replaced = status.updated_revision.is_none() || status.updated_revision != status.stable_revision;
    let rest = match &status.stable_revision {
        Some(stable) if serving && replaced => format!("; {stable} serves on"),
        _ => String::new(),
    };
    if report.complete {
        return match (status.desired_replicas, &report.fault) {
            (0, _) => Verdict("False", Reason::NoReplicas, "replicas is 0".into()),
            // Served, and yet a person is needed: the verb `resolve-at` failed, for example.
            (_, Some(fault)) if report.fault == report.resolution => {
                Verdict("False", fault.reason, format!("{}{rest}", fault.message))
            }
            (desired, _) => Verdict(
                "True",
                Reason::Serving,
                format!("{} serves with {desired} of {desired} replicas", revision(status)),
            ),
        };
    }
    if let Some(fault) = &report.fault {
        return Verdict("False", fault.reason, format!("{}{rest}", fault.message));
    }
    let progress = report.progress.as_ref().map(|p| p.message.clone()).unwrap_or_default();
    if report.deadline_exceeded {
        return Verdict("False", Reason::ProgressDeadlineExceeded, format!("{progress}{rest}"));
    }
    let reason = if serving && replaced { Reason::RolloutInProgress } else { Reason::Starting };
    Verdict("Unknown", reason, format!("{progress}{rest}"))
}

fn revision(status: &ModelDeploymentStatus) -> &str {
    status.stable_revision.as_deref().unwrap_or_default()
}

fn available(status: &ModelDeploymentStatus) -> Verdict {
    let (ready, desired) = (status.available_replicas, status.desired_replicas);
    let message = format!("{ready} of {desired} replicas available");
    if ready > 0 {
        Verdict("True", Reason::MinimumReplicasAvailable, message)
    } else {
        Verdict("False", Reason::NoReplicas, message)
    }
}

fn progressing(report: &Report) -> Verdict {
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
    let stable = snapshot.family.service.as_ref().and_then(|s| s.number).or(target)?;
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
