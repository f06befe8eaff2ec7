//! Requests that a pod loses are sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Response;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use crate::support::*;

/// Clients of both protocols that ask until they are stopped.
struct Load {
    clients: JoinSet<(usize, Vec<String>)>,
    stop: Arc<AtomicBool>,
    pub answered: Arc<AtomicUsize>,
}

impl Load {
    fn start(gateway: &Gateway, name: &'static str) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..8 {
            let (at, stop, answered) = (gateway.address, stop.clone(), answered.clone());
            clients.spawn(async move {
                let (mut count, mut failures) = (0, Vec::new());
                let mut grpc = Grpc::connect(at).await;
                let mut rest = Rest::connect(at).await;
                while !stop.load(Ordering::Relaxed) {
                    count += 1;
                    let failure = match number % 2 {
                        0 => {
                            let got = grpc.call(name, INFER, &infer(name, "")).await;
                            (got.grpc_status() != "0").then(|| format!("{got:?}"))
                        }
                        _ => {
                            let path = format!("/v2/models/{name}/infer");
                            let got = within("an answer", rest.post(name, &path, b"{}")).await.unwrap();
                            (got.status != 200).then(|| got.text())
                        }
                    };
                    failures.extend(failure);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                (count, failures)
            });
        }
        Self { clients, stop, answered }
    }

    async fn progress(&self, requests: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + requests;
        until("requests are answered", || self.answered.load(Ordering::Relaxed) >= goal).await;
    }

