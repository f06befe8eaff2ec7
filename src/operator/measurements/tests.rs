use serde_json::json;

use super::*;

fn mk_route(attempt: i64, weight: i32) -> Arc<RouteView> {
    let object = json!({
        "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelRoute",
        "metadata": { "name": "fraud", "namespace": "payments", "uid": "route", "resourceVersion": "1", "generation": 1,
            "labels": { "modelwright.dev/deployment": "fraud" } },
        "spec": {
            "mode": "Forward",
            "backends": [{ "revision": 1, "weight": 100 - weight }, { "revision": 2, "weight": weight }],
            "rollout": { "stable": 1, "candidate": 2, "attempt": attempt, "analysis": {
                "intervalSeconds": 10,
                "metrics": [{ "name": "errors", "type": "ErrorRate", "max": "0.1" },
                    { "name": "chargebacks", "type": "Prometheus", "max": "0.02", "prometheus": {
                        "address": "http://prometheus:9090",
                        "query": "a{r=\"{{revision}}\",s=\"{{stable}}\",n=\"{{namespace}}/{{name}}\"}" } }],
            } },
        },
    });
    Arc::new(RouteView::of(serde_json::from_value(object).unwrap()).unwrap())
}

#[test]
fn a_query_is_asked_each_interval_while_the_candidate_has_traffic() {
    let (measurements, start) = (Measurements::default(), Instant::now());
    let at = |second| start + Duration::from_secs(second);
    let asked = |route, second| measurements.due(vec![route], at(second)).len();
    assert_eq!(asked(mk_route(1, 0), 0), 0, "no traffic");
    assert_eq!(asked(mk_route(1, 5), 20), 0, "traffic from now on");
    assert_eq!(asked(mk_route(1, 5), 29), 0);
    assert_eq!(asked(mk_route(1, 5), 30), 1, "the error rate is no query");
    assert_eq!(asked(mk_route(1, 5), 39), 0);
    assert_eq!(asked(mk_route(1, 5), 40), 1);
    assert_eq!(asked(mk_route(2, 5), 50), 0, "another attempt begins anew");
}

#[test]
fn values_above_the_limit_are_counted_and_no_value_is_none() {
    let (measurements, route) = (Measurements::default(), mk_route(1, 5));
    let start = Instant::now();
    measurements.due(vec![route.clone()], start);
    let (_, metric) = measurements.due(vec![route.clone()], start + Duration::from_secs(10)).remove(0);
    for answer in [Ok(0.01), Ok(0.03), Err("the query finds nothing".into())] {
        measurements.take(&route, &metric, answer);
    }
    let found = &measurements.of(&route)["chargebacks"];
    assert_eq!((found.values, found.failures, found.last), (2, 1, Some(0.03)));
    assert_eq!(found.error.as_deref(), Some("the query finds nothing"));
    assert!(measurements.of(&mk_route(2, 5)).is_empty(), "of another attempt nothing is known");
}

#[test]
fn a_query_names_the_revision_that_it_is_about() {
    let route = mk_route(1, 5);
    let metric = &route.spec.rollout.analysis.as_ref().unwrap().metrics[1];
    let filled = fill(&metric.prometheus.as_ref().unwrap().query, &route);
    assert_eq!(filled, r#"a{r="fraud-r2",s="fraud-r1",n="payments/fraud"}"#);
}
