//! A share of the requests goes to a candidate too, and no client notices.

use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::Full;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use modelwright::api::RouteShadow;
use modelwright::formats::ShadowReport;
use modelwright::gateway::{RouteView, Table, TrialView};
use modelwright::listen::Patience;
use modelwright::protocol::grpc::proto::ModelInferResponse;
use modelwright::protocol::grpc::proto::model_infer_response::InferOutputTensor;
use prost::Message;
use serde_json::json;

use crate::support::*;

const PATH: &str = "/v2/models/m/infer";

/// r1 answers everything, r2 is compared with it.
fn mirrored(generation: i64, percent: i32, attempt: i64) -> RouteView {
    let shadow = RouteShadow { revision: 2, attempt, percent, since: Time(Default::default()) };
    let interval = Duration::from_secs(30);
    RouteView {
        shadow: Some(shadow),
        trial: Some(TrialView { stable: 1, candidate: 2, attempt, interval }),
        ..route("m", generation, &[(1, 100)])
    }
}

fn found(table: &Table) -> ShadowReport {
    table.trials().remove("m").and_then(|trial| trial.shadow).unwrap_or_default()
}

fn all(report: &ShadowReport) -> u64 {
    report.compared + report.mismatched + report.failed + report.dropped
}

fn scores(values: &[f32]) -> String {
    json!({"model_name": "m", "model_version": "1", "outputs": [
        {"name": "score", "datatype": "FP32", "shape": [1, values.len()], "data": values},
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    ]})
    .to_string()
}

fn answers(pod: &Pod, text: String) {
    pod.answer(move |_| Some(Response::new(full(text.clone()))));
}

async fn pair(gateway: &Gateway) -> (Pod, Pod) {
    let (stable, candidate) = (Pod::start("m", 1).await, Pod::start("m", 2).await);
    answers(&stable, scores(&[0.25, 0.75]));
    answers(&candidate, scores(&[0.5, 0.5]));
    gateway.table.set_pod(stable.view.clone());
    gateway.table.set_pod(candidate.view.clone());
    (stable, candidate)
}

#[tokio::test]
async fn a_client_gets_the_stable_answer_and_both_are_compared() {
    let gateway = gateway().await;
    let (stable, candidate) = pair(&gateway).await;
    gateway.table.set_route(mirrored(1, 100, 1));
    let mut client = Rest::connect(gateway.address).await;
    for _ in 0..10 {
        let got = within("an answer", client.post("m", PATH, b"{\"a\":1}")).await.unwrap();
        assert_eq!(got.text(), scores(&[0.25, 0.75]));
    }
    until("all are compared", || found(&gateway.table).compared == 10).await;
    let report = found(&gateway.table);
    assert_eq!(all(&report), 10, "{report:?}");
    let score = report.outputs["score"];
    assert_eq!((score.samples, score.max_absolute, score.rows), (10, 0.25, 10));
    assert_eq!((report.outputs["label"].agreeing, report.outputs["label"].max_absolute), (10, 0.0));
    assert!(candidate.seen().iter().all(|seen| seen.body == stable.seen()[0].body));
    // The candidate's own figures are of those that clients got.
    let metrics = get(gateway.admin, "g", "/metrics").await.text();
    assert!(!metrics.contains(r#"requests_total{deployment="m",revision="r2",code"#), "{metrics}");
    for line in [
        r#"shadow_requests_total{deployment="m",revision="r2",outcome="compared"} 10"#,
        r#"shadow_difference{deployment="m",revision="r2",output="score",measure="max_absolute"} 0.25"#,
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    // The operator is told.
    let told = Reports::open(gateway.admin).await.next().await;
    assert_eq!(told.trials["m"].shadow.as_ref().unwrap().compared, 10);
    // Another attempt begins with nothing, and without one nothing is left.
    gateway.table.set_route(mirrored(2, 100, 2));
    assert_eq!(found(&gateway.table), ShadowReport::default());
    gateway.table.set_route(route("m", 3, &[(1, 100)]));
    let mut text = String::from("shadow_");
    while text.contains("shadow_requests_total{") || text.contains("shadow_difference{") {
        text = get(gateway.admin, "g", "/metrics").await.text();
    }
}

#[tokio::test]
async fn the_share_is_what_was_asked_for() {
    let gateway = gateway().await;
    let (_stable, candidate) = pair(&gateway).await;
    gateway.table.set_route(mirrored(1, 20, 1));
    let mut client = Rest::connect(gateway.address).await;
    for _ in 0..100 {
        within("an answer", client.post("m", PATH, b"{}")).await.unwrap();
    }
    // Evenly, so that it is one more or less.
    until("they are compared", || found(&gateway.table).compared == 21).await;
    assert_eq!(candidate.arrived(), 21);
}

#[tokio::test]
async fn grpc_and_binary_answers_are_compared() {
    let gateway = gateway().await;
    let (stable, candidate) = pair(&gateway).await;
    for (pod, value) in [(&stable, 1.0f32), (&candidate, 1.5)] {
        pod.answer(move |seen| {
            let raw = value.to_le_bytes();
            if !seen.grpc {
                let head = json!({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1],
                    "parameters": {"binary_data_size": 4}}]});
                let head = head.to_string();
                let mut response = Response::new(full([head.as_bytes(), &raw].concat()));
                let length = head.len().to_string().parse().unwrap();
                response.headers_mut().insert("inference-header-content-length", length);
                return Some(response);
            }
            let output = InferOutputTensor {
                name: "y".into(),
                datatype: "FP32".into(),
                shape: vec![1],
                ..Default::default()
            };
            let message = ModelInferResponse {
                outputs: vec![output],
                raw_output_contents: vec![Bytes::copy_from_slice(&raw)],
                ..Default::default()
            };
            let mut response = Response::new(grpc_body(&message.encode_to_vec()));
            response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            Some(response)
        });
    }
    gateway.table.set_route(mirrored(1, 100, 1));
    let got = Grpc::connect(gateway.address).await.call("m", INFER, &infer("m", "")).await;
    assert_eq!(got.grpc_status(), "0");
    until("the call is compared", || all(&found(&gateway.table)) == 1).await;
    assert_eq!(rest(gateway.address, "m", PATH, b"{}").await.status, 200);
    until("both are compared", || all(&found(&gateway.table)) == 2).await;
    let report = found(&gateway.table);
    assert_eq!((report.compared, report.outputs["y"].max_absolute), (2, 0.5), "{report:?}");
}

