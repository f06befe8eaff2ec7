use crate::api::{AnalysisStatus, Reason};
use crate::observe::RevisionView;

/// A reason and a sentence: conditions, events and logs print this one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub reason: Reason,
    pub message: String,
    /// The revision that it is about.
    pub revision: Option<String>,
}

impl Finding {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), revision: None }
    }

    pub fn of(mut self, revision: &str) -> Self {
        self.revision = Some(revision.into());
        self
    }
}

/// Why the plan is as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The source: pinned, being resolved, or what is wrong with it.
    pub resolution: Option<Finding>,
    /// What the rollout does or waits for.
    pub progress: Option<Finding>,
    /// What needs a human, the worst first.
    pub fault: Option<Finding>,
    /// The rollout is over: the target has the address, and no other revision has pods that serve.
    pub complete: bool,
    pub deadline_exceeded: bool,
    /// Why the rollout does not go on until somebody says something.
    pub halted: Option<Finding>,
    /// The verb that was obeyed last, or is not.
    pub verb: Option<String>,
    /// What the candidate's analysis has found, or what it was given up with.
    pub analysis: Option<AnalysisStatus>,
}

impl Report {
    /// The source is pinned. A fault that a re-resolve found stays.
    pub(super) fn resolved(&mut self, target: &RevisionView) {
        if self.resolution.is_some() {
            return;
        }
        let Some(data) = &target.data else { return };
        let graph = &data.resolved.graph;
        let plural =
            |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let opset = graph.opsets.get("ai.onnx").map(|v| format!(", opset {v}")).unwrap_or_default();
        let what = format!(
            "{}, {}{opset}",
            plural(graph.inputs.len(), "input"),
            plural(graph.outputs.len(), "output")
        );
        self.resolution = Some(if data.resolved.source.immutable {
            Finding::new(Reason::Pinned, what)
        } else {
            Finding::new(
                Reason::MutableSource,
                format!("{what}; the store gives nothing immutable to hold on to: pinned by sha256"),
            )
        });
    }

    /// The API server refused the resolve pod, which the plan could not know.
    pub fn refused(&mut self, fault: Finding) {
        if let Some(progress) = self.progress.as_mut().filter(|p| p.reason == Reason::Resolving) {
            progress.message = fault.message.clone();
        }
        self.resolution = Some(fault);
    }

    /// The target gets no pod.
    pub(super) fn incompatible(&mut self, fault: Finding) {
        self.resolution = Some(fault.clone());
        self.halted = Some(fault.clone());
        self.fault = Some(fault);
    }

    /// The first fault found is the nearest to the cause.
    pub(super) fn blame(&mut self, fault: Finding) {
        self.fault.get_or_insert(fault);
    }
}
