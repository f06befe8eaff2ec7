//! What is acknowledged holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::Request;
use bytes::Bytes;
use http_body_util::Full;
use modelwright::api::{DrainedPod, RouteMode};
use modelwright::gateway::RouteView;
use tokio::task::JoinSet;

use crate::support::*;

#[tokio::test]
async fn a_pod_that_is_drained_of_one_revision_gets_nothing_more_for_it() {
    let gateway = gateway().await;
    let (leaves, stays) = (Pod::start("m", 1).await, Pod::start("m", 1).await);
    gateway.table.set_pod(leaves.view.clone());
    gateway.table.set_pod(stays.view.clone());
    let pod = leaves.view.name.clone();
    let drained = |revision| Some(DrainedPod { pod: pod.clone(), revision });
    gateway.table.set_route(RouteView { drained: drained(1), ..route("m", 1, &[(1, 100)]) });
    let mut reports = Reports::open(gateway.admin).await;
    reports.applied("m", 1).await;
    let ask = || async { rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await };
    for _ in 0..20 {
        assert_eq!(within("an answer", ask()).await.status, 200);
    }
    assert_eq!((leaves.arrived(), stays.arrived()), (0, 20));

    // The last one: requests wait, until it serves what took the place.
    gateway.table.remove_pod("m", &stays.view.name);
    let at = gateway.address;
    let client = tokio::spawn(async move { rest(at, "m", "/v2/models/m/infer", b"{}").await });
    until("a request waits", || gateway.table.held().contains_key("m")).await;
    gateway.table.set_route(RouteView { drained: drained(2), ..route("m", 2, &[(1, 100)]) });
    assert_eq!(within("an answer", client).await.unwrap().status, 200);
    assert_eq!(leaves.arrived(), 1);
}

#[tokio::test]
async fn the_stream_tells_everything_first_and_then_what_changes() {
    let gateway = gateway().await;
    for name in ["a", "b"] {
        gateway.table.set_route(route(name, 3, &[(1, 100)]));
    }
    let mut reports = Reports::open(gateway.admin).await;
    let first = reports.next().await;
    assert_eq!(first.routes.len(), 2);
    assert_eq!((first.routes["a"].generation, first.routes["a"].uid.as_str()), (3, "route-a"));
    gateway.table.set_route(route("a", 4, &[(2, 100)]));
    let news = reports.next().await;
    assert_eq!((news.routes.len(), news.routes["a"].generation), (1, 4));
    // Older than what is known: a watch that began again.
    gateway.table.set_route(route("a", 3, &[(1, 100)]));
    gateway.table.remove_route("b");
    let news = reports.next().await;
    assert!(news.routes.is_empty());
    assert_eq!(news.removed, ["b"]);
    let at = gateway.address;
    let client = tokio::spawn(async move { rest(at, "a", "/v2/models/a/infer", b"{}").await });
    within("it waits", async { while reports.next().await.held.get("a") != Some(&1) {} }).await;
    gateway.table.set_pod(Pod::start("a", 2).await.view);
    within("it went on", async { while reports.next().await.held.get("a") != Some(&0) {} }).await;
    within("an answer", client).await.unwrap();
    // Without news there is a line too.
    assert!(reports.next().await.routes.is_empty());
}