#[tokio::test]
async fn what_asks_no_question_of_the_current_revision_is_not_mirrored() {
    let gateway = gateway().await;
    let (stable, candidate) = pair(&gateway).await;
    gateway.table.set_route(mirrored(1, 100, 1));
    for path in ["/v2/models/m/versions/1/infer", "/v2/models/m/config"] {
        rest(gateway.address, "m", path, b"{}").await;
    }
    stable.answer(|_| Some(Response::builder().status(400).body(full("{}")).unwrap()));
    assert_eq!(rest(gateway.address, "m", PATH, b"{}").await.status, 400);
    answers(&stable, scores(&[0.25, 0.75]));
    rest(gateway.address, "m", PATH, b"{}").await;
    until("the last is compared", || found(&gateway.table).compared == 1).await;
    assert_eq!((candidate.arrived(), all(&found(&gateway.table))), (1, 1));
}

#[tokio::test]
async fn a_candidate_that_hangs_delays_nobody_and_what_finds_no_room_is_counted() {
    const REQUESTS: u64 = 200;
    let gateway = gateway().await;
    let (_stable, candidate) = pair(&gateway).await;
    let text = scores(&[0.25, 0.75]);
    *candidate.state.hook.lock().unwrap() = None;
    candidate.shut();
    gateway.table.set_route(mirrored(1, 100, 1));
    let mut client = Rest::connect(gateway.address).await;
    for _ in 0..REQUESTS {
        let got = within("an answer", client.post("m", PATH, b"{}")).await.unwrap();
        assert_eq!((got.status, got.text()), (200, text.clone()));
    }
    until("most are dropped", || found(&gateway.table).dropped >= 100).await;
    assert!(candidate.arrived() <= 4, "{} at once", candidate.arrived());
    // It answers at last, and not with tensors.
    candidate.open();
    until("none is left", || all(&found(&gateway.table)) == REQUESTS).await;
    let report = found(&gateway.table);
    assert!(report.mismatched >= 64 && report.mismatched + report.dropped == REQUESTS, "{report:?}");
}

#[tokio::test]
async fn a_candidate_that_is_absent_or_dies_or_fails_harms_nobody() {
    let gateway = gateway().await;
    let (_stable, candidate) = pair(&gateway).await;
    gateway.table.set_route(mirrored(1, 100, 1));
    let at = gateway.address;
    let ask = || async move { assert_eq!(rest(at, "m", PATH, b"{}").await.status, 200) };
    let after = |count: u64| {
        let table = gateway.table.clone();
        async move {
            until("it is counted", || all(&found(&table)) == count).await;
            found(&table)
        }
    };
    candidate.answer(|_| Some(Response::builder().status(500).body(full("{}")).unwrap()));
    ask().await;
    let report = after(1).await;
    assert_eq!((report.failed, report.example.as_deref()), (1, Some("status 500")));
    answers(&candidate, json!({"outputs": []}).to_string());
    ask().await;
    assert_eq!(after(2).await.mismatched, 1);
    // It is full, and has not run it.
    candidate.answer(|_| {
        let busy = Response::builder().status(503).header("retry-after", "1");
        Some(busy.body(full("{}")).unwrap())
    });
    ask().await;
    assert_eq!(after(3).await.dropped, 1);
    candidate.kill().await;
    ask().await;
    assert_eq!(after(4).await.dropped, 2);
    gateway.table.set_pod(candidate.not_ready());
    ask().await;
    assert_eq!(after(5).await.dropped, 3);
}

#[tokio::test]
async fn mirrored_bytes_are_bounded_apart() {
    // An eighth of it is for what is mirrored.
    let gateway = gateway_with(64 << 10, Patience::default()).await;
    let (_stable, candidate) = pair(&gateway).await;
    gateway.table.set_route(mirrored(1, 100, 1));
    assert_eq!(rest(gateway.address, "m", PATH, &[b' '; 16 << 10]).await.status, 200);
    until("it is dropped", || found(&gateway.table).dropped == 1).await;
    assert_eq!(rest(gateway.address, "m", PATH, b"{}").await.status, 200);
    until("a small one is compared", || found(&gateway.table).compared == 1).await;
    assert_eq!(candidate.arrived(), 1);
}

#[tokio::test]
async fn the_clients_own_wishes_for_its_answer_are_not_passed_on() {
    let gateway = gateway().await;
    let (_stable, candidate) = pair(&gateway).await;
    gateway.table.set_route(mirrored(1, 100, 1));
    let request =
        Request::post(PATH).header("host", "m").header("accept-encoding", "gzip").header("x-own", "1");
    let mut client = Rest::connect(gateway.address).await;
    client.send(request.body(Full::from("{}")).unwrap()).await.unwrap();
    until("it is compared", || found(&gateway.table).compared == 1).await;
    let seen = candidate.seen().remove(0);
    assert!(seen.headers.get("accept-encoding").is_none() && seen.headers.contains_key("x-own"));
}
