//! The resolve pod: pins the source and reads the graph on a CPU, before any pod takes a GPU.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Plan;
use super::faults::{self, Trouble};
use super::report::Finding;
use super::write::{Kind, Write};
use crate::api::Reason;
use crate::formats::{ResolveReport, Resolved};
use crate::observe::{PodPhase, PodView, Snapshot};

/// The name of the container whose termination message is the report.
pub(super) const CONTAINER: &str = "resolve";
/// Between one pod and the next of the same question, when the first came to nothing: what evicted it may go on.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// A pod that should have ended so long ago is on a node that is gone.
const OVERDUE: SignedDuration = SignedDuration::from_secs(10);

/// Runs the pod `name` for the wanted source. Some: it has reported.
pub(super) fn resolve(
    snapshot: &Snapshot,
    name: String,
    body: Value,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<Resolved> {
    let Some(pod) = snapshot.resolvers().find(|pod| pod.meta.name == name) else {
        plan.writes.push(Write::Create { kind: Kind::Pod, name, body });
        waiting(plan, "the resolve pod is being created".into());
        return None;
    };
    if let Some(end) = pod.ends_by {
        waiting(plan, format!("pod {name} is being deleted, and is made again"));
        remove(pod, end + OVERDUE, now, plan);
        return None;
    }
    match pod.phase {
        // Failed: evicted, or refused by its node. No exit of the container ends it so, and what it said before counts.
        PodPhase::Succeeded | PodPhase::Failed => {
            match report(pod) {
                Ok(ResolveReport::Resolved(resolved)) => return accept(*resolved, plan),
                Ok(ResolveReport::Failed { reason, message }) => failed(plan, &reason, message),
                Err(message) => match faults::of_pod(snapshot, pod, None) {
                    Some(fault) => fail(plan, fault),
                    None => waiting(plan, format!("pod {name} is made again: {message}")),
                },
            }
            remove(pod, pod.meta.created + AGAIN, now, plan);
        }
        PodPhase::Pending | PodPhase::Running => {
            if let Some((reason, message)) = last_failure(pod) {
                failed(plan, &reason, message);
            } else if let Some(fault) = faults::of_pod(snapshot, pod, None) {
                fail(plan, fault);
            } else {
                waiting(plan, format!("pod {name} reads {}", snapshot.deployment.spec.model.uri));
            }
        }
    }
    None
}

fn accept(resolved: Resolved, plan: &mut Plan) -> Option<Resolved> {
    let Some((domain, operator)) = resolved.graph.unknown_domains.first_key_value() else {
        return Some(resolved);
    };
    // ONNX Runtime would say the same, after a GPU was taken and the weights were fetched.
    let message = format!("operator {operator} of domain {domain} is not known to ONNX Runtime");
    fail(plan, Finding::new(Reason::ModelInvalid, message));
    None
}

/// Pods of sources that nobody waits for any more. One that has reported is not waited for once its report was seen
/// in a record: until then it is `wanted`.
pub(super) fn retire(snapshot: &Snapshot, wanted: Option<&str>, plan: &mut Plan) {
    for pod in snapshot.resolvers() {
        if !pod.meta.deleting && wanted != Some(&pod.meta.name) {
            plan.writes.push(Write::delete(Kind::Pod, &pod.meta));
        }
    }
}

/// Makes room for another of the same name, at that time.
fn remove(pod: &PodView, at: Timestamp, now: Timestamp, plan: &mut Plan) {
    if now < at {
        plan.wake(at);
    } else {
        plan.writes.push(Write::delete(Kind::Pod, &pod.meta));
    }
}

fn report(pod: &PodView) -> Result<ResolveReport, String> {
    let ended = pod.container(CONTAINER).and_then(|c| c.terminated.as_ref());
    let message = ended.map(|t| t.message.as_str()).unwrap_or_default();
    ResolveReport::decode(message).map_err(|e| e.to_string())
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
