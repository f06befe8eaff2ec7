use std::collections::BTreeMap;

use super::super::analysis::tests::Random;
use super::*;
use crate::api::PrometheusQuery;

fn metric(name: &str, type_: MetricType, max: &str) -> AnalysisMetric {
    let query = PrometheusQuery { address: "http://prometheus:9090".into(), query: "1".into() };
    let prometheus = (type_ == MetricType::Prometheus).then_some(query);
    AnalysisMetric { name: name.into(), type_, max: Some(max.into()), outputs: None, prometheus }
}

fn spec(metrics: Vec<AnalysisMetric>) -> AnalysisSpec {
    AnalysisSpec { min_requests: Some(200), interval_seconds: None, failure_limit: Some(1), metrics }
}

fn counts(requests: u64, errors: u64) -> Counts {
    Counts { requests, errors, ..Counts::default() }
}

fn compared(latencies: &[(i32, u64)], independent: f64) -> Counts {
    let latencies: BTreeMap<i32, u64> = latencies.iter().copied().collect();
    Counts { requests: latencies.values().sum(), latencies, independent, ..Counts::default() }
}

fn of(spec: &AnalysisSpec, counts: Counts) -> AnalysisStatus {
    evaluate(spec, &RolloutRecord::default(), &Evidence { counts, ..Evidence::default() })
}

#[test]
fn too_few_requests_neither_pass_nor_fail_and_are_counted() {
    let spec = spec(vec![metric("errors", MetricType::ErrorRate, "0.001")]);
    let found = of(&spec, counts(134, 0));
    assert_eq!((found.verdict, found.requests, found.requests_needed), (Verdict::Inconclusive, 134, 200));
    assert_eq!(waits_for(&found, ""), "analysis has 200 requests (134 so far)");
    assert_eq!(of(&spec, counts(200, 0)).verdict, Verdict::Passed);
    let found = of(&spec, counts(400, 1));
    assert_eq!(waits_for(&found, ""), "analysis passes: errors is 0.0025 (400 samples), at most 0.001");
    let found = of(&spec, counts(20, 9));
    assert_eq!(found.verdict, Verdict::Failed, "that is no chance, however few");
    assert_eq!(why(&found), "its analysis failed: errors is 0.45 (20 samples), at most 0.001");
}

#[test]
fn a_candidate_is_slow_when_more_than_one_percent_takes_longer_than_max_times_the_p99() {
    let spec = spec(vec![metric("latency", MetricType::LatencyP99Ratio, "1.2")]);
    // 1.2 is 8.4 steps of 2.2 %.
    let equal = of(&spec, compared(&[(-40, 990), (5, 10)], 900.0));
    assert_eq!((equal.verdict, equal.requests), (Verdict::Passed, 1000));
    let slow = of(&spec, compared(&[(-40, 900), (16, 100)], 900.0));
    assert_eq!(slow.verdict, Verdict::Failed);
    assert_eq!(slow.metrics[0].observed.as_deref(), Some("1.41"), "its p99 in the unit of max");
    assert_eq!(of(&spec, compared(&[(-40, 100)], 90.0)).verdict, Verdict::Inconclusive);
    let few = of(&spec, compared(&[(-40, 900), (16, 100)], 2.0));
    assert_eq!(few.verdict, Verdict::Inconclusive, "compared with too few of the stable revision");
}

#[test]
fn a_query_fails_beyond_its_limit_and_without_a_value_holds() {
    let spec = spec(vec![metric("chargebacks", MetricType::Prometheus, "0.02")]);
    let with = |measurement: Measurement| {
        let measurements = BTreeMap::from([("chargebacks".to_string(), measurement)]);
        evaluate(&spec, &RolloutRecord::default(), &Evidence { measurements, ..Evidence::default() })
    };
    let measured = |values, failures, last, error: Option<&str>| {
        with(Measurement { values, failures, last, error: error.map(String::from) })
    };
    let found = measured(0, 0, None, Some("the query finds nothing"));
    assert_eq!(found.verdict, Verdict::Inconclusive);
    assert_eq!(
        waits_for(&found, ""),
        "analysis passes: chargebacks has no value yet, at most 0.02, the query finds nothing"
    );
    assert_eq!(measured(1, 0, Some(0.02), None).verdict, Verdict::Passed);
    assert_eq!(measured(2, 1, Some(0.03), None).verdict, Verdict::Inconclusive, "one is forgiven");
    assert_eq!(measured(3, 1, Some(0.01), None).verdict, Verdict::Passed);
    assert_eq!(measured(4, 2, Some(0.01), None).verdict, Verdict::Failed);
}

#[test]
fn one_that_fails_decides_and_one_that_is_open_holds() {
    let both = spec(vec![
        metric("errors", MetricType::ErrorRate, "0.001"),
        metric("latency", MetricType::LatencyP99Ratio, "1.2"),
    ]);
    let found = of(&both, counts(500, 0));
    assert_eq!((found.verdict, found.requests), (Verdict::Inconclusive, 0), "latencies come by interval");
    let bad = Counts { errors: 100, ..compared(&[(0, 500)], 400.0) };
    assert_eq!(of(&both, bad).verdict, Verdict::Failed);
    assert_eq!(of(&both, compared(&[(0, 500)], 400.0)).verdict, Verdict::Passed);
}

