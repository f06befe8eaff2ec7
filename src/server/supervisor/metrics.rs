//! Several workers' metrics in one answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(2);
const SIZE_LIMIT: usize = 4 << 20;

/// A worker's `/metrics`; None: it does not answer (it is loading, or has just died).
pub(super) async fn fetch(port: u16) -> Option<String> {
    let read = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let connection = tokio::spawn(connection);
        let request =
            Request::get("/metrics").header("host", "localhost").body(Empty::<Bytes>::new()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let body = Limited::new(response.into_body(), SIZE_LIMIT).collect().await.ok()?.to_bytes();
        connection.abort();
        String::from_utf8(body.into()).ok()
    };
    tokio::time::timeout(DEADLINE, read).await.ok().flatten()
}

/// Puts each family's samples together, as the format demands. Samples differ by their `revision` label.
pub(super) fn merge(texts: &[String]) -> String {
    struct Family<'a> {
        name: &'a str,
        descriptions: Vec<&'a str>,
        samples: Vec<&'a str>,
    }
    let mut families: Vec<Family<'_>> = Vec::new();
    for text in texts {
        let mut current = None;
        for line in text.lines().filter(|line| *line != "# EOF" && !line.is_empty()) {
            let described = line.strip_prefix("# ").and_then(|rest| rest.split(' ').nth(1));
            if let Some(name) = described {
                let index = families.iter().position(|f| f.name == name).unwrap_or_else(|| {
                    families.push(Family { name, descriptions: Vec::new(), samples: Vec::new() });
                    families.len() - 1
                });
                let family = &mut families[index];
                if !family.descriptions.contains(&line) {
                    family.descriptions.push(line);
                }
                current = Some(index);
            } else if let Some(family) = current.and_then(|index| families.get_mut(index)) {
                family.samples.push(line);
            }
        }
    }
    let mut merged = String::new();
    for line in families.iter().flat_map(|f| f.descriptions.iter().chain(&f.samples)) {
        merged.push_str(line);
        merged.push('\n');
    }
    merged.push_str("# EOF\n");
    merged
}

#[cfg(test)]
mod tests;
