//! The gRPC message of a request, as far as routing needs it: a walk over its top-level fields, which skips tensors.

use std::io::Read;

use axum::http::HeaderMap;
use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};

use crate::protocol::Error;

/// Flag and length.
const PREFIX: usize = 5;

/// Bytes of the prefix that every gRPC message has.
pub const fn framed(limit: usize) -> usize {
    limit.saturating_add(PREFIX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Deflate,
}

impl Compression {
    pub fn of(encoding: &[u8]) -> Option<Self> {
        match encoding {
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// What a compressed message is to be unpacked by.
    ///
    /// # Errors
    /// `Kind::Invalid`
    pub fn named(headers: &HeaderMap) -> Result<Self, Error> {
        headers.get("grpc-encoding").and_then(|v| Self::of(v.as_bytes())).ok_or_else(|| {
            Error::invalid("the message is compressed, and grpc-encoding does not say how: gzip or deflate")
        })
    }
}

/// The one message of a unary call, and whether it is compressed.
///
/// # Errors
/// `Kind::Invalid`: the body is not one message. `Kind::TooLarge`
pub fn unframed(body: &Bytes, limit: usize) -> Result<(bool, Bytes), Error> {
    let Some((&[flag, length @ ..], message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(Error::invalid("the call has no message"));
    };
    let announced = u32::from_be_bytes(length) as usize;
    if announced > limit {
        return Err(Error::too_large(limit));
    }
    if announced != message.len() {
        let came = message.len();
        return Err(Error::invalid(format!("the message announces {announced} bytes, and {came} came")));
    }
    if flag > 1 {
        return Err(Error::invalid(format!("the message has the unknown flag {flag}")));
    }
    Ok((flag == 1, body.slice(PREFIX..)))
}

/// Blocks for as long as `limit` bytes take.
///
/// # Errors
/// `Kind::Invalid`, `Kind::TooLarge`
pub fn unpacked(message: &[u8], compression: Compression, limit: usize) -> Result<Vec<u8>, Error> {
    let mut unpacked = Vec::new();
    let bound = limit as u64 + 1;
    let read = match compression {
        Compression::Gzip => GzDecoder::new(message).take(bound).read_to_end(&mut unpacked),
        Compression::Deflate => ZlibDecoder::new(message).take(bound).read_to_end(&mut unpacked),
    };
    read.map_err(|_| {
        Error::invalid(
            "the message can't be unpacked: it is damaged, or not compressed as grpc-encoding says",
        )
    })?;
    if unpacked.len() > limit {
        return Err(Error::too_large(limit));
    }
    Ok(unpacked)
}

/// The one message of a call that is small: at most `limit` bytes, unpacked too.
///
/// # Errors
/// `Kind::Invalid`, `Kind::TooLarge`
pub fn plain(headers: &HeaderMap, body: &Bytes, limit: usize) -> Result<Bytes, Error> {
    let (packed, message) = unframed(body, limit)?;
    if !packed {
        return Ok(message);
    }
    unpacked(&message, Compression::named(headers)?, limit).map(Bytes::from)
}

/// Fields 1 and 2 of a message, both strings: name and version in every request that names a model. The last one
/// counts, as everywhere in protobuf.
///
/// # Errors
/// `Kind::Invalid`: no protobuf.
pub fn name_and_version(message: &[u8]) -> Result<(&str, &str), Error> {
    let mut fields: [&str; 2] = ["", ""];
    let mut rest = message;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let (number, kind) = (tag >> 3, tag & 7);
        match kind {
            0 => drop(varint(&mut rest)?),
            1 => drop(bytes(&mut rest, 8)?),
            2 => {
                let length = varint(&mut rest)?;
                let value = bytes(&mut rest, length)?;
                let field = usize::try_from(number).ok().and_then(|n| fields.get_mut(n.wrapping_sub(1)));
                if let Some(field) = field {
                    *field = std::str::from_utf8(value)
                        .map_err(|_| Error::invalid("the model's name is not UTF-8"))?;
                }
            }
            5 => drop(bytes(&mut rest, 4)?),
            // Groups are not in these messages.
            _ => return Err(damaged()),
        }
        if number == 0 {
            return Err(damaged());
        }
    }
    let [name, version] = fields;
    Ok((name, version))
}

fn damaged() -> Error {
    Error::invalid("the message is no protobuf")
}

fn varint(rest: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or_else(damaged)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(damaged())
}

fn bytes<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Error> {
    let length = usize::try_from(length).map_err(|_| damaged())?;
    let (value, after) = rest.split_at_checked(length).ok_or_else(damaged)?;
    *rest = after;
    Ok(value)
}

/// A message with its prefix.
pub fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// A field of type string.
pub fn string(number: u8, value: &str, into: &mut Vec<u8>) {
    into.push(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        into.push(length as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
    into.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
mod tests;
