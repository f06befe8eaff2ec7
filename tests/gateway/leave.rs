//! The way out.

use std::time::Duration;

use modelwright::listen::{Patience, Phase};

use crate::support::*;

#[tokio::test]
async fn a_gateway_leaves_when_all_it_has_is_answered() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    gateway.table.set_route(route("held", 1, &[(1, 100)]));
    let pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    let at = gateway.address;
    let (mut grpc, mut kept) = (Grpc::connect(at).await, Rest::connect(at).await);
    assert_eq!(kept.post("m", "/v2/models/m/infer", b"{}").await.unwrap().status, 200);
    pod.shut();
    let mut running = grpc.clone();
    let running = tokio::spawn(async move { running.call("m", INFER, &infer("m", "")).await });
    until("it runs", || pod.arrived() == 2).await;
    let held = tokio::spawn(async move { rest(at, "held", "/v2/models/held/infer", b"{}").await });
    until("it waits", || gateway.table.held().get("held") == Some(&1)).await;

    gateway.phase.send(Phase::Draining).unwrap();
    assert_eq!(get(gateway.admin, "g", "/readyz").await.status, 503);
    // New ones are still taken, and told not to stay.
    assert_eq!(get(at, "x", "/healthz").await.headers["connection"], "close");
    let got = kept.send(post("x", "/v2/models/nobody/infer", b"{}")).await.unwrap();
    assert_eq!((got.status, got.headers["connection"].to_str().unwrap()), (404, "close"));
    assert_eq!(
        Grpc::connect(at)
            .await
            .call("x", "/inference.GRPCInferenceService/ServerLive", b"")
            .await
            .grpc_status(),
        "0"
    );
    within("GOAWAY", async {
        while grpc.send(call("x", "/inference.GRPCInferenceService/ServerLive", framed(b""))).await.is_ok() {}
    })
    .await;

    gateway.phase.send(Phase::Closing).unwrap();
    within("it accepts no more", async {
        while tokio::net::TcpStream::connect(at).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!gateway.serving.is_finished());
    pod.open();
    assert_eq!(within("the running one", running).await.unwrap().grpc_status(), "0");
    let late = Pod::start("held", 1).await;
    gateway.table.set_pod(late.view.clone());
    assert_eq!(within("the held one", held).await.unwrap().status, 200);
    within("it ends", gateway.serving).await.unwrap();
}

#[tokio::test]
async fn old_connections_are_asked_to_end() {
    let patience = Patience { age: Some(Duration::from_secs(1)), ..Patience::default() };
    let gateway = gateway_with(1 << 30, patience).await;
    let grpc = Grpc::connect(gateway.address).await;
    let mut first = grpc.clone();
    first.call("x", "/inference.GRPCInferenceService/ServerLive", b"").await;
    until("GOAWAY", || grpc.is_closed()).await;
    let mut rest = Rest::connect(gateway.address).await;
    within("an answer says so", async {
        while !rest.send(post("x", "/v2/nothing", b"")).await.unwrap().headers.contains_key("connection") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