    /// Requests, and what failed.
    async fn end(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut count, mut failures) = (0, Vec::new());
        while let Some(client) = within("clients end", self.clients.join_next()).await {
            let (requests, failed) = client.unwrap();
            count += requests;
            failures.extend(failed);
        }
        (count, failures)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_pods_lose_no_request() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let mut pods = Vec::new();
    for _ in 0..2 {
        let pod = Pod::start("m", 1).await;
        gateway.table.set_pod(pod.view.clone());
        pods.push(pod);
    }
    let load = Load::start(&gateway, "m");
    for _ in 0..10 {
        load.progress(200).await;
        // The cluster notices later.
        let killed = pods.remove(0);
        killed.kill().await;
        load.progress(50).await;
        gateway.table.set_pod(killed.not_ready());
        gateway.table.remove_pod("m", &killed.view.name);
        let pod = Pod::start("m", 1).await;
        gateway.table.set_pod(pod.view.clone());
        pods.push(pod);
    }
    let (count, failures) = load.end().await;
    assert!(count >= 2500);
    assert!(failures.is_empty(), "{} of {count}: {failures:?}", failures.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_pod_may_die_and_come_back_at_its_address() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let mut pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    let load = Load::start(&gateway, "m");
    for _ in 0..5 {
        load.progress(100).await;
        pod.kill().await;
        // Nobody has told the gateway; every client has a request that waits.
        until("requests wait", || gateway.table.held().get("m") == Some(&8)).await;
        let again = Pod::start_at("m", 1, pod.view.slots[0].1).await;
        pod = Pod { view: pod.view.clone(), ..again };
    }
    load.progress(100).await;
    let (count, failures) = load.end().await;
    assert!(failures.is_empty(), "{} of {count}: {failures:?}", failures.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_drain_lose_no_request() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let mut old = Pod::start("m", 1).await;
    gateway.table.set_pod(old.view.clone());
    let load = Load::start(&gateway, "m");
    for round in 0..10 {
        load.progress(200).await;
        let new = Pod::start("m", 1).await;
        gateway.table.set_pod(new.view.clone());
        // Sometimes the gateway hears of it only when the pod has gone.
        let late = round % 2 == 0;
        if !late {
            gateway.table.set_pod(old.not_ready());
        }
        old.stop(Duration::from_millis(10)).await;
        load.progress(20).await;
        gateway.table.remove_pod("m", &old.view.name);
        old = new;
    }
    let (count, failures) = load.end().await;
    assert!(failures.is_empty(), "{} of {count}: {failures:?}", failures.len());
}

fn refusal(
    grpc: bool,
) -> Response<http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>> {
    let mut response = Response::new(full(""));
    response.headers_mut().insert("retry-after", "1".parse().unwrap());
    if grpc {
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response.headers_mut().insert("grpc-status", "14".parse().unwrap());
    } else {
        *response.status_mut() = axum::http::StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

#[tokio::test]
async fn what_a_pod_refuses_before_it_runs_goes_to_another_twice_at_most() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let mut pods = Vec::new();
    for _ in 0..4 {
        let pod = Pod::start("m", 1).await;
        pod.answer(|seen| Some(refusal(seen.grpc)));
        gateway.table.set_pod(pod.view.clone());
        pods.push(pod);
    }
    let total = |pods: &[Pod]| pods.iter().map(Pod::arrived).sum::<usize>();
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await.status, 503);
    assert_eq!(total(&pods), 3);
    assert!(pods.iter().all(|pod| pod.arrived() <= 1), "each another");
    let got = Grpc::connect(gateway.address).await.call("m", INFER, &infer("m", "")).await;
    assert_eq!(got.grpc_status(), "14");
    assert_eq!(total(&pods), 6);
    // One that takes it is found.
    *pods[0].state.hook.lock().unwrap() = None;
    for pod in &pods[2..] {
        gateway.table.remove_pod("m", &pod.view.name);
    }
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await.status, 200);
}

#[tokio::test]
async fn no_more_requests_are_sent_again_than_the_deployments_budget_has() {
    /// The budget's floor, and more than time brings back while they break.
    const COUNT: usize = 512 + 400;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    for grpc in [false, true] {
        let gateway = gateway().await;
        let mut view = route("m", 1, &[(1, 100)]);
        view.limits.request_timeout_seconds = DEADLINE.as_secs() as i64;
        view.limits.queue_timeout_seconds = DEADLINE.as_secs() as i64;
        gateway.table.set_route(view);
        let pod = Pod::start("m", 1).await;
        pod.shut();
        gateway.table.set_pod(pod.view.clone());
        let (at, shared) = (gateway.address, Grpc::connect(gateway.address).await);
        let mut clients = JoinSet::new();
        for number in 0..COUNT {
            // The kernel drops connections that come faster than they are accepted.
            until("others have arrived", || pod.arrived() + 64 > number).await;
            let mut shared = shared.clone();
            clients.spawn(async move {
                match grpc {
                    false => rest(at, "m", "/v2/models/m/infer", b"{}").await,
                    true => shared.call("m", INFER, &infer("m", "")).await,
                }
            });
        }
        until("all are in flight", || pod.arrived() == COUNT).await;
        pod.kill().await;
        // Each has been sent once: its own limit would let all of them come.
        let again = Pod::start_at("m", 1, pod.view.slots[0].1).await;
        let mut refused = Vec::new();
        while let Some(got) = within("an answer", clients.join_next()).await {
            let got = got.unwrap();
            if got.status != 200 || !matches!(got.grpc_status().as_str(), "" | "0") {
                refused.push(got);
            }
        }
        assert!(!refused.is_empty() && again.arrived() >= 512, "gRPC: {grpc}, {}", again.arrived());
        assert_eq!(again.arrived() + refused.len(), COUNT);
        for got in refused {
            let (status, message) = match grpc {
                false => (got.status.to_string(), got.text()),
                true => (got.grpc_status(), format!("{:?}", got.headers["grpc-message"])),
            };
            assert_eq!(
                (status.as_str(), &got.headers["retry-after"]),
                (if grpc { "14" } else { "503" }, &"1".parse().unwrap())
            );
            assert!(message.contains("too many other requests"), "{message}");
        }
    }
}

#[tokio::test]
async fn an_error_of_the_model_is_not_tried_again() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let pod = Pod::start("m", 1).await;
    pod.answer(|_| {
        let mut response = Response::new(full("broken"));
        *response.status_mut() = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        Some(response)
    });
    gateway.table.set_pod(pod.view.clone());
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await.status, 500);
    assert_eq!(pod.arrived(), 1);
}

