//! HTTP/1 framing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{INFER, exchange, is_closed, post};
use crate::support::DEADLINE;
use crate::table::{LIMIT, Target, refuses};

const GOOD: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}"#;

fn head(lines: &str, body: &str) -> Vec<u8> {
    format!("POST {INFER} HTTP/1.1\r\nhost: m\r\n{lines}\r\n{body}").into_bytes()
}

fn chunked(chunks: &str) -> Vec<u8> {
    head("transfer-encoding: chunked\r\n", chunks)
}

#[tokio::test]
async fn bad_framing_is_refused() {
    let target = Target::new(&[]).await;
    let short =
        |body: &str| head(&format!("content-length: {}\r\nconnection: close\r\n", body.len() + 1), body);
    let length = |length: &str| head(&format!("content-length: {length}\r\n"), GOOD);
    let one_by_one: String = GOOD.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    let over = format!("{:x}\r\n{}\r\n0\r\n\r\n", LIMIT + 1, "1".repeat(LIMIT + 1));
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (
            "a length above the limit",
            length(&(LIMIT + 1).to_string()),
            413,
            "larger than the limit of 4194304 bytes",
        ),
        ("the largest length", length("18446744073709551615"), 431, ""),
        ("a length beyond 64 bits", length("18446744073709551616"), 400, ""),
        ("a negative length", length("-1"), 400, ""),
        ("a signed length", length("+70"), 400, ""),
        ("a hexadecimal length", length("0x46"), 400, ""),
        ("a list of lengths", length("70, 71"), 400, ""),
        ("no length at all", length(""), 400, ""),
        ("two lengths", head("content-length: 70\r\ncontent-length: 71\r\n", GOOD), 400, ""),
        ("a chunk's size that is a word", chunked("x\r\n\r\n"), 400, "the body ended early"),
        (
            "a chunk's size beyond 64 bits",
            chunked("fffffffffffffffff\r\nx\r\n0\r\n\r\n"),
            400,
            "the body ended early",
        ),
        ("a negative chunk", chunked("-1\r\nx\r\n0\r\n\r\n"), 400, "the body ended early"),
        ("a chunk longer than its size", chunked("1\r\nxyz\r\n0\r\n\r\n"), 400, "the body ended early"),
        ("chunks above the limit", chunked(&over), 413, "larger than the limit of 4194304 bytes"),
        (
            "64 KiB of chunk extensions",
            chunked(&format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(65_536))),
            400,
            "",
        ),
        (
            "64 KiB of trailers",
            chunked(&format!("1\r\nx\r\n0\r\nt: {}\r\n\r\n", "e".repeat(65_536))),
            400,
            "",
        ),
        ("chunks of an unknown coding", head("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400, ""),
        (
            "a coding that is not chunked last",
            head("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
            400,
            "",
        ),
        (
            "chunks in HTTP/1.0",
            b"POST /v2 HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            400,
            "",
        ),
        ("an honest body in chunks of one byte", chunked(&format!("{one_by_one}0\r\n\r\n")), 200, "outputs"),
        ("a body that is one byte short", short(GOOD), 400, "the body ended early"),
    ];
    refuses(&target, cases, async |port, request| {
        match request.windows(17).any(|w| w == b"connection: close") {
            true => half(port, request).await,
            false => exchange(port, request).await,
        }
    })
    .await;
}

/// Says that nothing more will come.
async fn half(port: u16, request: Vec<u8>) -> crate::table::Answer<u16> {
    let (reader, mut writer) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    writer.write_all(&request).await.unwrap();
    writer.shutdown().await.unwrap();
    crate::raw::read_answer(reader).await
}

#[tokio::test]
async fn bad_heads_are_refused() {
    let target = Target::new(&[]).await;
    let line = |line: &str| head(&format!("content-length: 0\r\n{line}\r\n"), "");
    let many: String = (0..200).map(|i| format!("h{i}: x\r\n")).collect();
    let first = |line: &str| format!("{line}\r\nhost: m\r\n\r\n").into_bytes();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("200 headers", line(&many), 431, ""),
        ("a header of 1 MiB", line(&format!("h: {}", "x".repeat(1 << 20))), 431, ""),
        ("a header's name of 100 kB", line(&format!("{}: x", "h".repeat(100_000))), 431, ""),
        ("a path of 100 kB", first(&format!("GET /{} HTTP/1.1", "x".repeat(100_000))), 414, ""),
        ("a header without a colon", line("hello"), 400, ""),
        ("a blank before the colon", line("h : x"), 400, ""),
        ("a header's name with a blank", line("h h: x"), 400, ""),
        ("a header without a name", line(": x"), 400, ""),
        ("a folded header", line("h: x\r\n y"), 400, ""),
        ("NUL in a header", line("h: \0"), 400, ""),
        ("a bare line break in a header", line("h: x\ry"), 400, ""),
        ("HTTP/3", first("GET /v2 HTTP/3.0"), 400, ""),
        ("no version", first("GET /v2"), 400, ""),
        ("a word", first("hello"), 400, ""),
        ("blanks", first("   "), 400, ""),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400, ""),
        ("a binary head", [&[0x80; 300][..], b"\r\n\r\n"].concat(), 400, ""),
        ("a path that is no path", first("GET v2 HTTP/1.1"), 404, "unknown path"),
        ("a path with NUL", first("GET /v2\0 HTTP/1.1"), 400, ""),
    ];
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}

