//! Inference over REST.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::compression::{Encoding, Unpacker};
use super::{Failure, Path, Target};
use crate::bodies::{Share, join, piece};
use crate::protocol::rest::{HEADER_LENGTH, decode, encode};
use crate::protocol::{Error, Kind};
use crate::server::metrics::{OK, Protocol};
use crate::server::model::Server;
use crate::server::queue::Deadline;

pub(super) async fn infer(
    State(server): State<Arc<Server>>,
    Path(target): Path<Target>,
    request: Request,
) -> Result<Response, Failure> {
    target.check(&server)?;
    let flight = server.metrics.begin(Protocol::Rest);
    let (head, body) = request.into_parts();
    let result = answer(&server, &head.headers, body, flight.started).await;
    flight.end(result.as_ref().map_or_else(|e| e.kind.outcome(), |_| OK));
    result.map_err(Failure)
}

async fn answer(
    server: &Server,
    headers: &HeaderMap,
    body: Body,
    started: Instant,
) -> Result<Response, Error> {
    check_media(headers)?;
    let header_length = header_length(headers)?;
    let mut share = server.bodies.share();
    let body = read(server, headers, body, &mut share).await?;

    let statistics = &server.metrics.statistics;
    let read = Instant::now();
    let mut request = decode(&body, header_length)?;
    drop(body);
    statistics.decoded(read.elapsed());

    let allowed = server.allowed(request.timeout);
    let response = server.infer(&mut request, Deadline::new(started, allowed)).await?;

    let ran = Instant::now();
    let encoded = encode(&response, &request)?;
    let kind = if encoded.header_length.is_some() { "application/octet-stream" } else { "application/json" };
    let packing = Encoding::of_answer(headers, encoded.body.len());
    let body = match packing {
        None => encoded.body,
        Some(packing) => packing
            .pack(&encoded.body)
            .map_err(|e| Error::new(Kind::Internal, format!("the answer can't be packed: {e}")))?,
    };
    statistics.encoded(ran.elapsed());
    let mut answer = ([(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(length) = encoded.header_length {
        answer.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    if let Some(packing) = packing {
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(packing.name()));
    }
    Ok(answer)
}

/// Refuses what is surely no request of this protocol. `curl -d` says it sends a form: that is let through.
fn check_media(headers: &HeaderMap) -> Result<(), Error> {
    const KNOWN: [&str; 4] =
        ["", "application/json", "application/octet-stream", "application/x-www-form-urlencoded"];
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = String::from_utf8_lossy(kind.as_bytes());
    let essence = kind.split(';').next().unwrap_or_default().trim();
    match KNOWN.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        true => Ok(()),
        false => Err(Error::new(
            Kind::UnsupportedMedia,
            format!("content-type {essence} is not supported: send application/json"),
        )),
    }
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let mut values = headers.get_all(HEADER_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid("Inference-Header-Content-Length is given twice"));
    }
    match value.to_str().ok().and_then(|text| text.trim().parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(Error::invalid("Inference-Header-Content-Length is not a number")),
    }
}

/// The whole body, unpacked, within the limits of size and time.
async fn read(server: &Server, headers: &HeaderMap, body: Body, share: &mut Share) -> Result<Bytes, Error> {
    let limit = server.max_request_bytes;
    let encoding = Encoding::of_request(headers)?;
    // Said in advance, it is refused before a byte is kept.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Error::too_large(limit));
    }
    let whole = async {
        match encoding {
            None => join(body, limit, share).await,
            Some(encoding) => unpack(encoding, body, limit, share).await,
        }
    };
    match tokio::time::timeout(server.request_timeout, whole).await {
        Ok(body) => body,
        Err(_) => Err(Error::new(Kind::SlowRequest, "the body did not arrive in time")),
    }
}

async fn unpack(encoding: Encoding, mut body: Body, limit: usize, share: &mut Share) -> Result<Bytes, Error> {
    let mut unpacker = Unpacker::new(encoding, limit);
    let (mut packed, mut unpacked) = (0, 0);
    while let Some(piece) = piece(&mut body).await? {
        packed += piece.len();
        // Blocks of nothing unpack to nothing, for ever.
        if packed > limit {
            return Err(Error::too_large(limit));
        }
        unpacker.push(&piece)?;
        share.take(unpacker.unpacked() - unpacked)?;
        unpacked = unpacker.unpacked();
    }
    unpacker.finish()
}
