use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const DEADLINE: Duration = Duration::from_secs(300);
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
    let stream = opened(stream, Plain, phases.clone(), patience).await.unwrap();
    (client, tokio::spawn(connection(stream, app, phases, patience)), phase)
}

#[tokio::test]
async fn a_connection_that_does_not_ask_is_closed_whatever_it_has_sent() {
    let patience = Patience { headers: Duration::from_millis(50), stall: EVER, ..Patience::default() };
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
    let (mut client, served, _phase) =
        open(Patience { headers: EVER, stall: EVER, ..Patience::default() }).await;
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
    let patience = Patience { headers: EVER, stall: Duration::from_millis(100), ..Patience::default() };
    let (mut client, served, _phase) = open(patience).await;
    client.write_all(b"GET /large HTTP/1.1\r\nhost: m\r\n\r\n").await.unwrap();
    tokio::time::timeout(DEADLINE, served).await.expect("it is waited for").unwrap();
}

/// The client's half of HTTP/2, as far as a GET needs it: `GET path`, with `window` for its answer.
fn http2_get(path: &str, window: u32) -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: u8 = 4;
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let settings = [&[0, INITIAL_WINDOW_SIZE], &window.to_be_bytes()[..]].concat();
    // GET and http of HPACK's table, then :path and :authority by their places in it.
    let fields = [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes(), &[0x01, 1, b'm']].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [&preface[..], &frame(4, 0, 0, &settings), &frame(1, 5, 1, &fields)].concat()
}

#[tokio::test]
async fn a_client_that_keeps_its_window_shut_is_let_go() {
    // Before the server's pings, which this client leaves unanswered, end the connection after 50 s.
    const DEADLINE: Duration = Duration::from_secs(40);
    // A shut stream; a connection whose window ends within the answer, though its socket is read.
    for (path, window) in [("/small", 0), ("/large", i32::MAX as u32)] {
        let patience = Patience { headers: EVER, stall: Duration::from_millis(50), ..Patience::default() };
        let (mut client, served, _phase) = open(patience).await;
        client.write_all(&http2_get(path, window)).await.unwrap();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            let _ = client.read_to_end(&mut all).await;
        });
        tokio::time::timeout(DEADLINE, served).await.unwrap_or_else(|_| panic!("{path} is kept")).unwrap();
        tokio::time::timeout(DEADLINE, reading).await.expect("the connection is closed").unwrap();
    }
}

#[tokio::test]
async fn a_large_answer_over_http2_comes_whole() {
    let (client, _served, _phase) =
        open(Patience { headers: EVER, stall: EVER, ..Patience::default() }).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://m/large").body(Body::empty()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_LENGTH], (64 << 20).to_string());
    let bytes = axum::body::to_bytes(Body::new(answer.into_body()), usize::MAX).await.unwrap();
    assert_eq!(bytes.len(), 64 << 20);
}

#[tokio::test]
async fn a_connection_whose_age_passed_before_its_first_request_is_asked_to_end_too() {
    let age = Duration::from_millis(10);
    let patience = Patience { headers: EVER, stall: EVER, age: Some(age), ..Patience::default() };
    let (client, served, _phase) = open(patience).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    tokio::time::sleep(3 * age).await;
    let request = Request::get("http://m/small").body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    tokio::time::timeout(DEADLINE, served).await.expect("it is kept").unwrap();
}
