//! A candidate's analysis: what its metrics say, and what has to wait for that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::analysis::{self, Sample};
use super::strategy::{candidate, is_recreated, stable};
use super::world::World;
use super::{difference, shadow, steps};
use crate::api::{
    AnalysisMetric, AnalysisSpec, AnalysisStatus, AnalysisVerdict as Verdict, MIN_REQUESTS, MetricStatus,
    MetricType, RolloutRecord,
};
use crate::formats::{ShadowReport, Trial};
use crate::observe::{Counts, Evidence, Measurement};

/// Of a `LatencyP99Ratio`: requests that may be slower than `max` times the stable revision's 99th percentile.
const SLOW: f64 = 0.01;
/// Of the record's message.
const LONGEST: usize = 800;

/// None: there is nothing to analyse.
pub(super) fn judge(world: &World, record: &RolloutRecord) -> Option<AnalysisStatus> {
    let spec =
        record.analysis.as_ref().filter(|_| candidate(record).is_some() && stable(record).is_some())?;
    let told = world.route.is_some_and(|route| {
        let told = &route.spec.rollout;
        told.candidate == record.candidate && told.attempt == record.attempt
    });
    let none = Evidence::default();
    // Of another attempt: this one begins.
    Some(evaluate(spec, record, if told { &world.snapshot.evidence } else { &none }))
}

/// Before a shadow step ends: what it has found stands.
pub(super) fn keep(world: &World, record: &mut RolloutRecord) {
    if !mirrors(record) {
        return;
    }
    let (Some(spec), Some(found)) = (&record.analysis, judge(world, record)) else { return };
    let differences = spec.metrics.iter().zip(found.metrics).filter(|(metric, _)| is_difference(metric));
    record.compared = differences.map(|(_, found)| found).collect();
}

fn mirrors(record: &RolloutRecord) -> bool {
    steps::current(record).is_some_and(|step| step.shadow.is_some())
}

fn is_difference(metric: &AnalysisMetric) -> bool {
    metric.type_ == MetricType::OutputDifference
}

/// The step gives the candidate more, which it has to deserve. Without any traffic there is nothing to wait for: no
/// request would ever come.
fn is_gate(record: &RolloutRecord) -> bool {
    let weight = steps::weight(record).unwrap_or(0);
    let weighs = weight > 0 || mirrors(record);
    // A pause waits for the analysis itself, or a person has ended it.
    let before = steps::passed(record).iter().rev().find(|step| step.set_canary_scale.is_none());
    let after_pause = before.is_some_and(|step| step.pause.is_some());
    let more = match steps::current(record) {
        Some(step) if step.pause.is_some() || step.shadow.is_some() => true,
        Some(step) => !after_pause && step.set_weight.is_some_and(|more| more > weight),
        None => !after_pause,
    };
    more && weighs && record.analysis.is_some() && !is_recreated(record)
}

pub(super) fn holds(world: &World, record: &RolloutRecord) -> bool {
    let begins = mirrors(record) && shadow::current(world, record).is_none();
    is_gate(record)
        && !begins
        && record.passed_at.is_none()
        && judge(world, record).is_some_and(|found| found.verdict != Verdict::Passed)
}

/// Nothing holds. A raise that was let through stays so, however long its pods take; a pause and a mirror are judged at
/// their end.
pub(super) fn pass(world: &World, record: &mut RolloutRecord) {
    let pauses = steps::current(record).is_some_and(|step| step.pause.is_some());
    if is_gate(record) && !pauses && !mirrors(record) && record.passed_at.is_none() {
        record.passed_at = Some(Time(world.now));
    }
}

pub(super) fn has_failed(world: &World, record: &RolloutRecord) -> bool {
    !world.is_paused() && judge(world, record).is_some_and(|found| found.verdict == Verdict::Failed)
}

fn evaluate(spec: &AnalysisSpec, record: &RolloutRecord, evidence: &Evidence) -> AnalysisStatus {
    let needed = spec.min_requests.unwrap_or(MIN_REQUESTS).max(1);
    let metrics: Vec<MetricStatus> = spec
        .metrics
        .iter()
        .map(|metric| match metric.type_ {
            MetricType::ErrorRate => errors(metric, &evidence.counts, needed),
            MetricType::LatencyP99Ratio => latency(metric, &evidence.counts, needed),
            MetricType::Prometheus => {
                let limit = spec.failure_limit.unwrap_or(0);
                measured(metric, evidence.measurements.get(&metric.name), limit)
            }
            MetricType::OutputDifference => {
                let kept = record.compared.iter().find(|kept| kept.name == metric.name);
                match kept.filter(|_| !mirrors(record)) {
                    Some(kept) => kept.clone(),
                    None => differences(metric, &evidence.counts.shadow, needed),
                }
            }
        })
        .collect();
    let is = |verdict| move |metric: &MetricStatus| metric.verdict == verdict;
    // While requests are mirrored, what compares answers decides, and after it the others do.
    let now = mirrors(record);
    let decides =
        || spec.metrics.iter().zip(&metrics).filter(move |(metric, _)| is_difference(metric) == now);
    let verdict = if metrics.iter().any(is(Verdict::Failed)) {
        Verdict::Failed
    } else if decides().map(|(_, found)| found).all(is(Verdict::Passed)) {
        Verdict::Passed
    } else {
        Verdict::Inconclusive
    };
    let of_requests = decides().filter(|(metric, _)| metric.type_ != MetricType::Prometheus);
    let fewest = of_requests.map(|(_, metric)| metric.samples).min();
    let requests = fewest.unwrap_or_else(|| count(evidence.counts.requests));
    AnalysisStatus { verdict, requests, requests_needed: if fewest.is_some() { needed } else { 0 }, metrics }
}

