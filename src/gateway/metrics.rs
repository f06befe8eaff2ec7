//! Prometheus metrics of the gateway. Labels name deployments and revisions that have a route, nothing that a client
//! sends; what leaves a route leaves the metrics.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::refused::Refused;
use crate::formats::OutputReport;

/// How an answer ended. gRPC's codes are counted as the HTTP status that means the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok,
    Client,
    Server,
    /// The client went before the end of the answer.
    Cancelled,
}

impl Code {
    const ALL: [Code; 4] = [Code::Ok, Code::Client, Code::Server, Code::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Code::Ok => "2xx",
            Code::Client => "4xx",
            Code::Server => "5xx",
            Code::Cancelled => "cancelled",
        }
    }

    pub fn of_http(status: u16) -> Self {
        match status {
            0..400 => Code::Ok,
            400..500 => Code::Client,
            _ => Code::Server,
        }
    }

    pub fn of_grpc(status: &[u8]) -> Self {
        match status {
            b"0" => Code::Ok,
            b"1" => Code::Cancelled,
            // INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION,
            // ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED
            b"3" | b"5" | b"6" | b"7" | b"8" | b"9" | b"10" | b"11" | b"12" | b"16" => Code::Client,
            _ => Code::Server,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    deployment: String,
    revision: String,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRevision {
    deployment: String,
    revision: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDeployment {
    deployment: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    deployment: String,
    reason: &'static str,
}

/// What became of a request that was to be mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Compared,
    /// The candidate's answer has another form.
    Mismatched,
    /// The candidate answered with an error, or not in time.
    Failed,
    /// Too many others wait, or take the memory.
    NoRoom,
    TooLarge,
    /// No pod of the candidate took it.
    NoPod,
    /// The stable revision's answer can't be read.
    Unreadable,
}

impl Outcome {
    const ALL: [Outcome; 7] = [
        Outcome::Compared,
        Outcome::Mismatched,
        Outcome::Failed,
        Outcome::NoRoom,
        Outcome::TooLarge,
        Outcome::NoPod,
        Outcome::Unreadable,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Outcome::Compared => "compared",
            Outcome::Mismatched => "mismatched",
            Outcome::Failed => "failed",
            Outcome::NoRoom => "no_room",
            Outcome::TooLarge => "too_large",
            Outcome::NoPod => "no_pod",
            Outcome::Unreadable => "unreadable",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    deployment: String,
    revision: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByMeasure {
    deployment: String,
    revision: String,
    output: String,
    measure: &'static str,
}

#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
    }
}

#[derive(Clone)]
struct Families {
    requests: Family<Answered, Counter>,
    seconds: Family<ByRevision, Histogram, Seconds>,
    in_flight: Family<ByRevision, Gauge>,
    held: Family<ByDeployment, Gauge>,
    present: Family<ByDeployment, Gauge>,
    retries: Family<ByDeployment, Counter>,
    refused: Family<ByReason, Counter>,
    shadow_requests: Family<ByOutcome, Counter>,
    shadow_difference: Family<ByMeasure, Gauge<f64, AtomicU64>>,
}

pub struct Metrics {
    registry: Registry,
    families: Families,
    routes: Gauge,
}

/// Of one backend. Made at its first request: most of a thousand deployments have no traffic.
pub struct ArmMetrics {
    families: Families,
    labels: ByRevision,
    used: OnceLock<Used>,
}

struct Used {
    requests: [Counter; Code::ALL.len()],
    seconds: Histogram,
    in_flight: Gauge,
}

impl std::fmt::Debug for ArmMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ArmMetrics").field(&self.labels.revision).finish()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let families = Families {
            requests: Family::default(),
            seconds: Family::new_with_constructor(Seconds),
            in_flight: Family::default(),
            held: Family::default(),
            present: Family::default(),
            retries: Family::default(),
            refused: Family::default(),
            shadow_requests: Family::default(),
            shadow_difference: Family::default(),
        };
        let routes = Gauge::default();
        let mut registry = Registry::with_prefix("modelwright_gateway");
        registry.register("routes", "ModelRoutes that requests go by", routes.clone());
        registry.register("requests", "Answers of pods", families.requests.clone());
        let help = "From the arrival of a request to the end of its answer";
        registry.register("request_duration_seconds", help, families.seconds.clone());
        registry.register("upstream_in_flight", "Requests that pods work on", families.in_flight.clone());
        registry.register("held_requests", "Requests that wait for a pod", families.held.clone());
        let help = "Requests that wait for a pod, or that pods work on";
        registry.register("requests_in_flight", help, families.present.clone());
        registry.register("retries", "Requests that were sent again", families.retries.clone());
        registry.register(
            "refused",
            "Requests that the gateway itself answered with an error",
            families.refused.clone(),
        );
        let help = "Requests that were to be mirrored to a candidate";
        registry.register("shadow_requests", help, families.shadow_requests.clone());
        let help = "The worst difference between the answers of a candidate and of the stable revision";
        registry.register("shadow_difference", help, families.shadow_difference.clone());
        Self { registry, families, routes }
    }
}