#[tokio::test]
async fn readers_are_bounded() {
    let gateway = gateway().await;
    let mut readers = Vec::new();
    for _ in 0..16 {
        readers.push(Reports::open(gateway.admin).await);
    }
    assert_eq!(get(gateway.admin, "g", "/modelwright/v1/stream").await.status, 503);
    readers.pop();
    within("a place is free", async {
        loop {
            let stream = tokio::net::TcpStream::connect(gateway.admin).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let request =
                Request::get("/modelwright/v1/stream").header("host", "g").body(Full::<Bytes>::default());
            if sender.send_request(request.unwrap()).await.unwrap().status() == 200 {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// After the acknowledgement nothing is newly sent by the old route: not by new requests, not by retries, not from the
/// queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_route_gets_every_new_request() {
    const ROUNDS: i64 = 40;
    const CLIENTS: usize = 16;
    let gateway = gateway().await;
    let (old, new) = (Pod::start("m", 1).await, Pod::start("m", 2).await);
    gateway.table.set_pod(old.view.clone());
    gateway.table.set_pod(new.view.clone());
    gateway.table.set_route(route("m", 1, &[(1, 50), (2, 50)]));
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (at, stop) = (gateway.address, stop.clone());
        clients.spawn(async move {
            let (mut grpc, mut rest) = (Grpc::connect(at).await, Rest::connect(at).await);
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                if number % 2 == 0 {
                    assert_eq!(grpc.call("m", INFER, &infer("m", "")).await.grpc_status(), "0");
                } else {
                    let got = within("an answer", rest.post("m", "/v2/models/m/infer", b"{}")).await.unwrap();
                    assert_eq!(got.status, 200, "{}", got.text());
                }
            }
            count
        });
    }
    let mut reports = Reports::open(gateway.admin).await;
    for round in 0..ROUNDS {
        let generation = 2 + 3 * round;
        // Some wait when the traffic moves.
        if round % 2 == 0 {
            let both = route("m", generation, &[(1, 50), (2, 50)]);
            gateway.table.set_route(RouteView { mode: RouteMode::Hold, ..both });
            until("requests wait", || gateway.table.held().contains_key("m")).await;
        }
        // Some are sent again by then.
        if round % 4 == 1 {
            old.answer(|_| panic!("the connection breaks"));
            until("it has broken one", || gateway.table.held().contains_key("m") || old.arrived() > 0).await;
        }
        gateway.table.set_route(route("m", generation + 1, &[(2, 100)]));
        reports.applied("m", generation + 1).await;
        // What had been sent arrives, and is answered.
        until("nothing is in flight to the old pod", || {
            let metrics = gateway.table.metrics.render();
            !metrics
                .lines()
                .any(|line| line.contains("in_flight{") && line.contains("r1") && !line.ends_with(" 0"))
        })
        .await;
        let before = (old.arrived(), new.arrived());
        until("new requests come", || new.arrived() > before.1 + 50).await;
        // What a client had on a connection that broke may be read by the pod after the gateway has given it up.
        let broken = if round % 4 == 1 { CLIENTS } else { 0 };
        let late = old.arrived() - before.0;
        assert!(late <= broken, "round {round}: {late} after the acknowledgement");
        *old.state.hook.lock().unwrap() = None;
        gateway.table.set_route(route("m", generation + 2, &[(1, 50), (2, 50)]));
        let before = old.arrived();
        until("the old one gets requests", || old.arrived() > before).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    while let Some(client) = within("clients end", clients.join_next()).await {
        count += client.unwrap();
    }
    assert!(count > 2000, "{count}");
}

#[tokio::test]
async fn a_request_that_is_not_yet_sent_delays_the_acknowledgement() {
    let gateway = gateway().await;
    let pod = Pod::start("m", 1).await;
    pod.shut();
    gateway.table.set_pod(pod.view.clone());
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let at = gateway.address;
    let client = tokio::spawn(async move { rest(at, "m", "/v2/models/m/infer", b"{}").await });
    until("it has arrived", || pod.arrived() == 1).await;
    // In flight is sent: it may finish, and delays nothing.
    gateway.table.set_route(RouteView { mode: RouteMode::Hold, ..route("m", 2, &[(1, 100)]) });
    assert_eq!(gateway.table.applied()["m"].generation, 2);
    pod.open();
    assert_eq!(within("an answer", client).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_route_that_is_made_again_is_another() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 7, &[(1, 100)]));
    gateway.table.remove_route("m");
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await.status, 404);
    gateway.table.set_pod(Pod::start("m", 1).await.view);
    gateway.table.set_route(RouteView { uid: "another".into(), ..route("m", 1, &[(1, 100)]) });
    assert_eq!(gateway.table.applied()["m"].uid, "another");
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_before_its_answer_is_counted_and_gives_back_what_it_held() {
    let gateway = gateway().await;
    let pod = Pod::start("m", 1).await;
    pod.shut();
    gateway.table.set_pod(pod.view.clone());
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    for number in 1..=2 {
        let at = gateway.address;
        let client = tokio::spawn(async move {
            match number {
                1 => drop(rest(at, "m", "/v2/models/m/infer", b"{}").await),
                _ => drop(Grpc::connect(at).await.call("m", INFER, &infer("m", "")).await),
            }
        });
        until("it runs", || pod.arrived() == number).await;
        client.abort();
        let cancelled =
            format!(r#"requests_total{{deployment="m",revision="r1",code="cancelled"}} {number}"#);
        let idle = r#"upstream_in_flight{deployment="m",revision="r1"} 0"#;
        until("it is over", || {
            let text = gateway.table.metrics.render();
            text.contains(&cancelled) && text.contains(idle)
        })
        .await;
    }
}

#[tokio::test]
async fn metrics_name_deployments_and_revisions_that_have_a_route() {
    let gateway = gateway().await;
    gateway.table.set_pod(Pod::start("m", 1).await.view);
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    assert_eq!(rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await.status, 200);
    for name in ["x", "y", "z"] {
        rest(gateway.address, name, &format!("/v2/models/{name}/infer"), b"{}").await;
    }
    let text = get(gateway.admin, "g", "/metrics").await.text();
    let line = r#"modelwright_gateway_requests_total{deployment="m",revision="r1",code="2xx"} 1"#;
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains(r#"modelwright_gateway_refused_total{deployment="",reason="unknown"} 3"#),
        "{text}"
    );
    // Also where nothing is asked: who scales by it must tell that from a failure.
    assert!(text.contains(r#"modelwright_gateway_requests_in_flight{deployment="m"} 0"#), "{text}");
    assert!(!text.contains("\"x\""));
    gateway.table.set_route(route("m", 2, &[(2, 100)]));
    assert!(!get(gateway.admin, "g", "/metrics").await.text().contains("r1"));
    gateway.table.remove_route("m");
    assert!(!get(gateway.admin, "g", "/metrics").await.text().contains("\"m\""));
}

/// One pod with a worker a revision, each at a port of its own.
#[tokio::test]
async fn a_pod_that_serves_two_revisions_takes_the_shares_of_both_and_gives_one_up_without_loss() {
    let gateway = gateway().await;
    let (old, new) = (Pod::start("m", 1).await, Pod::start("m", 2).await);
    let both = modelwright::gateway::PodView {
        slots: [&old, &new].iter().flat_map(|pod| pod.view.slots.clone()).collect(),
        ..old.view.clone()
    };
    let serving = |slots: &[(i64, std::net::SocketAddr)]| modelwright::gateway::PodView {
        slots: slots.to_vec(),
        ..both.clone()
    };
    gateway.table.set_route(route("m", 1, &[(1, 50), (2, 50)]));
    // The candidate loads: its share is the other's.
    gateway.table.set_pod(serving(&both.slots[..1]));
    let at = gateway.address;
    for _ in 0..10 {
        assert_eq!(rest(at, "m", "/v2/models/m/infer", b"{}").await.text(), "r1");
    }
    gateway.table.set_pod(both.clone());
    let mut counts = [0i32, 0];
    for _ in 0..100 {
        match rest(at, "m", "/v2/models/m/infer", b"{}").await.text().as_str() {
            "r1" => counts[0] += 1,
            "r2" => counts[1] += 1,
            other => panic!("{other}"),
        }
    }
    assert!((counts[0] - counts[1]).abs() <= 2, "{counts:?}");
    assert_eq!(rest(at, "m", "/v2/models/m/versions/2/infer", b"{}").await.text(), "r2");

    // The candidate's worker dies: requests for its share go to the other one of the same pod.
    new.kill().await;
    for _ in 0..20 {
        let got = rest(at, "m", "/v2/models/m/infer", b"{}").await;
        assert_eq!((got.status, got.text().as_str()), (200, "r1"));
    }

    // Who keeps its place keeps its connections; what was in flight to the one that goes ends well.
    let new = Pod::start_at("m", 2, both.slots[1].1).await;
    new.shut();
    let client = tokio::spawn(async move { rest(at, "m", "/v2/models/m/versions/2/infer", b"{}").await });
    until("it is on its way", || new.arrived() == 1).await;
    gateway.table.set_route(route("m", 2, &[(1, 100)]));
    gateway.table.set_pod(serving(&both.slots[..1]));
    new.open();
    assert_eq!(within("an answer", client).await.unwrap().text(), "r2");
    assert_eq!(rest(at, "m", "/v2/models/m/versions/2/infer", b"{}").await.status, 404);
    assert_eq!(rest(at, "m", "/v2/models/m/infer", b"{}").await.text(), "r1");
}