/// Each chunk costs memory of its own if it is kept as it came.
#[tokio::test]
async fn a_body_of_very_many_chunks_costs_no_more_than_its_size() {
    // A million turns of code that is not optimised: on a busy machine more than the usual 30 s.
    let target = Target::new(&["--request-timeout-seconds", "600"]).await;
    let chunks = "1\r\n \r\n".repeat(1 << 20);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![(
        "1 Mi chunks of one byte",
        chunked(&format!("{chunks}0\r\n\r\n")),
        400,
        "the request is not JSON",
    )];
    refuses(&target, cases, async |port, request| exchange(port, request).await).await;
}

/// RFC 9112, 6.3: chunks win, and the connection ends, so that nobody in between can be made to see another request.
#[tokio::test]
async fn a_body_with_a_length_and_chunks_ends_the_connection() {
    let target = Target::new(&[]).await;
    for lines in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let (mut reader, mut writer) =
            TcpStream::connect(("127.0.0.1", target.port())).await.unwrap().into_split();
        let smuggled = "GET /metrics HTTP/1.1\r\nhost: m\r\n\r\n";
        let body = format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n{smuggled}", GOOD.len());
        writer.write_all(&head(lines, &body)).await.unwrap();
        let mut answers = Vec::new();
        let _ = reader.read_to_end(&mut answers).await;
        let answers = String::from_utf8(answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert!(answers.starts_with("HTTP/1.1 200 ") && answers.contains("connection: close"), "{answers}");
        assert!(is_closed(reader, Duration::ZERO).await);
    }
    assert!(target.answers().await);
}

#[tokio::test]
async fn clients_that_leave_early_cost_nothing() {
    let target = Target::new(&[]).await;
    let before = target.peak();
    for part in [1, 20, 60, 100] {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(("127.0.0.1", target.port())).await.unwrap();
            let request = post("", GOOD);
            stream.write_all(&request[..part]).await.unwrap();
        }
        assert!(target.answers().await, "after {part} bytes");
    }
    assert!(target.peak() - before < 64 << 20);
}

#[tokio::test]
async fn requests_that_follow_each_other_at_once_are_answered_in_order() {
    let target = Target::new(&[]).await;
    let requests: Vec<u8> =
        (0..100).flat_map(|i| post("", GOOD.replacen('{', &format!(r#"{{"id":"{i}","#), 1))).collect();
    let (mut reader, mut writer) =
        TcpStream::connect(("127.0.0.1", target.port())).await.unwrap().into_split();
    writer.write_all(&requests).await.unwrap();
    let mut answers = Vec::new();
    let read = async {
        while !answers.windows(9).any(|w| w == br#""id":"99""#) {
            assert!(reader.read_buf(&mut answers).await.unwrap() > 0, "closed too early");
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    let ids: Vec<usize> =
        answers.split(r#""id":""#).skip(1).map(|t| t.split('"').next().unwrap().parse().unwrap()).collect();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
}
