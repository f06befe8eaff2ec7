//! HTTP/2 as no client library would send it: each flood ends with the connection, and the server serves on.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::INFER;
use crate::support::DEADLINE;
use crate::table::{Answer, Target, refuses};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header fields in HPACK, each spelt out.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |t: &str| {
        // Lengths from 127 on go on in base 128.
        let mut coded = vec![t.len().min(127) as u8];
        if let Some(mut rest) = t.len().checked_sub(127) {
            while rest >= 128 {
                coded.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            coded.push(rest as u8);
        }
        coded.extend(t.as_bytes());
        coded
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn post() -> Vec<u8> {
    fields(&[(":method", "POST"), (":scheme", "http"), (":path", INFER), (":authority", "m")])
}

fn open(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &post())
}

fn repeat(count: u32, of: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|i| of(2 * i + 1)).collect()
}

/// The error code of the server's GOAWAY or RST_STREAM, and which it was; 99: it has read everything and goes on.
async fn exchange(port: u16, frames: Vec<u8>) -> Answer<u32> {
    talk(port, frames, PING).await
}

/// The same, of a request: waits for its answer.
async fn ask(port: u16, frames: Vec<u8>) -> Answer<u32> {
    talk(port, frames, HEADERS).await
}

async fn talk(port: u16, frames: Vec<u8>, last: u8) -> Answer<u32> {
    let (mut reader, mut writer) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    let request = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[]), frames].concat();
    // The last frame: its answer says that everything before was read.
    let request = [request, frame(PING, 0, 0, b"the last")].concat();
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&request).await;
        writer
    });
    let reading = async {
        loop {
            let mut head = [0; 9];
            if reader.read_exact(&mut head).await.is_err() {
                return Answer { status: 98, text: "closed".into() };
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if reader.read_exact(&mut payload).await.is_err() {
                return Answer { status: 98, text: "closed".into() };
            }
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match head[3] {
                GOAWAY => {
                    let text = format!("GOAWAY {}", String::from_utf8_lossy(&payload[8..]));
                    return Answer { status: code(4), text };
                }
                RST_STREAM => return Answer { status: code(0), text: "RST_STREAM".into() },
                kind if kind == last => return Answer { status: 99, text: "answered".into() },
                _ => {}
            }
        }
    };
    let answer = tokio::time::timeout(DEADLINE, reading).await;
    writing.abort();
    answer.unwrap_or(Answer { status: 97, text: format!("nothing within {DEADLINE:?}") })
}

#[tokio::test]
async fn floods_end_the_connection() {
    const CALM: u32 = 11;
    let target = Target::new(&[]).await;
    let reset = |stream| [open(stream, 0), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat();
    let broken = |stream| [open(stream, 0), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat();
    let continued = |piece: &[u8], count: u32| {
        [frame(HEADERS, 0, 1, &post()), repeat(count, |_| frame(CONTINUATION, 0, 1, piece))].concat()
    };
    let long = fields(&[("h", &"x".repeat(16_000))]);
    let cases: Vec<(&str, Vec<u8>, u32, &str)> = vec![
        ("rapid reset", repeat(20_000, reset), CALM, "GOAWAY"),
        ("streams that are made wrong", repeat(20_000, broken), 1, "GOAWAY"),
        ("endless CONTINUATION", continued(&long, 10_000), CALM, "GOAWAY"),
        ("endless empty CONTINUATION", continued(&[], 100_000), CALM, "GOAWAY"),
        ("empty DATA", [open(1, 0), repeat(100_000, |_| frame(DATA, 0, 1, &[]))].concat(), CALM, "GOAWAY"),
        (
            "DATA of one byte",
            [open(1, 0), repeat(1 << 20, |_| frame(DATA, 0, 1, b" "))].concat(),
            CALM,
            "GOAWAY",
        ),
        ("streams of headers alone", repeat(5_000, |stream| open(stream, 0)), 7, "RST_STREAM"),
        ("PING", repeat(100_000, |_| frame(PING, 0, 0, &[0; 8])), 99, ""),
        ("SETTINGS", repeat(100_000, |_| frame(SETTINGS, 0, 0, &[])), 99, ""),
        ("PRIORITY", repeat(100_000, |s| frame(PRIORITY, 0, s + 2, &[0, 0, 0, 1, 7])), 99, ""),
        ("WINDOW_UPDATE", repeat(30_000, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])), 99, ""),
    ];
    refuses(&target, cases, exchange).await;
}

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;

