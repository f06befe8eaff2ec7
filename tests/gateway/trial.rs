//! What is counted for a canary's analysis.

use std::time::Duration;

use axum::http::{HeaderValue, Response};
use modelwright::formats::Trial;
use modelwright::gateway::{RouteView, TrialView};

use crate::support::*;

const NAMED: &str = "/v2/models/m/versions/2/infer";

fn tried(generation: i64, attempt: i64) -> RouteView {
    let interval = Duration::from_millis(1);
    let trial = TrialView { stable: 1, candidate: 2, attempt, interval };
    RouteView { trial: Some(trial), ..route("m", generation, &[(1, 50), (2, 50)]) }
}

/// Reads until the counts are as wanted; they never go beyond.
async fn counted(reports: &mut Reports, attempt: i64, requests: u64, errors: u64) -> Trial {
    let mut last = Trial::default();
    within("the counts", async {
        while (last.attempt, last.requests, last.errors) != (attempt, requests, errors) {
            if let Some(trial) = reports.next().await.trials.remove("m") {
                let fits = trial.attempt < attempt || (trial.requests <= requests && trial.errors <= errors);
                assert!(fits, "{trial:?} instead of {requests} and {errors}");
                last = trial;
            }
        }
    })
    .await;
    last
}

#[tokio::test]
async fn a_candidate_is_counted_for_what_it_answers_and_fails_and_for_nothing_else() {
    let gateway = gateway().await;
    let (stable, candidate) = (Pod::start("m", 1).await, Pod::start("m", 2).await);
    gateway.table.set_pod(stable.view.clone());
    gateway.table.set_pod(candidate.view.clone());
    gateway.table.set_route(tried(1, 1));
    let mut reports = Reports::open(gateway.admin).await;

    for path in [NAMED, NAMED, NAMED, "/v2/models/m/versions/1/infer"] {
        assert_eq!(rest(gateway.address, "m", path, b"{}").await.status, 200);
    }
    let mut grpc = Grpc::connect(gateway.address).await;
    assert_eq!(grpc.call("m", INFER, &infer("m", "2")).await.grpc_status(), "0");
    counted(&mut reports, 1, 4, 0).await;

    // The client's own fault is neither; a refusal of the gateway never reached a pod.
    for (status, code) in [(500, 13), (400, 3)] {
        candidate.answer(move |seen| {
            let mut response = Response::new(full("no"));
            match seen.grpc {
                true => {
                    response.headers_mut().insert("grpc-status", HeaderValue::from(code));
                }
                false => *response.status_mut() = status.try_into().unwrap(),
            }
            Some(response)
        });
        assert_eq!(rest(gateway.address, "m", NAMED, b"{}").await.status, status);
        assert_eq!(grpc.call("m", INFER, &infer("m", "2")).await.grpc_status(), code.to_string());
    }
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/versions/9/infer", b"{}").await.status, 404);
    counted(&mut reports, 1, 6, 2).await;

    // Another reader is told everything first; another attempt begins anew.
    assert_eq!(Reports::open(gateway.admin).await.next().await.trials["m"].requests, 6);
    gateway.table.set_route(tried(2, 2));
    counted(&mut reports, 2, 0, 0).await;
    gateway.table.set_route(route("m", 3, &[(1, 100)]));
    assert!(Reports::open(gateway.admin).await.next().await.trials.is_empty());
}

#[tokio::test]
async fn a_request_that_the_candidate_lost_is_its_error_though_another_pod_answers() {
    let gateway = gateway().await;
    let (stable, candidate) = (Pod::start("m", 1).await, Pod::start("m", 2).await);
    gateway.table.set_pod(stable.view.clone());
    gateway.table.set_pod(candidate.view.clone());
    gateway.table.set_route(tried(1, 1));
    let mut reports = Reports::open(gateway.admin).await;
    candidate.shut();
    let at = gateway.address;
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(async move { rest(at, "m", "/v2/models/m/infer", b"{}").await.text() }))
        .collect();
    until("half of them wait for the candidate", || candidate.arrived() == 2).await;
    candidate.kill().await;
    for client in clients {
        assert_eq!(within("an answer", client).await.unwrap(), "r1");
    }
    counted(&mut reports, 1, 2, 2).await;
}

#[tokio::test]
async fn latencies_are_compared_with_the_stable_revisions() {
    let gateway = gateway().await;
    let (stable, candidate) = (Pod::start("m", 1).await, Pod::start("m", 2).await);
    gateway.table.set_pod(stable.view.clone());
    gateway.table.set_pod(candidate.view.clone());
    gateway.table.set_route(tried(1, 1));
    let mut reports = Reports::open(gateway.admin).await;
    let mut client = Rest::connect(gateway.address).await;
    for _ in 0..300 {
        let got = within("an answer", client.post("m", "/v2/models/m/infer", b"{}")).await.unwrap();
        assert_eq!(got.status, 200);
    }
    let told = counted(&mut reports, 1, 150, 0).await;
    let compared: u64 = told.latencies.values().sum();
    assert!((90..=150).contains(&compared), "{told:?}");
    assert!(told.independent > 0.0 && told.independent < compared as f64, "{told:?}");
}