fn errors(metric: &AnalysisMetric, counts: &Counts, needed: i64) -> MetricStatus {
    let sample = Sample { requests: counts.requests, bad: counts.errors };
    let verdict = analysis::judge(sample, limit(metric), needed as u64);
    MetricStatus {
        observed: (sample.requests > 0).then(|| decimal(sample.share())),
        ..found(metric, verdict, sample.requests)
    }
}

/// One request of the candidate is slow when it takes longer than `max` times the p99 that it was compared with.
fn latency(metric: &AnalysisMetric, counts: &Counts, needed: i64) -> MetricStatus {
    let compared: u64 = counts.latencies.values().sum();
    let most = (limit(metric).log2() * Trial::STEPS).round();
    let slow = counts.latencies.iter().filter(|(step, _)| f64::from(**step) > most).map(|(_, n)| *n).sum();
    let share = Sample { requests: compared, bad: slow }.share();
    let independent = counts.independent.clamp(0.0, compared as f64);
    let sample = Sample { requests: independent as u64, bad: (share * independent) as u64 };
    let verdict = match analysis::judge(sample, SLOW, 0) {
        Verdict::Failed => Verdict::Failed,
        _ if share <= SLOW && compared >= needed as u64 => Verdict::Passed,
        _ => Verdict::Inconclusive,
    };
    // The candidate's own 99th percentile, in the same unit.
    let rank = (0.99 * compared as f64).ceil() as u64;
    let reached = Trial::step_of(&counts.latencies, rank);
    MetricStatus {
        observed: reached.map(|step| decimal((f64::from(step) / Trial::STEPS).exp2())),
        ..found(metric, verdict, compared)
    }
}

fn measured(metric: &AnalysisMetric, measurement: Option<&Measurement>, failure_limit: i64) -> MetricStatus {
    let none = Measurement::default();
    let measurement = measurement.unwrap_or(&none);
    let verdict = match measurement.last {
        _ if count(measurement.failures) > failure_limit => Verdict::Failed,
        Some(last) if last <= limit(metric) => Verdict::Passed,
        _ => Verdict::Inconclusive,
    };
    MetricStatus {
        observed: measurement.last.map(decimal),
        message: measurement.error.clone(),
        ..found(metric, verdict, measurement.values)
    }
}

fn differences(metric: &AnalysisMetric, report: &ShadowReport, needed: i64) -> MetricStatus {
    let budgets = metric.outputs.as_deref().unwrap_or_default();
    let difference::Found { verdict, observed, max, worst, message } =
        difference::judge(budgets, report, needed as u64);
    MetricStatus { observed, max, worst, message, ..found(metric, verdict, report.compared) }
}

fn found(metric: &AnalysisMetric, verdict: Verdict, samples: u64) -> MetricStatus {
    MetricStatus {
        name: metric.name.clone(),
        verdict,
        observed: None,
        max: metric.max.clone().unwrap_or_default(),
        samples: count(samples),
        worst: None,
        message: None,
    }
}

/// The schema lets only decimals in.
fn limit(metric: &AnalysisMetric) -> f64 {
    metric.max.as_deref().and_then(|max| max.parse().ok()).unwrap_or(0.0)
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Three digits that count.
pub(super) fn decimal(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if value.abs() >= 1e15 {
        return format!("{value:.2e}");
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// What a rollout waits for. `when`: empty, or ` by then`.
pub(super) fn waits_for(found: &AnalysisStatus, when: &str) -> String {
    let AnalysisStatus { requests, requests_needed, .. } = found;
    if requests < requests_needed {
        return format!("analysis has {requests_needed} requests{when} ({requests} so far)");
    }
    let open = found.metrics.iter().filter(|metric| metric.verdict != Verdict::Passed);
    let open: Vec<String> = open.map(describe).collect();
    format!("analysis passes{when}: {}", open.join("; "))
}

/// Why a candidate was given up.
pub(super) fn why(found: &AnalysisStatus) -> String {
    let failed = found.metrics.iter().filter(|metric| metric.verdict == Verdict::Failed);
    let failed: Vec<String> = failed.map(describe).collect();
    format!("its analysis failed: {}", failed.join("; ")).chars().take(LONGEST).collect()
}

fn describe(metric: &MetricStatus) -> String {
    let MetricStatus { name, max, samples, .. } = metric;
    // Of an output, it may be the least that is allowed.
    let limit = if metric.worst.is_some() { "the budget is" } else { "at most" };
    let worst = metric.worst.as_ref().map(|worst| format!(" ({worst})")).unwrap_or_default();
    let message = metric.message.as_ref().map(|message| format!(", {message}")).unwrap_or_default();
    match &metric.observed {
        Some(observed) => {
            let s = if *samples == 1 { "" } else { "s" };
            format!("{name}{worst} is {observed} ({samples} sample{s}), {limit} {max}{message}")
        }
        None => format!("{name} has no value yet, {limit} {max}{message}"),
    }
}

#[cfg(test)]
mod tests;
