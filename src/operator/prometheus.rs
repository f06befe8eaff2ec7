//! Asks a Prometheus for one number.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::header::HOST;
use axum::http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::address::forbidden;

const ANSWER_LIMIT: usize = 1 << 20;
/// Of what a Prometheus says of an error.
const LONGEST: usize = 200;

/// The number that `query` gives now. `deadline`: from the name's resolution to the answer's end.
///
/// # Errors
/// Why there is none, for people.
pub async fn ask(
    address: &str,
    query: &str,
    deadline: Duration,
    allow_loopback: bool,
) -> Result<f64, String> {
    let asked = async {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, body) = get(address, &format!("/api/v1/query?query={encoded}"), allow_loopback).await?;
        read(status, &body)
    };
    let answer = match tokio::time::timeout(deadline, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{address} gave no answer within {deadline:?}")),
    };
    answer.map_err(|error| error.chars().take(LONGEST).collect())
}

async fn get(address: &str, path: &str, allow_loopback: bool) -> Result<(u16, Bytes), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{address}: {error}");
    let uri: Uri = format!("{}{path}", address.trim_end_matches('/')).parse().map_err(|e| failed(&e))?;
    let host = uri.host().ok_or_else(|| failed(&"no host"))?;
    let port = uri.port_u16().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((bare, port)).await.map_err(|e| failed(&e))?.collect();
    // A user's word, said to a process inside the cluster.
    if let Some(what) = found.iter().find_map(|found| forbidden(found.ip(), allow_loopback)) {
        return Err(failed(&format!("{what}, where no Prometheus may stand")));
    }
    let stream = TcpStream::connect(found.as_slice()).await.map_err(|e| failed(&e))?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    let host = uri.authority().map_or(host, |authority| authority.as_str());
    let target = uri.path_and_query().map_or(path, |target| target.as_str());
    let request = Request::get(target).header(HOST, host).body(Empty::new()).map_err(|e| failed(&e))?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await.map_err(|e| failed(&e))?;
        Ok((status, body.to_bytes()))
    };
    let (answer, connection) = (std::pin::pin!(answered), std::pin::pin!(connection));
    match futures::future::select(answer, connection).await {
        futures::future::Either::Left((answer, _)) => answer,
        // What it has read is in the answer.
        futures::future::Either::Right((_, answer)) => answer.await,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

fn read(status: u16, body: &[u8]) -> Result<f64, String> {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return Err(format!("HTTP status {status}, and not what Prometheus answers"));
    };
    let data = match (answer.data, answer.error) {
        (Some(data), _) if answer.status == "success" => data,
        (_, Some(error)) => return Err(error),
        _ => return Err(format!("HTTP status {status} without a result")),
    };
    let value = match (data.result_type.as_str(), data.result.as_array().map(Vec::as_slice)) {
        ("vector", Some([])) => return Err("the query finds nothing".into()),
        ("vector", Some([sample])) => &sample["value"][1],
        ("vector", Some(samples)) => {
            return Err(format!("the query gives {} series instead of one", samples.len()));
        }
        ("scalar", Some([_, value])) => value,
        (other, _) => return Err(format!("the query gives a {other} instead of a number")),
    };
    match value.as_str().and_then(|text| text.replace("Inf", "inf").parse::<f64>().ok()) {
        Some(number) if !number.is_nan() => Ok(number),
        Some(_) => Err("the query gives NaN".into()),
        None => Err("the query gives no number".into()),
    }
}

#[cfg(test)]
mod tests;