#[tokio::test]
async fn a_pod_that_does_not_answer_is_waited_for_until_the_deadline() {
    let gateway = gateway().await;
    let mut view = route("m", 1, &[(1, 100)]);
    view.limits.request_timeout_seconds = 3;
    gateway.table.set_route(view);
    let pod = Pod::start("m", 1).await;
    pod.shut();
    gateway.table.set_pod(pod.view.clone());
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await.status, 504);
    let mut request = call("m", INFER, framed(&infer("m", "")));
    request.headers_mut().insert("grpc-timeout", "2S".parse().unwrap());
    let got = within("an answer", Grpc::connect(gateway.address).await.send(request)).await.unwrap();
    assert_eq!(got.grpc_status(), "4");
    assert_eq!(pod.arrived(), 2, "nothing is sent twice that may still run");
}

#[tokio::test]
async fn a_pod_that_does_not_connect_holds_its_requests_up_once_not_each_in_turn() {
    /// Seconds, and more than the deadline, if each dialed for itself.
    const COUNT: usize = 200;
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let deaf = Deaf::start("m", 1).await;
    gateway.table.set_pod(deaf.view.clone());
    let grpc = Grpc::connect(gateway.address).await;
    let mut calls = JoinSet::new();
    for _ in 0..COUNT {
        let mut grpc = grpc.clone();
        calls.spawn(async move { grpc.call("m", INFER, &infer("m", "")).await });
    }
    // Those that are let out to try it again are 64.
    let held = || gateway.table.held().get("m").copied().unwrap_or(0);
    until("they wait for another pod", || held() > COUNT as u64 / 2).await;
    let pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    while let Some(got) = within("an answer", calls.join_next()).await {
        assert_eq!(got.unwrap().grpc_status(), "0");
    }
    assert_eq!(pod.arrived(), COUNT);
}

#[tokio::test]
async fn pods_that_do_not_connect_are_tried_no_longer_than_a_request_may_wait() {
    let gateway = gateway().await;
    let mut view = route("m", 1, &[(1, 100)]);
    view.limits.queue_timeout_seconds = 1;
    gateway.table.set_route(view);
    let pods = [Deaf::start("m", 1).await, Deaf::start("m", 1).await];
    pods.iter().for_each(|pod| gateway.table.set_pod(pod.view.clone()));
    // One after the other: there is always a pod that may be tried.
    let got = rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await;
    assert_eq!((got.status, &got.headers["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(got.text().contains("spec.traffic.queue.timeoutSeconds"), "{}", got.text());
    let mut grpc = Grpc::connect(gateway.address).await;
    assert_eq!(grpc.call("m", INFER, &infer("m", "")).await.grpc_status(), "14");
    let mut request = call("m", INFER, framed(&infer("m", "")));
    request.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    assert_eq!(within("an answer", grpc.send(request)).await.unwrap().grpc_status(), "4");
}

#[tokio::test]
async fn that_a_pod_does_not_connect_is_found_out_though_no_client_waits_for_it() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let deaf = Deaf::start("m", 1).await;
    gateway.table.set_pod(deaf.view.clone());
    let grpc = Grpc::connect(gateway.address).await;
    let clients = tokio::spawn(async move {
        loop {
            let mut grpc = grpc.clone();
            let request = call("m", INFER, framed(&infer("m", "")));
            let _ = tokio::time::timeout(Duration::from_millis(20), grpc.send(request)).await;
        }
    });
    until("one waits for another pod", || gateway.table.held().contains_key("m")).await;
    clients.abort();
}
