//! Clients that take their time.

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::Request;
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio_stream::StreamExt;

use crate::raw::{INFER, read_answer};
use crate::support::DEADLINE;
use crate::table::{LIMIT, Target, status_field};

async fn send(port: u16, part: &[u8]) -> (OwnedReadHalf, tokio::net::tcp::OwnedWriteHalf) {
    let (reader, mut writer) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    writer.write_all(part).await.unwrap();
    (reader, writer)
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_with_408() {
    // Long enough for the honest request in between.
    let target = Target::new(&["--request-timeout-seconds", "5"]).await;
    let mut open = Vec::new();
    for part in [
        format!("POST {INFER} HTTP/1.1\r\nhost: m\r\ncontent-length: 100\r\n\r\n{{"),
        format!("POST {INFER} HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{{"),
    ] {
        open.push(send(target.port(), part.as_bytes()).await);
    }
    assert!(target.answers().await);
    for (reader, _writer) in open {
        let answer = read_answer(reader).await;
        assert_eq!((answer.status, answer.text.as_str()), (408, "the body did not arrive in time"));
    }
    assert!(target.answers().await);
}

/// Bodies on their way cost what has come of them, not what they promise.
#[tokio::test]
async fn promises_cost_nothing() {
    let target = Target::new(&[]).await;
    let before = target.peak();
    let mut open = Vec::new();
    for _ in 0..500 {
        let head = format!("POST {INFER} HTTP/1.1\r\nhost: m\r\ncontent-length: 8000000\r\n\r\n{{");
        open.push(send(target.port(), head.as_bytes()).await);
    }
    assert!(target.answers().await);
    assert!(target.peak() - before < 64 << 20);
}

/// A stream of five bytes that announces the largest message: memory that is only reserved counts as well.
#[tokio::test]
async fn promises_of_grpc_reserve_nothing() {
    let target = Target::new(&[]).await;
    let reserved = || status_field(target.process.pid(), "VmData:");
    let before = reserved();
    let mut open = Vec::new();
    for _ in 0..200 {
        let stream = TcpStream::connect(("127.0.0.1", target.port())).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let prefix = [&[0][..], &(LIMIT as u32).to_be_bytes()].concat();
        let frames = tokio_stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from(prefix)))]);
        let body = StreamBody::new(frames.chain(tokio_stream::pending()));
        let request = Request::post("http://m/inference.GRPCInferenceService/ModelInfer");
        let request = request.header("content-type", "application/grpc").body(body).unwrap();
        open.push(tokio::spawn(async move { sender.send_request(request).await.map(|_| ()) }));
    }
    assert!(target.answers().await);
    assert!(open.iter().all(|call| !call.is_finished()), "they still send");
    let grown = reserved().saturating_sub(before) >> 20;
    assert!(grown < 64, "{grown} MiB for 1 kB");
}

/// One client that asks for large answers and reads none of them holds neither the model nor other clients.
#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let target = Target::new(&[]).await;
    let rows = 100_000;
    let body = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{rows},2],"data":[{}1]}}]}}"#,
        "1,".repeat(2 * rows - 1)
    );
    let request = format!("POST {INFER} HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(send(target.port(), request.as_bytes()).await);
    }
    assert!(target.answers().await);
}

#[tokio::test]
async fn connections_without_requests_leave_room_for_others() {
    let target = Target::new(&[]).await;
    let before = target.peak();
    let mut open = Vec::new();
    for _ in 0..1000 {
        open.push(TcpStream::connect(("127.0.0.1", target.port())).await.unwrap());
    }
    assert!(target.answers().await);
    assert!(target.peak() - before < 64 << 20);
    drop(open);
    tokio::time::timeout(DEADLINE, async { assert!(target.answers().await) }).await.unwrap();
}
