use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than any deadline of a test.
const EVER: Duration = Duration::from_secs(3600);

/// The client's end of a connection that is served; the task ends when the server lets it go.
async fn open(patience: Patience) -> (TcpStream, tokio::task::JoinHandle<()>, watch::Sender<Phase>) {
    let large = || async { vec![0u8; 64 << 20] };
    let app = Router::new().route("/large", get(large)).route("/small", get(|| async { "ok" }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (phase, phases) = watch::channel(Phase::Serving);
    (client, tokio::spawn(connection(stream, app, phases, patience, ())), phase)
}

#[tokio::test]
async fn a_connection_that_does_not_ask_is_closed_whatever_it_has_sent() {
    let patience = Patience { headers: Duration::from_millis(50), stall: EVER };
    for part in
        ["", "P", "PRI * HTTP/2.0\r\n\r\nS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /small HTTP/1.1\r\nho"]
    {
        let (mut client, served, _phase) = open(patience).await;
        client.write_all(part.as_bytes()).await.unwrap();
        tokio::time::timeout(DEADLINE, served).await.unwrap_or_else(|_| panic!("{part:?} is kept")).unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_has_asked_is_kept_for_the_next_request() {
    let (mut client, served, _phase) = open(Patience { headers: EVER, stall: EVER }).await;
    for _ in 0..3 {
        client.write_all(b"GET /small HTTP/1.1\r\nhost: m\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
        }
    }
    assert!(!served.is_finished());
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_let_go() {
    let patience = Patience { headers: EVER, stall: Duration::from_millis(100) };
    let (mut client, served, _phase) = open(patience).await;
    client.write_all(b"GET /large HTTP/1.1\r\nhost: m\r\n\r\n").await.unwrap();
    tokio::time::timeout(DEADLINE, served).await.expect("it is waited for").unwrap();
}
