//! Requests that wait for a pod.

use std::sync::atomic::Ordering;

use modelwright::api::{RouteLimits, RouteMode};
use modelwright::gateway::RouteView;

use crate::support::*;

fn held(gateway: &Gateway, name: &str) -> u64 {
    gateway.table.held().get(name).copied().unwrap_or(0)
}

#[tokio::test]
async fn requests_wait_while_no_pod_is_ready_and_go_in_their_order() {
    const COUNT: usize = 150;
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let mut clients = Vec::new();
    for number in 0..COUNT {
        let at = gateway.address;
        clients.push(tokio::spawn(async move {
            rest(at, "m", "/v2/models/m/infer", number.to_string().as_bytes()).await
        }));
        until("the request waits", || held(&gateway, "m") == number as u64 + 1).await;
    }
    let pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    for client in clients {
        assert_eq!(within("an answer", client).await.unwrap().status, 200);
    }
    assert_eq!(held(&gateway, "m"), 0);
    // Connections race with each other, but only within what is let out at once.
    let order: Vec<usize> =
        pod.seen().iter().map(|seen| String::from_utf8_lossy(&seen.body).parse().unwrap()).collect();
    assert_eq!(order.len(), COUNT);
    for (place, number) in order.iter().enumerate() {
        assert!(number.abs_diff(place) <= 64, "{order:?}");
    }
}

#[tokio::test]
async fn a_route_that_holds_keeps_requests_though_pods_are_ready() {
    let gateway = gateway().await;
    let pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    gateway.table.set_route(RouteView { mode: RouteMode::Hold, ..route("m", 1, &[(1, 100)]) });
    let at = gateway.address;
    let client = tokio::spawn(async move { Grpc::connect(at).await.call("m", INFER, &infer("m", "")).await });
    until("the request waits", || held(&gateway, "m") == 1).await;
    assert_eq!(pod.arrived(), 0);
    gateway.table.set_route(route("m", 2, &[(1, 100)]));
    assert_eq!(within("an answer", client).await.unwrap().grpc_status(), "0");
}

#[tokio::test]
async fn every_bound_of_the_queue_is_named_when_it_is_reached() {
    let gateway = gateway().await;
    let limits = |change: fn(&mut RouteLimits)| {
        let mut limits = RouteLimits::default();
        change(&mut limits);
        limits
    };
    let set = |generation, mode, limits| {
        gateway.table.set_route(RouteView { mode, limits, ..route("m", generation, &[(1, 100)]) });
    };
    let at = gateway.address;
    let path = "/v2/models/m/infer";

    set(1, RouteMode::Forward, limits(|l| l.queue_requests = 1));
    let waits = tokio::spawn(async move { rest(at, "m", path, b"{}").await });
    until("the request waits", || held(&gateway, "m") == 1).await;
    let full = rest(at, "m", path, b"{}").await;
    assert_eq!(full.status, 503);
    assert!(full.text().contains("maxRequests"), "{}", full.text());
    assert_eq!(full.headers["retry-after"], "1");
    let full = Grpc::connect(at).await.call("m", INFER, &infer("m", "")).await;
    assert_eq!(full.grpc_status(), "14");
    assert_eq!(full.headers["retry-after"], "1");

    // Refusing, it refuses who waits too.
    set(2, RouteMode::Refuse, RouteLimits::default());
    let refused = within("an answer", waits).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("suspended"), "{}", refused.text());
    assert_eq!(rest(at, "m", path, b"{}").await.status, 503);

    set(3, RouteMode::Hold, limits(|l| l.queue_bytes = 10));
    let full = rest(at, "m", path, b"more than ten").await;
    assert!(full.text().contains("maxBytes"), "{}", full.text());

    set(4, RouteMode::Hold, limits(|l| l.queue_timeout_seconds = 0));
    let late = rest(at, "m", path, b"{}").await;
    assert_eq!(late.status, 503);
    assert!(late.text().contains("timeoutSeconds"), "{}", late.text());

    set(5, RouteMode::Hold, RouteLimits::default());
    let mut request = call("m", INFER, framed(&infer("m", "")));
    request.headers_mut().insert("grpc-timeout", "20m".parse().unwrap());
    let late = within("an answer", Grpc::connect(at).await.send(request)).await.unwrap();
    assert_eq!(late.grpc_status(), "4", "the client's own deadline");
    assert_eq!(held(&gateway, "m"), 0);
}

