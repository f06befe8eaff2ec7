use axum::Router;
use axum::extract::RawQuery;
use axum::routing::get;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::tests::{mk_context, mk_deployment};
use super::super::{lease, reconcile};
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

/// As a Prometheus would that is asked for what it shall answer; `hang`: never.
async fn answer(RawQuery(query): RawQuery) -> axum::Json<Value> {
    let query = query.unwrap_or_default();
    let encoded = query.strip_prefix("query=").expect("a query");
    let bytes = encoded.split('%').skip(1).map(|byte| u8::from_str_radix(byte, 16).expect("a byte"));
    let asked = String::from_utf8(bytes.collect()).expect("text");
    let result = match asked.as_str() {
        "hang" => std::future::pending().await,
        "nothing" => json!([]),
        "refused" => {
            return axum::Json(json!({ "status": "error", "errorType": "bad_data", "error": "parse error" }));
        }
        "fraud-r2 of payments/fraud" => json!([{ "metric": {}, "value": [1.5, "0.03"] }]),
        number => json!([{ "metric": {}, "value": [1.5, number] }]),
    };
    axum::Json(json!({ "status": "success", "data": { "resultType": "vector", "result": result } }))
}

#[tokio::test]
async fn the_poll_brings_each_querys_answer_into_the_snapshot_whatever_the_others_do() {
    const WITHIN: Duration = Duration::from_secs(300);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/behind", listener.local_addr().unwrap());
    let prometheus = Router::new().route("/behind/api/v1/query", get(answer));
    tokio::spawn(async move { axum::serve(listener, prometheus).await });
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cases = [
        ("hangs", address.clone(), "hang"),
        ("is-gone", format!("http://{closed}"), "1"),
        ("is-refused", address.clone(), "refused"),
        ("finds-nothing", address.clone(), "nothing"),
        ("is-no-number", address.clone(), "NaN"),
        ("is-below", address.clone(), "0.01"),
        ("is-above", address.clone(), "{{revision}} of {{namespace}}/{{name}}"),
    ];
    let metrics = cases.clone().map(|(name, address, query)| {
        json!({ "name": name, "type": "Prometheus", "max": "0.02",
            "prometheus": { "address": address, "query": query } })
    });
    let mut route = RouteView::clone(&mk_route(1, 5));
    let analysis = json!({ "intervalSeconds": 1, "metrics": metrics });
    route.spec.rollout.analysis = Some(serde_json::from_value(analysis).unwrap());
    route.meta.owner_uid = Some("fraud-uid".into());

    let quick = Duration::from_millis(200);
    let measurements = Measurements { deadline: quick, allow_loopback: true, ..Default::default() };
    let context = mk_context(Router::new(), measurements);
    context.shelves.routes.take(Event::Apply(Some(route)));
    let (trigger, mut triggers) = mpsc::channel(64);
    let (shelves, lease) = (context.shelves.clone(), lease::tests::held());
    let polling = tokio::spawn(context.measurements.clone().poll(shelves, lease, trigger));
    // Each query twice, so that also the one that hangs was given up and asked again.
    for _ in 0..2 * cases.len() {
        let told = tokio::time::timeout(WITHIN, triggers.recv()).await.expect("its turn");
        assert_eq!(told, Some(Trigger::new("fraud").within("payments")));
    }
    let deployment = Arc::new(mk_deployment("payments", "fraud"));
    let found = reconcile::snapshot(deployment, &context).0.evidence.measurements;
    let told = |name: &str| (found[name].last, found[name].error.clone().unwrap_or_default());
    let gone = format!("{address} gave no answer within 200ms");
    assert_eq!(told("hangs"), (None, gone));
    assert!(told("is-gone").1.contains("refused"), "{found:?}");
    assert_eq!(told("is-refused"), (None, "parse error".into()));
    assert_eq!(told("finds-nothing"), (None, "the query finds nothing".into()));
    assert_eq!(told("is-no-number"), (None, "the query gives NaN".into()));
    assert_eq!(told("is-below"), (Some(0.01), String::new()));
    assert_eq!(told("is-above"), (Some(0.03), String::new()));
    let counted = |name: &str| (found[name].values, found[name].failures);
    assert_eq!([counted("hangs"), counted("is-below"), counted("is-above")], [(0, 0), (2, 0), (2, 2)]);
    polling.abort();
}

#[tokio::test]
async fn who_does_not_lead_asks_nobody_and_forgets_what_was_found() {
    let (measurements, route) = (Arc::new(Measurements::default()), mk_route(1, 5));
    measurements.due(vec![route.clone()], Instant::now());
    let metric = route.spec.rollout.analysis.as_ref().unwrap().metrics[1].clone();
    measurements.take(&route, &metric, Ok(0.01));
    assert_eq!(measurements.of(&route).len(), 1);
    let (trigger, _triggers) = mpsc::channel(1);
    let polling = measurements.clone().poll(Arc::default(), lease::tests::lost(), trigger);
    let polling = tokio::spawn(polling);
    tokio::time::timeout(Duration::from_secs(300), async {
        while !measurements.of(&route).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("another leads");
    polling.abort();
}