#[tokio::test]
async fn frames_against_the_protocol_end_the_connection() {
    const SIZE: u32 = 6;
    let target = Target::new(&[]).await;
    let heads = |payload: &[u8]| frame(HEADERS, END_HEADERS, 1, payload);
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let widest = window(0, i32::MAX as u32);
    let setting =
        |id: u16, value: u32| frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    let then = |frames: Vec<u8>| [open(1, 0), frames].concat();
    let elsewhere = [frame(HEADERS, 0, 1, &post()), frame(CONTINUATION, 0, 3, &[])].concat();
    let capitals = heads(&[post(), fields(&[("H", "x")])].concat());
    let cases: Vec<(&str, Vec<u8>, u32, &str)> = vec![
        ("DATA without a stream", frame(DATA, 0, 0, b"x"), PROTOCOL, "GOAWAY"),
        ("DATA of a stream that never was", frame(DATA, 0, 1, b"x"), PROTOCOL, "GOAWAY"),
        ("DATA after the end", [open(1, END_STREAM), frame(DATA, 0, 1, b"x")].concat(), PROTOCOL, "GOAWAY"),
        ("HEADERS without a stream", frame(HEADERS, END_HEADERS, 0, &post()), PROTOCOL, "GOAWAY"),
        ("an even stream", open(2, END_STREAM), PROTOCOL, "GOAWAY"),
        ("a stream that goes back", [open(5, 0), open(3, 0)].concat(), PROTOCOL, "GOAWAY"),
        ("a client's promise", then(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])), PROTOCOL, "GOAWAY"),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &post()), PROTOCOL, "GOAWAY"),
        ("CONTINUATION of another stream", elsewhere, PROTOCOL, "GOAWAY"),
        ("a frame of 1 MiB", then(frame(DATA, 0, 1, &vec![0; 1 << 20])), SIZE, "GOAWAY"),
        ("a PING of nine bytes", frame(PING, 0, 0, &[0; 9]), PROTOCOL, "GOAWAY"),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), PROTOCOL, "GOAWAY"),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, &[]), PROTOCOL, "GOAWAY"),
        ("a frame size above the allowed", setting(5, 1 << 24), PROTOCOL, "GOAWAY"),
        ("a window above the allowed", setting(4, 1 << 31), PROTOCOL, "GOAWAY"),
        ("a window over its end", [widest.clone(), widest].concat(), FLOW, "GOAWAY"),
        ("a window that grows by nothing", window(0, 0), PROTOCOL, "GOAWAY"),
        ("padding beyond the frame", then(frame(DATA, 8, 1, &[200, 0])), PROTOCOL, "GOAWAY"),
        ("broken HPACK", heads(&[0xff; 20]), PROTOCOL, "GOAWAY"),
        ("an unknown table entry", heads(&[0xfe]), PROTOCOL, "GOAWAY"),
        ("broken Huffman", heads(&[0, 0x81, 0, 0x84, 0xff, 0xff, 0xff, 0xff]), PROTOCOL, "GOAWAY"),
        ("a header in capitals", capitals, PROTOCOL, "GOAWAY"),
    ];
    refuses(&target, cases, exchange).await;
}

#[tokio::test]
async fn requests_against_the_protocol_end_their_stream() {
    let target = Target::new(&[]).await;
    let only = |list: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(list));
    let with = |field| frame(HEADERS, END_HEADERS | END_STREAM, 1, &[post(), fields(&[field])].concat());
    let window = frame(WINDOW_UPDATE, 0, 1, &i32::MAX.to_be_bytes());
    let announced = |length, data: &[u8]| {
        let head = frame(HEADERS, END_HEADERS, 1, &[post(), fields(&[("content-length", length)])].concat());
        [head, frame(DATA, END_STREAM, 1, data)].concat()
    };
    let late = [("h", "x"), (":method", "GET"), (":scheme", "http"), (":path", "/v2")];
    let cases: Vec<(&str, Vec<u8>, u32, &str)> = vec![
        ("a window over its end", [open(1, 0), window].concat(), FLOW, "RST_STREAM"),
        ("a connection header", with(("connection", "close")), PROTOCOL, "RST_STREAM"),
        ("chunks", with(("transfer-encoding", "chunked")), PROTOCOL, "RST_STREAM"),
        ("a status in a request", with((":status", "200")), PROTOCOL, "RST_STREAM"),
        ("no method", only(&[(":scheme", "http"), (":path", "/v2")]), PROTOCOL, "RST_STREAM"),
        ("no path", only(&[(":method", "GET"), (":scheme", "http")]), 99, "answered"),
        ("a pseudo-header after another", only(&late), PROTOCOL, "RST_STREAM"),
        ("less data than announced", announced("9", b"x"), PROTOCOL, "RST_STREAM"),
        ("more data than announced", announced("1", b"xxx"), PROTOCOL, "RST_STREAM"),
        ("16 kB of headers", with(("h", &"x".repeat(16_000))), 99, "answered"),
    ];
    refuses(&target, cases, ask).await;
}