#[tokio::test]
async fn a_client_that_goes_leaves_the_queue() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let mut one = Rest::connect(gateway.address).await;
    let sending = one.post("m", "/v2/models/m/infer", b"{}");
    {
        let mut sending = std::pin::pin!(sending);
        within("the request waits", async {
            while held(&gateway, "m") == 0 {
                tokio::select! {
                    _ = &mut sending => panic!("answered by nobody"),
                    () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
                }
            }
        })
        .await;
    }
    drop(one);
    until("the queue is empty", || held(&gateway, "m") == 0).await;
    let mut grpc = Grpc::connect(gateway.address).await;
    let call = tokio::spawn(async move { grpc.call("m", INFER, &infer("m", "")).await });
    until("the call waits", || held(&gateway, "m") == 1).await;
    call.abort();
    until("the queue is empty", || held(&gateway, "m") == 0).await;
}

#[tokio::test]
async fn one_deployments_flood_does_not_starve_another() {
    let gateway = gateway().await;
    let limits = RouteLimits { queue_requests: 100, ..RouteLimits::default() };
    gateway.table.set_route(RouteView { limits, ..route("flooded", 1, &[(1, 100)]) });
    gateway.table.set_route(route("calm", 1, &[(1, 100)]));
    let (slow, calm) = (Pod::start("flooded", 1).await, Pod::start("calm", 1).await);
    slow.shut();
    gateway.table.set_pod(slow.view.clone());
    gateway.table.set_pod(calm.view.clone());
    let flood = Grpc::connect(gateway.address).await;
    let mut flooding = tokio::task::JoinSet::new();
    // Streams of one connection are bounded by HTTP/2 itself.
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(Grpc::connect(gateway.address).await);
    }
    for number in 0..3000 {
        let mut client = others.get(number % 4).unwrap_or(&flood).clone();
        flooding
            .spawn(async move { client.send(call("flooded", INFER, framed(&infer("flooded", "")))).await });
    }
    until("the queue of the flooded one is full", || held(&gateway, "flooded") == 100).await;
    for _ in 0..100 {
        assert_eq!(rest(gateway.address, "calm", "/v2/models/calm/infer", b"{}").await.status, 200);
    }
    assert!(slow.arrived() <= 2048);
    slow.open();
    let mut answered = 0;
    while let Some(got) = within("the flood is answered", flooding.join_next()).await {
        let got = got.unwrap().unwrap();
        assert!(["0", "14"].contains(&got.grpc_status().as_str()), "{got:?}");
        answered += usize::from(got.grpc_status() == "0");
    }
    assert!(answered >= 2048, "{answered}");
    assert_eq!(calm.state.arrived.load(Ordering::SeqCst), 100);
}

#[tokio::test]
async fn whether_a_model_is_ready_is_answered_without_a_wait() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let at = gateway.address;
    for path in ["/v2/models/m/ready", "/v2/models/m/versions/1/ready", "/v2/health/ready"] {
        assert_eq!(get(at, "m", path).await.status, 503, "{path}");
    }
    let mut grpc = Grpc::connect(at).await;
    let ask = |host: &'static str, method: &'static str, message: Vec<u8>| {
        let mut grpc = grpc.clone();
        async move { grpc.call(host, method, &message).await.body }
    };
    const READY: &str = "/inference.GRPCInferenceService/ModelReady";
    const HEALTH: &str = "/grpc.health.v1.Health/Check";
    assert_eq!(ask("m", READY, infer("m", "")).await, framed(&[]));
    assert_eq!(ask("m", HEALTH, Vec::new()).await, framed(&[8, 2]));
    assert_eq!(ask("x.y", HEALTH, vec![0x0a, 1, b'm']).await, framed(&[8, 2]));
    assert_eq!(ask("x.y", HEALTH, Vec::new()).await, framed(&[8, 1]), "the gateway itself");
    let pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    assert_eq!(get(at, "m", "/v2/health/ready").await.status, 200);
    assert_eq!(ask("m", HEALTH, Vec::new()).await, framed(&[8, 1]));
    assert_eq!(ask("m", READY, infer("m", "")).await, framed(b"r1"), "the pod answers");
    let _ = &mut grpc;
}

#[tokio::test]
async fn what_waits_and_runs_is_counted_once_as_demand() {
    const COUNT: u64 = 20;
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let demand = || gateway.table.demand().get("m").copied().unwrap_or_default();
    assert!(gateway.table.demand().is_empty(), "nobody has asked for anything");
    let mut clients = Vec::new();
    for number in 1..=COUNT {
        let at = gateway.address;
        clients.push(tokio::spawn(async move { rest(at, "m", "/v2/models/m/infer", b"{}").await }));
        until("the request waits", || held(&gateway, "m") == number).await;
    }
    assert_eq!((demand().arrivals, demand().in_flight), (COUNT, 0));
    until("time passes", || demand().request_seconds > 0.0).await;
    let pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    for client in clients {
        within("an answer", client).await.unwrap();
    }
    until("none runs", || demand().in_flight == 0).await;
    let ended = demand();
    assert_eq!(ended.arrivals, COUNT, "one that is let out does not arrive again");
    assert_eq!(demand().request_seconds, ended.request_seconds, "nobody is there");
}