impl Metrics {
    pub fn arm(&self, deployment: &str, revision: i64) -> Arc<ArmMetrics> {
        let labels = ByRevision { deployment: deployment.into(), revision: format!("r{revision}") };
        Arc::new(ArmMetrics { families: self.families.clone(), labels, used: OnceLock::new() })
    }

    pub fn shadow(&self, deployment: &str, revision: i64) -> ShadowMetrics {
        let labels = ByRevision { deployment: deployment.into(), revision: format!("r{revision}") };
        ShadowMetrics { families: self.families.clone(), labels, outputs: Mutex::default() }
    }

    pub fn routes(&self, count: usize) {
        self.routes.set(count as i64);
    }

    /// `present`: those that run, too.
    pub fn held(&self, deployment: &str, held: usize, present: u64) {
        let labels = ByDeployment { deployment: deployment.into() };
        self.families.held.get_or_create(&labels).set(held as i64);
        self.families.present.get_or_create(&labels).set(present as i64);
    }

    pub fn retried(&self, deployment: &str) {
        self.families.retries.get_or_create(&ByDeployment { deployment: deployment.into() }).inc();
    }

    /// `deployment`: empty where it is not known.
    pub fn refused(&self, deployment: &str, reason: Refused) {
        let labels = ByReason { deployment: deployment.into(), reason: reason.as_str() };
        self.families.refused.get_or_create(&labels).inc();
    }

    /// The deployment has no route any more.
    pub fn forget(&self, deployment: &str) {
        let labels = ByDeployment { deployment: deployment.into() };
        self.families.held.remove(&labels);
        self.families.present.remove(&labels);
        self.families.retries.remove(&labels);
        for reason in Refused::ALL {
            let labels = ByReason { deployment: deployment.into(), reason: reason.as_str() };
            self.families.refused.remove(&labels);
        }
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Of one comparison.
pub struct ShadowMetrics {
    families: Families,
    labels: ByRevision,
    outputs: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for ShadowMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ShadowMetrics").field(&self.labels.revision).finish()
    }
}

impl ShadowMetrics {
    pub fn count(&self, outcome: Outcome) {
        self.families.shadow_requests.get_or_create(&self.outcome(outcome)).inc();
    }

    pub fn output(&self, name: &str, found: &OutputReport) {
        for (labels, value) in self.measures(name, found) {
            self.families.shadow_difference.get_or_create(&labels).set(value);
        }
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        if !outputs.contains(name) {
            outputs.insert(name.into());
        }
    }

    /// The comparison is over.
    pub fn forget(&self) {
        for outcome in Outcome::ALL {
            self.families.shadow_requests.remove(&self.outcome(outcome));
        }
        for name in self.outputs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (labels, _) in self.measures(name, &OutputReport::default()) {
                self.families.shadow_difference.remove(&labels);
            }
        }
    }

    fn outcome(&self, outcome: Outcome) -> ByOutcome {
        let ByRevision { deployment, revision } = self.labels.clone();
        ByOutcome { deployment, revision, outcome: outcome.as_str() }
    }

    fn measures(&self, output: &str, found: &OutputReport) -> [(ByMeasure, f64); 5] {
        let agreement = if found.rows == 0 { 1.0 } else { found.agreeing as f64 / found.rows as f64 };
        let measures = [
            ("max_absolute", found.max_absolute),
            ("max_relative", found.max_relative),
            ("min_cosine", found.min_cosine),
            ("top1_agreement", agreement),
            ("nan", found.nan as f64),
        ];
        measures.map(|(measure, value)| {
            let ByRevision { deployment, revision } = self.labels.clone();
            (ByMeasure { deployment, revision, output: output.into(), measure }, value)
        })
    }
}

impl ArmMetrics {
    fn used(&self) -> &Used {
        self.used.get_or_init(|| {
            let ByRevision { deployment, revision } = &self.labels;
            let requests = Code::ALL.map(|code| {
                let labels = Answered {
                    deployment: deployment.clone(),
                    revision: revision.clone(),
                    code: code.as_str(),
                };
                self.families.requests.get_or_create(&labels).clone()
            });
            Used {
                requests,
                seconds: self.families.seconds.get_or_create(&self.labels).clone(),
                in_flight: self.families.in_flight.get_or_create(&self.labels).clone(),
            }
        })
    }

    pub fn began(&self) {
        self.used().in_flight.inc();
    }

    pub fn ended(&self) {
        self.used().in_flight.dec();
    }

    pub fn answered(&self, code: Code, after: Duration) {
        let used = self.used();
        if let Some(counter) = used.requests.get(code as usize) {
            counter.inc();
        }
        used.seconds.observe(after.as_secs_f64());
    }

    /// The revision has no part in the route any more.
    pub fn forget(&self) {
        if self.used.get().is_none() {
            return;
        }
        for code in Code::ALL {
            let ByRevision { deployment, revision } = self.labels.clone();
            self.families.requests.remove(&Answered { deployment, revision, code: code.as_str() });
        }
        self.families.seconds.remove(&self.labels);
        self.families.in_flight.remove(&self.labels);
    }
}

#[cfg(test)]
mod tests;
