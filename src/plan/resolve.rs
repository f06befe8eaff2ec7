//! The resolve Job: pins the source and reads the graph on a CPU, before any pod takes a GPU.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::faults::{self, Trouble};
use super::report::Finding;
use super::write::{Kind, Write};
use super::{Plan, children};
use crate::api::Reason;
use crate::formats::{ResolveReport, Resolved};
use crate::observe::{PodPhase, PodView, Snapshot};

/// The name of the container whose termination message is the report.
pub(super) const CONTAINER: &str = "resolve";

/// Runs the Job for the wanted source. Some: it has reported.
pub(super) fn resolve(snapshot: &Snapshot, now: Timestamp, plan: &mut Plan) -> Option<Resolved> {
    let name = children::resolve_job_name(snapshot);
    let Some(job) = snapshot.family.jobs.iter().find(|job| job.meta.name == name) else {
        plan.writes.push(Write::Create {
            kind: Kind::Job,
            body: children::resolve_job(snapshot, &name),
            name,
        });
        waiting(plan, "the resolve Job is being created".into());
        return None;
    };
    let pods = snapshot.family.pods.iter();
    let mut pods: Vec<&Arc<PodView>> =
        pods.filter(|pod| pod.meta.owner_uid.as_ref() == Some(&job.meta.uid)).collect();
    pods.sort_by_key(|pod| pod.meta.created);
    match pods.last() {
        Some(pod) if pod.phase == PodPhase::Succeeded => match report(pod) {
            Ok(ResolveReport::Resolved(resolved)) => match resolved.graph.unknown_domains.first_key_value() {
                None => return Some(*resolved),
                // ONNX Runtime would say the same, after a GPU was taken and the weights were fetched.
                Some((domain, operator)) => {
                    let message =
                        format!("operator {operator} of domain {domain} is not known to ONNX Runtime");
                    fail(plan, Finding::new(Reason::ModelInvalid, message));
                }
            },
            Ok(ResolveReport::Failed { reason, message }) => failed(plan, &reason, message),
            Err(message) => {
                // A Job that ended without a report that we can read says nothing: run it again.
                waiting(plan, message);
                rerun(job, plan);
            }
        },
        Some(pod) => {
            if let Some((reason, message)) = last_failure(pod) {
                failed(plan, &reason, message);
            } else if let Some(fault) = faults::of_pod(snapshot, pod, None) {
                fail(plan, fault);
            } else {
                waiting(plan, format!("pod {} reads {}", pod.meta.name, snapshot.deployment.spec.model.uri));
            }
        }
        // Its pod was evicted or collected before it could be read.
        None if job.finished => {
            waiting(plan, "the resolve Job lost its pod and runs again".into());
            rerun(job, plan);
        }
        None => match &snapshot.job_failure {
            Some(message) => fail(plan, faults::of_refusal(message)),
            None => {
                waiting(plan, format!("Job {name} is creating its pod"));
                // The Job controller reports a refused pod by an event alone: look for it.
                if job.podless_since.is_some() {
                    plan.wake(now + SignedDuration::from_secs(3));
                }
            }
        },
    }
    None
}

/// Jobs of sources that nobody waits for any more. Finished ones have a TTL.
pub(super) fn retire_jobs(snapshot: &Snapshot, plan: &mut Plan) {
    let waits = matches!(plan.report.resolution, Some(ref f) if f.reason != Reason::Pinned);
    let wanted = children::resolve_job_name(snapshot);
    for job in &snapshot.family.jobs {
        let needed = waits && job.meta.name == wanted;
        let planned = plan.writes.iter().any(|w| w.name() == job.meta.name);
        if !needed
            && !planned
            && !job.finished
            && !job.meta.deleting
            && !has_succeeded(snapshot, &job.meta.uid)
        {
            plan.writes.push(Write::delete(Kind::Job, &job.meta));
        }
    }
}

fn has_succeeded(snapshot: &Snapshot, job: &str) -> bool {
    let mut pods = snapshot.family.pods.iter();
    pods.any(|p| p.meta.owner_uid.as_deref() == Some(job) && p.phase == PodPhase::Succeeded)
}

fn report(pod: &PodView) -> Result<ResolveReport, String> {
    let ended = pod.container(CONTAINER).and_then(|c| c.terminated.as_ref());
    let message = ended.map(|t| t.message.as_str()).unwrap_or_default();
    ResolveReport::decode(message).map_err(|e| format!("the resolve Job runs again: {e}"))
}

fn last_failure(pod: &PodView) -> Option<(String, String)> {
    let ended = pod.container(CONTAINER)?.terminated.as_ref()?;
    if ended.exit_code == 0 {
        return None;
    }
    match ResolveReport::decode(&ended.message) {
        Ok(ResolveReport::Failed { reason, message }) => Some((reason, message)),
        _ => None,
    }
}

fn rerun(job: &crate::observe::JobView, plan: &mut Plan) {
    if !job.meta.deleting {
        plan.writes.push(Write::delete(Kind::Job, &job.meta));
    }
}

fn waiting(plan: &mut Plan, message: String) {
    plan.report.resolution = Some(Finding::new(Reason::Resolving, message));
}

fn failed(plan: &mut Plan, reason: &str, message: String) {
    fail(plan, Trouble::named(reason, message).into_finding());
}

fn fail(plan: &mut Plan, fault: Finding) {
    plan.report.resolution = Some(fault.clone());
    plan.report.blame(fault);
}
