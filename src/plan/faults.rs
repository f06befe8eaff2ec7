//! Reads what went wrong from pods, ReplicaSets and refusals, and names it so that a person knows what to do.

use super::report::Finding;
use crate::api::Reason;
use crate::formats::RevisionPhase;
use crate::observe::{ContainerView, PodView, Snapshot, Terminated};

/// A reason that came by name from another process.
pub(super) struct Trouble(Finding);

impl Trouble {
    /// A name that this operator does not know comes from a newer image: its message still reaches the user.
    pub fn named(reason: &str, message: String) -> Self {
        Self(match Reason::parse(reason) {
            Some(known) => Finding::new(known, message),
            None => Finding::new(Reason::CrashLooping, format!("{reason}: {message}")),
        })
    }

    pub fn into_finding(self) -> Finding {
        self.0
    }
}

/// Why a pod is not ready, when something is wrong with it. `revision` is what it should serve.
pub(super) fn of_pod(snapshot: &Snapshot, pod: &PodView, revision: Option<&str>) -> Option<Finding> {
    let name = &pod.meta.name;
    let found = |reason, message: String| Some(Finding::new(reason, format!("pod {name}: {message}")));
    if let Some(message) = &pod.unschedulable {
        return found(Reason::Unschedulable, unschedulable(snapshot, pod, message));
    }
    if let Some(message) = &pod.failure {
        return found(Reason::PodRejected, message.clone());
    }
    for container in &pod.containers {
        let Some((reason, message)) = &container.waiting else { continue };
        match reason.as_str() {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                return found(Reason::ImagePullFailed, format!("container {}: {message}", container.name));
            }
            "CreateContainerConfigError" | "CreateContainerError" => {
                return found(Reason::PodRejected, format!("container {}: {message}", container.name));
            }
            _ => {}
        }
    }
    let killed = pod
        .containers
        .iter()
        .find_map(|c| c.terminated.as_ref().filter(|t| t.reason == "OOMKilled").map(|_| c));
    if let Some(container) = killed {
        return found(Reason::OutOfMemory, out_of_memory(snapshot, container));
    }
    if let Some(state) = revision.and_then(|revision| snapshot.revision_state(pod, revision)) {
        let failed = state.phase == RevisionPhase::Failed || state.reason.is_some();
        if let Some(reason) = state.reason.as_deref().filter(|_| failed) {
            let message = state.message.clone().unwrap_or_default();
            let mut finding = Trouble::named(reason, message).into_finding();
            finding.message = format!("pod {name}: {}", finding.message);
            return Some(finding);
        }
    }
    let looping = pod.containers.iter().find(|c| {
        c.waiting
            .as_ref()
            .is_some_and(|(reason, _)| reason == "CrashLoopBackOff" || reason == "RunContainerError")
    })?;
    found(Reason::CrashLooping, crash(looping))
}

/// What the API server said when it refused a pod: quota, pod security, a missing ServiceAccount.
pub fn of_refusal(message: &str) -> Finding {
    let lower = message.to_lowercase();
    let reason = if lower.contains("exceeded quota") || lower.contains("failed quota") {
        Reason::QuotaExceeded
    } else if lower.contains("serviceaccount") && lower.contains("not found") {
        Reason::ServiceAccountNotFound
    } else {
        Reason::PodRejected
    };
    Finding::new(reason, message)
}

fn unschedulable(snapshot: &Snapshot, pod: &PodView, message: &str) -> String {
    // What follows is about preemption, which a user who asked for none can do nothing with.
    let cut =
        ["no new claims to deallocate", "preemption:"].iter().filter_map(|noise| message.find(noise)).min();
    let mut text = message[..cut.unwrap_or(message.len())].trim_end_matches(['.', ',', ' ']).to_string();
    for (resource, count) in &pod.devices {
        text.push_str(&format!("; it wants {count} {resource}"));
        let Some(holders) = snapshot.gpu_holders.get(resource).filter(|h| !h.is_empty()) else { continue };
        let named: Vec<String> =
            holders.iter().take(5).map(|(holder, count)| format!("{holder} ({count})")).collect();
        let more = if holders.len() > 5 { ", …" } else { "" };
        text.push_str(&format!("; held by model deployments {}{more}", named.join(", ")));
    }
    text
}

fn out_of_memory(snapshot: &Snapshot, container: &ContainerView) -> String {
    let limits = snapshot.deployment.spec.resources.as_ref().map(|r| &r.limits);
    let limit = limits.and_then(|l| l.get("memory")).map(|q| q.0.as_str());
    let limit = limit.unwrap_or(super::children::DEFAULT_MEMORY);
    match container.name.as_str() {
        super::children::SERVER => {
            format!(
                "container server was killed at its memory limit of {limit}; raise resources.limits.memory"
            )
        }
        other => format!("container {other} was killed at its memory limit"),
    }
}

fn crash(container: &ContainerView) -> String {
    let Terminated { reason, exit_code, message } = match &container.terminated {
        Some(ended) => ended.clone(),
        None => {
            let (reason, message) = container.waiting.clone().unwrap_or_default();
            return format!("container {} does not start: {reason}: {message}", container.name);
        }
    };
    let message = last_line(&message);
    let colon = if message.is_empty() { "" } else { ": " };
    let times = match container.restarts {
        1 => "once".to_string(),
        count => format!("{count} times"),
    };
    format!(
        "container {} ended with code {exit_code} ({reason}) and was restarted {times}{colon}{message}; see kubectl logs --previous",
        container.name
    )
}

/// Of a message that is the end of a log; a panic's hint about backtraces is no last word.
fn last_line(message: &str) -> String {
    let mut lines =
        message.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("note: "));
    lines.next_back().unwrap_or_default().chars().take(400).collect()
}
