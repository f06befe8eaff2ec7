//! The ledger itself: a server that behaves has clean books, and every way of misbehaving is noticed.

#[path = "mod.rs"]
mod ledger;
#[path = "../server_support/mod.rs"]
mod server_support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ledger::{Book, Entry, Load, Outcome, Pace, Target, Verdict, Way, digest, model};
use serde_json::json;
use server_support::{DEADLINE, Process, command, free_port, get, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn target(port: u16) -> Target {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Target { rest: address, grpc: address, host: "m.ledger.svc".into(), name: "m".into() }
}

/// As in a pod: the supervisor, and a model that was fetched before.
async fn serve(port: u16, version: i64) -> (Process, TempDir) {
    let folder = TempDir::new().unwrap();
    let (revision, path) = (format!("m-r{version}"), |name: &str| folder.path().join(name));
    std::fs::create_dir_all(path("status")).unwrap();
    std::fs::create_dir_all(path("revisions").join(&revision)).unwrap();
    std::fs::write(path("revisions").join(&revision).join("model.onnx"), model(version)).unwrap();
    let bytes = model(version).len();
    let status = json!({
        "formatVersion": 1, "phase": "Fetched", "modelFile": "model.onnx", "digest": digest(version),
        "bytes": bytes, "totalBytes": bytes, "seconds": 0.0,
    });
    std::fs::write(path("status").join(format!("{revision}.json")), status.to_string()).unwrap();
    let assignment = json!({
        "deployment": "m", "revision": revision, "modelVersion": version.to_string(), "port": port,
        "source": { "uri": "s3://ledger/model.onnx", "immutable": true, "files": [] },
    });
    let assignments = json!({ "formatVersion": 1, "assignments": [assignment] });
    std::fs::write(path("assignment"), assignments.to_string()).unwrap();
    let mut command = command();
    command.args(["supervise", "--drain-seconds=0", "--grace-seconds=5"]);
    command.arg(format!("--admin-port={}", free_port()));
    command.arg("--assignment").arg(path("assignment")).arg("--models").arg(folder.path());
    let process = Process { child: command.spawn().unwrap(), port };
    until("the model is ready", async || {
        matches!(get(port, "/v2/health/ready").await, Some((200, _))).then_some(())
    })
    .await;
    (process, folder)
}

/// Until so many requests have their outcome.
async fn answered(load: &Load, count: usize) {
    let started = Instant::now();
    while load.answered() < count {
        assert!(started.elapsed() < DEADLINE, "{} of {count} requests", load.answered());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_that_behaves_has_clean_books_by_both_protocols() {
    let (process, _folder) = serve(free_port(), 1).await;
    let load = Load::start(target(process.port), Pace::default());
    load.serves(1);
    answered(&load, 400).await;
    let verdict = load.stop();
    println!("{verdict}");
    assert!(verdict.is_clean() && verdict.retries == 0, "{verdict}");
    assert_eq!(verdict.answered.get("m-r1"), Some(&verdict.requests), "{verdict}");
    assert_eq!(verdict.ways.len(), 4, "{verdict}");
}

#[tokio::test]
async fn a_server_that_ends_loses_requests_and_an_undeclared_successor_is_noticed() {
    let port = free_port();
    let (mut process, _folder) = serve(port, 1).await;
    let load = Load::start(target(port), Pace { patience: Duration::from_secs(5), ..Pace::default() });
    load.serves(1);
    answered(&load, 40).await;
    process.signal("TERM");
    process.ended().await;
    let (_successor, _folder) = serve(port, 2).await;
    let before = load.answered();
    answered(&load, before + 200).await;
    let verdict = load.stop();
    assert!(!verdict.lost.is_empty() && !verdict.undeclared.is_empty(), "{verdict}");
    assert!(verdict.wrong.is_empty() && verdict.twice.is_empty(), "{verdict}");
}

/// A server that says the same to everybody.
async fn parrot(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while matches!(stream.read(&mut buffer).await, Ok(1..)) {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

async fn judged(answer: &'static str) -> Verdict {
    let pace = Pace { patience: Duration::from_secs(1), ..Pace::default() };
    let load = Load::start(target(parrot(answer).await), pace);
    load.serves(1);
    answered(&load, 40).await;
    load.stop()
}

#[tokio::test]
async fn an_error_is_a_lost_request_and_a_strange_answer_a_wrong_one() {
    let refused = judged("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy").await;
    assert_eq!(refused.lost.len(), refused.requests, "{refused}");
    assert!(refused.lost.iter().any(|line| line.contains("busy")), "{refused}");
    let other = judged(
        "HTTP/1.1 200 OK\r\ninference-header-content-length: 9\r\ncontent-length: 9\r\n\r\n{\"id\":\"\"}",
    )
    .await;
    assert!(!other.wrong.is_empty(), "{other}");
    let second =
        judged("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
    assert!(!second.twice.is_empty(), "{second}");
}

/// A version 1 from 10 s to 20 s, asked once.
fn asked(due: u64, done: u64, version: i64, revision: &str, digest: &str) -> Verdict {
    let mut book = Book::default();
    book.declare(1, Duration::from_secs(10));
    book.retire(1, Duration::from_secs(20));
    book.declare(2, Duration::from_secs(0));
    let (revision, digest) = (book.name(revision), book.name(digest));
    let (due, done) = (Duration::from_secs(due), Duration::from_secs(done));
    let outcome = Outcome::Answered { version, revision, digest };
    let entry = Entry { nonce: 1, way: Way::RestNew, due, done, outcome, retries: 0, resent: 0 };
    book.enter(entry);
    book.verdict()
}

#[test]
fn a_version_may_answer_what_was_on_its_way_while_it_was_declared() {
    for (due, done, right) in [(8, 9, false), (9, 10, true), (12, 15, true), (20, 30, true), (21, 22, false)]
    {
        let verdict = asked(due, done, 1, "m-r1", &digest(1));
        assert_eq!(verdict.is_clean(), right, "{due} to {done}: {verdict}");
        assert_eq!(verdict.undeclared.is_empty(), right, "{verdict}");
    }
}

#[test]
fn headers_must_name_the_version_that_the_numbers_tell() {
    assert_eq!(asked(12, 13, 2, "m-r2", &digest(1)).wrong.len(), 1);
    assert!(asked(12, 13, 2, "m-r2", &digest(2)).is_clean());
}
