//! Requests find their model, by either protocol.

use axum::http::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::support::*;

#[tokio::test]
async fn a_request_finds_its_model_by_host_path_or_message() {
    let gateway = gateway().await;
    let (fraud, other) = (Pod::start("fraud", 1).await, Pod::start("other", 4).await);
    gateway.table.set_route(route("fraud", 1, &[(1, 100)]));
    gateway.table.set_route(route("other", 1, &[(4, 100)]));
    gateway.table.set_pod(fraud.view.clone());
    gateway.table.set_pod(other.view.clone());
    let at = gateway.address;
    for host in [
        "fraud",
        "fraud.payments",
        "FRAUD.payments.svc.cluster.local",
        "fraud:80",
        "10.0.0.1:80",
        "x.example",
    ] {
        let got = rest(at, host, "/v2/models/fraud/infer", b"{}").await;
        assert_eq!((got.status, got.text().as_str()), (200, "r1"), "{host}");
        assert_eq!(got.headers["modelwright-revision"], "r1");
    }
    assert_eq!(get(at, "other", "/v2").await.text(), "r4");
    let mut grpc = Grpc::connect(at).await;
    for (host, name, revision) in
        [("fraud", "fraud", "r1"), ("10.0.0.1:9000", "other", "r4"), ("other", "", "r4")]
    {
        let got = grpc.call(host, INFER, &infer(name, "")).await;
        assert_eq!(got.grpc_status(), "0", "{got:?}");
        assert_eq!(got.body, framed(revision.as_bytes()), "{host} {name}");
    }
    let seen = fraud.seen();
    assert!(seen.iter().all(|seen| seen.headers.contains_key("x-request-id")));
}

#[tokio::test]
async fn host_and_request_must_agree() {
    let gateway = gateway().await;
    for name in ["fraud", "other"] {
        gateway.table.set_route(route(name, 1, &[(1, 100)]));
        gateway.table.set_pod(Pod::start(name, 1).await.view);
    }
    let at = gateway.address;
    let got = rest(at, "fraud", "/v2/models/other/infer", b"{}").await;
    assert_eq!(got.status, 404);
    assert!(got.text().contains("fraud") && got.text().contains("other"), "{}", got.text());
    assert!(!got.headers["x-request-id"].is_empty());
    let mut mine = post("x", "/v2/models/nobody/infer", b"{}");
    mine.headers_mut().insert("x-request-id", "mine".parse().unwrap());
    let got = within("an answer", Rest::connect(at).await.send(mine)).await.unwrap();
    assert_eq!((got.status, &got.headers["x-request-id"]), (404, &"mine".parse().unwrap()));
    assert_eq!(rest(at, "x", "/v2/models/nobody/infer", b"{}").await.status, 404);
    assert_eq!(rest(at, "x", "/v2/nothing", b"{}").await.status, 404);
    assert_eq!(get(at, "fraud", "/metrics").await.status, 404);
    let mut grpc = Grpc::connect(at).await;
    assert_eq!(grpc.call("fraud", INFER, &infer("other", "")).await.grpc_status(), "5");
    let got = grpc.call("x", INFER, &infer("nobody", "")).await;
    assert_eq!((got.grpc_status().as_str(), got.headers.contains_key("x-request-id")), ("5", true));
    assert_eq!(grpc.call("x", INFER, &infer("", "")).await.grpc_status(), "5");
    // The last name counts, wherever it stands.
    let twice = [infer("fraud", ""), infer("other", "")].concat();
    assert_eq!(grpc.call("fraud", INFER, &twice).await.grpc_status(), "5");
}

