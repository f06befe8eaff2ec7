//! What no honest client sends.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use modelwright::gateway::RouteView;
use modelwright::listen::Patience;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

fn small(name: &str) -> RouteView {
    let mut view = route(name, 1, &[(1, 100)]);
    view.limits.max_request_bytes = 1000;
    view
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(message: &[u8]) -> bytes::Bytes {
    let mut framed = framed(message).to_vec();
    framed[0] = 1;
    framed.into()
}

#[tokio::test]
async fn requests_above_the_limit_are_refused_by_both_protocols() {
    let gateway = gateway().await;
    gateway.table.set_route(small("m"));
    gateway.table.set_pod(Pod::start("m", 1).await.view);
    let at = gateway.address;
    assert_eq!(rest(at, "m", "/v2/models/m/infer", &[b' '; 1000]).await.status, 200);
    let got = rest(at, "m", "/v2/models/m/infer", &[b' '; 1001]).await;
    assert_eq!(got.status, 413);
    assert!(got.text().contains("1000"), "{}", got.text());
    let mut grpc = Grpc::connect(at).await;
    let mut message = infer("m", "");
    message.extend([0x3a, 0xb8, 0x07]);
    message.resize(1000, 0);
    for host in ["m", "x"] {
        let got = grpc.call(host, INFER, &[&message[..], &[0; 100]].concat()).await;
        assert_eq!(got.grpc_status(), "8", "{got:?}");
    }
}

#[tokio::test]
async fn damaged_messages_are_their_clients_fault() {
    let gateway = gateway().await;
    gateway.table.set_route(small("m"));
    let pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    let mut grpc = Grpc::connect(gateway.address).await;
    let bodies: [&[u8]; 7] = [
        b"",
        b"\0\0\0",
        b"\0\0\0\0\x09abc",
        b"\x07\0\0\0\0",
        b"\0\0\0\0\x02\x0a\x7f",
        b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\0\x03\x0a\x01\xff",
    ];
    for body in bodies {
        for host in ["m", "x"] {
            let request = call(host, INFER, bytes::Bytes::from_static(body));
            let got = within("an answer", grpc.send(request)).await.unwrap();
            assert_eq!(got.grpc_status(), "3", "{body:?} {got:?}");
        }
    }
    assert_eq!(pod.arrived(), 0);
}

#[tokio::test]
async fn compressed_messages_are_looked_into_within_bounds() {
    let gateway = gateway().await;
    gateway.table.set_route(small("m"));
    let pod = Pod::start("m", 1).await;
    gateway.table.set_pod(pod.view.clone());
    let mut grpc = Grpc::connect(gateway.address).await;
    let mut ask = async |encoding: &str, body: bytes::Bytes| {
        let mut request = call("x", INFER, body);
        request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        within("an answer", grpc.send(request)).await.unwrap().grpc_status()
    };
    assert_eq!(ask("gzip", packed(&gzip(&infer("m", "")))).await, "0");
    assert_eq!(ask("deflate", packed(&deflate(&infer("m", "")))).await, "0");
    assert_eq!(pod.arrived(), 2);
    let bomb = gzip(&vec![0; 500_000]);
    assert!(bomb.len() < 1000);
    assert_eq!(ask("gzip", packed(&bomb)).await, "8");
    assert_eq!(ask("gzip", packed(b"no gzip")).await, "3");
    assert_eq!(ask("zstd", packed(b"what")).await, "3");
    assert_eq!(pod.arrived(), 2);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let gateway = gateway().await;
    let mut view = small("m");
    view.limits.request_timeout_seconds = 1;
    gateway.table.set_route(view);
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    stream
        .write_all(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: 100\r\n\r\nhalf")
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    within("an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn absurd_hosts_and_paths_find_nothing() {
    let gateway = gateway().await;
    gateway.table.set_route(small("m"));
    let long = "m".repeat(4000);
    for host in ["", ".", "m..", "[::1]:80", "-", "%6d", "m%00", &long, "x.m"] {
        let got = rest(gateway.address, host, "/v2/models/nobody/infer", b"{}").await;
        assert!([400, 404].contains(&got.status), "{host}: {}", got.status);
    }
    for path in [
        "/v2/models/",
        "/v2/models//infer",
        "/v2/models/%6d/infer",
        "/v2/models/../m",
        "/v2/models/stats",
        "//",
    ] {
        assert_eq!(rest(gateway.address, "x", path, b"{}").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn bodies_of_one_deployment_and_of_all_are_bounded() {
    let gateway = gateway_with(1000, Patience::default()).await;
    for name in ["a", "b", "c"] {
        gateway.table.set_route(route(name, 1, &[(1, 100)]));
    }
    let at = gateway.address;
    let ask = |name: &'static str, bytes: usize| {
        tokio::spawn(
            async move { rest(at, name, &format!("/v2/models/{name}/infer"), &vec![b' '; bytes]).await },
        )
    };
    // Half of it is one deployment's at most.
    let _one = ask("a", 400);
    until("it waits", || gateway.table.held().get("a") == Some(&1)).await;
    assert_eq!(within("an answer", ask("a", 200)).await.unwrap().status, 503);
    let _two = ask("b", 400);
    until("it waits", || gateway.table.held().get("b") == Some(&1)).await;
    assert_eq!(within("an answer", ask("c", 300)).await.unwrap().status, 503);
    let _three = ask("c", 100);
    until("it waits", || gateway.table.held().get("c") == Some(&1)).await;
}