#[test]
fn three_digits_are_shown() {
    for (value, text) in [
        (0.0, "0"),
        (0.0014925, "0.00149"),
        (0.1, "0.1"),
        (1.0, "1"),
        (1.414, "1.41"),
        (1234.5, "1234"),
        (f64::INFINITY, "inf"),
        (1e-9, "0.000000001"),
    ] {
        assert_eq!(decimal(value), text);
    }
}

/// Intervals of `stable` and `candidate` requests, each compared as the gateway does it, until the metric fails.
fn fails_within(intervals: u32, stable: usize, candidate: usize, slower: f64, random: &mut Random) -> bool {
    let spec = spec(vec![metric("latency", MetricType::LatencyP99Ratio, "1")]);
    // A heavy tail: of a Pareto distribution.
    let latency = |random: &mut Random| (1.0 - random.share()).powf(-0.3);
    let mut told = Counts::default();
    (0..intervals).any(|_| {
        let mut of_stable: Vec<f64> = (0..stable).map(|_| latency(random)).collect();
        of_stable.sort_by(f64::total_cmp);
        let rank = (0.99 * (stable + 1) as f64).ceil() as usize;
        let step = |latency: f64| (latency.log2() * Trial::STEPS).round() as i32;
        let threshold = step(of_stable[rank - 1]);
        for _ in 0..candidate {
            *told.latencies.entry(step(slower * latency(random)) - threshold).or_default() += 1;
        }
        told.independent += (stable * candidate) as f64 / (stable + candidate) as f64;
        of(&spec, told.clone()).verdict == Verdict::Failed
    })
}

#[test]
fn an_equal_candidate_rarely_fails_though_the_p99_is_an_estimate() {
    let mut random = Random(3);
    for (stable, candidate) in [(100, 100), (100, 900), (1_000, 50), (300, 300)] {
        let runs = (0..200).filter(|_| fails_within(50, stable, candidate, 1.0, &mut random)).count();
        // 10 expected at most; 20 is three standard deviations above.
        assert!(runs <= 20, "{runs} of 200 at {stable} and {candidate}");
    }
}

#[test]
fn a_candidate_whose_p99_is_twice_as_high_is_caught() {
    let mut random = Random(4);
    for (stable, candidate) in [(100, 100), (1_000, 50), (300, 300)] {
        let runs = (0..50).filter(|_| fails_within(50, stable, candidate, 2.0, &mut random)).count();
        assert_eq!(runs, 50, "at {stable} and {candidate}");
    }
}

fn mirrored(step: i32) -> RolloutRecord {
    let steps =
        serde_json::json!([{ "shadow": { "percent": 20, "durationSeconds": 60 } }, { "setWeight": 5 }]);
    RolloutRecord { steps: serde_json::from_value(steps).unwrap(), step, ..Default::default() }
}

#[test]
fn a_difference_of_outputs_decides_in_its_shadow_step_and_stands_after_it() {
    let outputs = serde_json::json!([{ "name": "score", "maxAbsolute": "0.01" }]);
    let scores = AnalysisMetric {
        name: "scores".into(),
        type_: MetricType::OutputDifference,
        max: None,
        outputs: serde_json::from_value(outputs).unwrap(),
        prometheus: None,
    };
    let spec = spec(vec![metric("errors", MetricType::ErrorRate, "0.001"), scores]);
    let after = |compared, max_absolute, record: &RolloutRecord| {
        let output = crate::formats::OutputReport { samples: compared, max_absolute, ..Default::default() };
        let outputs = [("score".to_string(), output)].into();
        let shadow = ShadowReport { compared, outputs, ..Default::default() };
        let counts = Counts { shadow, ..Counts::default() };
        evaluate(&spec, record, &Evidence { counts, ..Evidence::default() })
    };
    let few = after(134, 0.003, &mirrored(0));
    assert_eq!((few.verdict, few.requests), (Verdict::Inconclusive, 134));
    assert_eq!(waits_for(&few, ""), "analysis has 200 requests (134 so far)");
    let enough = after(4120, 0.0031, &mirrored(0));
    assert_eq!(enough.verdict, Verdict::Passed, "no request is the candidate's own yet");
    let told = &enough.metrics[1];
    assert_eq!((told.observed.as_deref(), told.max.as_str(), told.samples), (Some("0.0031"), "0.01", 4120));
    assert_eq!(told.worst.as_deref(), Some("output score, absolute"));
    let failed = after(3, 0.5, &mirrored(0));
    assert_eq!(
        why(&failed),
        "its analysis failed: scores (output score, absolute) is 0.5 (3 samples), the budget is 0.01"
    );
    // The mirror is gone, and so is what it has found.
    let record = RolloutRecord { compared: vec![told.clone()], ..mirrored(1) };
    let later = evaluate(&spec, &record, &Evidence { counts: counts(300, 0), ..Evidence::default() });
    assert_eq!((later.verdict, later.requests), (Verdict::Passed, 300));
    assert_eq!(later.metrics[1], *told);
}