#[tokio::test]
async fn what_names_no_model_is_answered_by_the_gateway() {
    let gateway = gateway().await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    let at = gateway.address;
    for path in ["/", "/healthz", "/v2", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(at, "10.0.0.1", path).await.status, 200, "{path}");
    }
    let index = rest(at, "x", "/v2/repository/index", b"").await;
    assert_eq!(index.text(), r#"[{"name":"m","reason":"","state":"UNAVAILABLE"}]"#);
    let ready = rest(at, "x", "/v2/repository/index", br#"{"ready": true}"#).await;
    assert_eq!((ready.status, ready.text().as_str()), (200, "[]"));
    for bad in [&b"{"[..], b"[true]"] {
        assert_eq!(rest(at, "x", "/v2/repository/index", bad).await.status, 400);
    }
    let mut grpc = Grpc::connect(at).await;
    let service = "/inference.GRPCInferenceService/";
    for (method, answer) in [("ServerLive", &[8u8, 1][..]), ("ServerReady", &[8, 1])] {
        let got = grpc.call("x", &format!("{service}{method}"), b"").await;
        assert_eq!((got.grpc_status().as_str(), got.body), ("0", framed(answer)), "{method}");
    }
    let metadata = grpc.call("x", &format!("{service}ServerMetadata"), b"").await;
    assert!(metadata.text().contains("modelwright-gateway"));
    let index = grpc.call("x", &format!("{service}RepositoryIndex"), b"").await;
    assert!(index.text().contains("UNAVAILABLE"));
    // ready = 2
    let ready = grpc.call("x", &format!("{service}RepositoryIndex"), &[0x10, 1]).await;
    assert_eq!((ready.grpc_status().as_str(), ready.body), ("0", framed(&[])));
    let stream = grpc.call("m", &format!("{service}ModelStreamInfer"), b"").await;
    assert_eq!(stream.grpc_status(), "12");
}

#[tokio::test]
async fn requests_are_split_by_weight_and_a_version_is_a_revision() {
    let gateway = gateway().await;
    let pods = [Pod::start("m", 1).await, Pod::start("m", 2).await, Pod::start("m", 3).await];
    for pod in &pods {
        gateway.table.set_pod(pod.view.clone());
    }
    gateway.table.set_route(route("m", 1, &[(1, 90), (2, 10), (3, 0)]));
    let mut client = Rest::connect(gateway.address).await;
    for _ in 0..200 {
        assert_eq!(client.post("m", "/v2/models/m/infer", b"{}").await.unwrap().status, 200);
    }
    let counts = pods.each_ref().map(Pod::arrived);
    assert!(counts[0].abs_diff(180) <= 2 && counts[1].abs_diff(20) <= 2 && counts[2] == 0, "{counts:?}");
    for (version, status, text) in
        [("3", 200, "r3"), ("1", 200, "r1"), ("4", 404, "no version"), ("x", 404, "no version")]
    {
        let got = client.post("m", &format!("/v2/models/m/versions/{version}/infer"), b"{}").await.unwrap();
        assert_eq!(got.status, status, "{version}");
        assert!(got.text().contains(text), "{}", got.text());
    }
    let mut grpc = Grpc::connect(gateway.address).await;
    assert_eq!(grpc.call("m", INFER, &infer("m", "2")).await.body, framed(b"r2"));
    assert_eq!(grpc.call("m", INFER, &infer("m", "9")).await.grpc_status(), "5");
    // A revision without a ready pod leaves its share to the others.
    gateway.table.set_pod(pods[0].not_ready());
    let before = pods[0].arrived();
    for _ in 0..20 {
        assert_eq!(client.post("m", "/v2/models/m/infer", b"{}").await.unwrap().text(), "r2");
    }
    assert_eq!(pods[0].arrived(), before);
}

#[tokio::test]
async fn the_less_busy_pod_is_chosen() {
    let gateway = gateway().await;
    let (busy, idle) = (Pod::start("m", 1).await, Pod::start("m", 1).await);
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    gateway.table.set_pod(busy.view.clone());
    busy.shut();
    let mut grpc = Grpc::connect(gateway.address).await;
    let mut waiting = grpc.clone();
    let first = tokio::spawn(async move { waiting.call("m", INFER, &infer("m", "")).await });
    until("it has arrived", || busy.arrived() == 1).await;
    gateway.table.set_pod(idle.view.clone());
    for _ in 0..20 {
        assert_eq!(grpc.call("m", INFER, &infer("m", "")).await.grpc_status(), "0");
    }
    assert_eq!((busy.arrived(), idle.arrived()), (1, 20));
    busy.open();
    within("the first", first).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_says_its_queue_is_deep_is_left_to_its_requests_in_flight() {
    for grpc in [false, true] {
        let gateway = gateway().await;
        let (deep, other) = (Pod::start("m", 1).await, Pod::start("m", 1).await);
        gateway.table.set_route(route("m", 1, &[(1, 100)]));
        let at = gateway.address;
        let asked = move || async move {
            match grpc {
                false => rest(at, "m", "/v2/models/m/infer", b"{}").await,
                true => Grpc::connect(at).await.call("m", INFER, &infer("m", "")).await,
            }
        };
        // Each has one in flight: by these alone they are equal, and what a pod said counts until its last has ended.
        let mut waiting = Vec::new();
        for pod in [&deep, &other] {
            pod.shut();
            gateway.table.set_pod(pod.view.clone());
            waiting.push(tokio::spawn(asked()));
            until("it has arrived", || pod.arrived() == 1).await;
        }
        for (pod, depth) in [(&deep, 50), (&other, 0)] {
            pod.answer(move |seen| {
                let mut response = Response::new(if seen.grpc { grpc_body(b"") } else { full("{}") });
                response.headers_mut().insert("modelwright-queue", depth.into());
                Some(response)
            });
        }
        within("chance names the deep one", async {
            while deep.arrived() == 1 {
                asked().await;
            }
        })
        .await;
        let before = other.arrived();
        for _ in 0..20 {
            asked().await;
        }
        assert_eq!((deep.arrived(), other.arrived()), (2, before + 20), "gRPC: {grpc}");
        // Nothing tells when the queue has become shorter.
        deep.open();
        let first = waiting.remove(0);
        within("the first", first).await.unwrap();
        within("it is chosen again", async {
            while deep.arrived() == 2 {
                asked().await;
            }
        })
        .await;
        waiting.remove(0).abort();
    }
}

#[tokio::test]
async fn headers_of_the_connection_stay_and_the_others_pass() {
    let gateway = gateway().await;
    let pod = Pod::start("m", 1).await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    gateway.table.set_pod(pod.view.clone());
    let mut request = post("m.ns", "/v2/models/m/infer?x=1", b"{}");
    let given = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=b"),
        ("x-request-id", "mine"),
        ("connection", "x-hop, host"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
    ];
    for (name, value) in given {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    pod.answer(|_| {
        let mut response = Response::new(full("{}"));
        response.headers_mut().insert("modelwright-digest", "sha256:1".parse().unwrap());
        response.headers_mut().insert("keep-alive", "timeout=5".parse().unwrap());
        Some(response)
    });
    let got = within("an answer", Rest::connect(gateway.address).await.send(request)).await.unwrap();
    assert_eq!(got.headers["modelwright-digest"], "sha256:1");
    assert!(!got.headers.contains_key("keep-alive"));
    let seen = pod.seen().remove(0);
    assert_eq!(seen.headers["traceparent"], given[0].1);
    assert_eq!(seen.headers["tracestate"], "a=b");
    assert_eq!(seen.headers["x-request-id"], "mine");
    assert_eq!(seen.headers["host"], "m.ns");
    assert!(!seen.headers.contains_key("x-hop") && !seen.headers.contains_key("keep-alive"), "{seen:?}");
}

#[tokio::test]
async fn metadata_of_a_call_reaches_the_pod_and_its_own_comes_back() {
    let gateway = gateway().await;
    let pod = Pod::start("m", 1).await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    gateway.table.set_pod(pod.view.clone());
    let mut request = call("m.ns", INFER, framed(&infer("m", "")));
    let given = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=b"),
        ("x-request-id", "mine"),
    ];
    for (name, value) in given {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    pod.answer(|seen| {
        let mut response = Response::new(grpc_body(b"r1"));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response.headers_mut().insert("x-request-id", seen.headers["x-request-id"].clone());
        Some(response)
    });
    let mut grpc = Grpc::connect(gateway.address).await;
    let got = within("an answer", grpc.send(request)).await.unwrap();
    assert_eq!((got.grpc_status().as_str(), &got.headers["x-request-id"]), ("0", &"mine".parse().unwrap()));
    // One that has none is given its own, and no trace is made up.
    let got = grpc.call("m", INFER, &infer("m", "")).await;
    let seen = pod.seen();
    for (name, value) in given {
        assert_eq!(seen[0].headers[name], value, "{name}");
    }
    assert_eq!((&seen[0].headers["te"], seen[0].grpc), (&"trailers".parse().unwrap(), true));
    assert_eq!(got.headers["x-request-id"], seen[1].headers["x-request-id"]);
    assert_ne!(got.headers["x-request-id"], "mine");
    assert!(!seen[1].headers.contains_key("traceparent"), "{:?}", seen[1]);
}

#[tokio::test]
async fn an_answer_in_chunks_is_whole_when_its_last_has_come() {
    let gateway = gateway().await;
    let pod = Pod::start("m", 1).await;
    gateway.table.set_route(route("m", 1, &[(1, 100)]));
    gateway.table.set_pod(pod.view.clone());
    pod.answer(|_| {
        let chunks = ["{", "}"].map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
        Some(Response::new(StreamBody::new(futures::stream::iter(chunks)).boxed()))
    });
    for _ in 0..3 {
        let got = rest(gateway.address, "m", "/v2/models/m/infer", b"{}").await;
        assert_eq!(
            (got.headers["transfer-encoding"].to_str().unwrap(), got.text().as_str()),
            ("chunked", "{}")
        );
    }
    let metrics = get(gateway.admin, "g", "/metrics").await.text();
    assert!(metrics.contains(r#"code="2xx"} 3"#), "{metrics}");
}
