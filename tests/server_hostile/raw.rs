//! HTTP/1 as no client library would send it.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::DEADLINE;
use crate::table::Answer;

pub const INFER: &str = "/v2/models/m/infer";

/// A whole POST to the model.
pub fn post(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Writes the bytes, whatever is answered meanwhile, and reads one answer.
pub async fn exchange(port: u16, request: Vec<u8>) -> Answer<u16> {
    let (reader, mut writer) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    let writing = tokio::spawn(async move {
        // The server may well have closed before it has read everything.
        let _ = writer.write_all(&request).await;
        writer
    });
    let answer = read_answer(reader).await;
    writing.abort();
    answer
}

pub async fn read_answer(mut reader: impl AsyncReadExt + Unpin) -> Answer<u16> {
    let mut read = Vec::new();
    let whole = async {
        while answer_length(&read).is_none_or(|length| read.len() < length) {
            match reader.read_buf(&mut read).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
    };
    if tokio::time::timeout(DEADLINE, whole).await.is_err() {
        return Answer {
            status: 0,
            text: format!("no end after {DEADLINE:?}: {}", String::from_utf8_lossy(&read)),
        };
    }
    parse(&read)
}

fn split(read: &[u8]) -> Option<(&str, usize)> {
    let end = read.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&read[..end]).ok()?, end + 4))
}

fn answer_length(read: &[u8]) -> Option<usize> {
    let (head, body) = split(read)?;
    let length =
        head.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
    Some(body + length.unwrap_or(0))
}

fn parse(read: &[u8]) -> Answer<u16> {
    let Some((head, body)) = split(read) else { return Answer { status: 0, text: String::new() } };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let text = String::from_utf8_lossy(&read[body..]).into_owned();
    // Every sentence of ours is a document of the protocol.
    let text = match serde_json::from_str::<Value>(&text) {
        Ok(document) if status >= 400 => match document["error"].as_str() {
            Some(error) => error.to_string(),
            None => format!("no error document: {text}"),
        },
        Err(_) if status >= 400 && !text.is_empty() => format!("no error document: {text}"),
        _ => text,
    };
    Answer { status, text }
}

/// Whether the server closes the connection.
pub async fn is_closed(mut reader: impl AsyncReadExt + Unpin, within: Duration) -> bool {
    let end = async { while !matches!(reader.read(&mut [0; 4096]).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(within, end).await.is_ok()
}
