//! Prometheus metrics of the operator. Labels are bounded: never an object's name or an error's text.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::{ConditionType, ModelDeployment, Reason};
use crate::plan::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    verb: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// A model of gigabytes is fetched for minutes; the API server's times are whole seconds.
const START_BUCKETS: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// What a pod's start is made of, in its order.
const PHASES: [&str; 5] = ["schedule", "pull", "fetch", "load", "warmup"];

pub struct Metrics {
    registry: Registry,
    deployments: Family<ReasonLabels, Gauge>,
    starts: Family<PhaseLabels, Histogram>,
    writes: Family<WriteLabels, Counter>,
    reconciles: Family<OutcomeLabels, Counter>,
    pub(super) seconds: Histogram,
    /// 1 while this replica leads.
    pub(super) leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("modelwright"),
            deployments: Family::default(),
            starts: Family::new_with_constructor(|| Histogram::new(START_BUCKETS)),
            writes: Family::default(),
            reconciles: Family::default(),
            seconds: Histogram::new(buckets),
            leader: Gauge::default(),
        };
        let help = "ModelDeployments by the reason of their condition Ready";
        metrics.registry.register("modeldeployments", help, metrics.deployments.clone());
        let help = "Time of a serving pod's start by phase";
        metrics.registry.register("pod_start_seconds", help, metrics.starts.clone());
        let registry = metrics.registry.sub_registry_with_prefix("operator");
        registry.register("writes", "Requests that change the API server's state", metrics.writes.clone());
        registry.register("reconciles", "Passes over a ModelDeployment", metrics.reconciles.clone());
        registry.register("reconcile_duration_seconds", "Time of a pass", metrics.seconds.clone());
        registry.register("leader", "1 while this replica leads", metrics.leader.clone());
        metrics
    }
}

impl Metrics {
    pub fn wrote(&self, kind: Kind, verb: &'static str, ok: bool) {
        let outcome = if ok { "ok" } else { "error" };
        self.writes.get_or_create(&WriteLabels { kind: kind.as_str(), verb, outcome }).inc();
    }

    pub(super) fn reconciled(&self, outcome: &'static str) {
        self.reconciles.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// The phases of a pod's start. What it says beyond those that are known is not counted.
    pub(super) fn started(&self, phases: &[(String, f64)]) {
        for phase in PHASES {
            for (_, seconds) in phases.iter().filter(|(name, _)| name == phase) {
                self.starts.get_or_create(&PhaseLabels { phase }).observe(*seconds);
            }
        }
    }

    /// `all`: the ModelDeployments there are; none where another replica counts them.
    pub(super) fn count<'a>(&self, all: impl IntoIterator<Item = &'a ModelDeployment>) {
        self.deployments.clear();
        for deployment in all {
            self.deployments.get_or_create(&ReasonLabels { reason: ready_reason(deployment) }).inc();
        }
    }

    /// The text that Prometheus scrapes.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Of Ready, as far as this operator knows it. `Unknown`: it has no status yet.
fn ready_reason(deployment: &ModelDeployment) -> &'static str {
    let mut conditions = deployment.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.find(|c| c.type_ == ConditionType::Ready.as_str());
    let known = ready.and_then(|c| Reason::ALL.iter().find(|reason| reason.as_str() == c.reason));
    known.map_or("Unknown", |reason| reason.as_str())
}

#[cfg(test)]
mod tests;
