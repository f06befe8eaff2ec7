//! Compressed bodies. What a body may unpack to is bounded like any other, while it is unpacked.

use std::io::{self, Write};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::write::{GzDecoder, GzEncoder, ZlibDecoder, ZlibEncoder};

use crate::protocol::{Error, Kind};

/// HTTP's "deflate" is zlib's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    Deflate,
}

/// A smaller answer fits into a packet or two as it is.
const WORTHWHILE: usize = 1024;

impl Encoding {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "gzip" | "x-gzip" => Some(Encoding::Gzip),
            "deflate" => Some(Encoding::Deflate),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }

    /// How a request's body is packed; None: not at all.
    ///
    /// # Errors
    /// `Kind::UnsupportedMedia`
    pub fn of_request(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
        let name = String::from_utf8_lossy(value.as_bytes()).trim().to_lowercase();
        match Self::parse(&name) {
            _ if name == "identity" || name.is_empty() => Ok(None),
            Some(encoding) => Ok(Some(encoding)),
            None => Err(Error::new(
                Kind::UnsupportedMedia,
                format!("content-encoding {name} is not supported: send gzip, deflate, or the body as it is"),
            )),
        }
    }

    /// How an answer of `length` bytes is packed: the first of the client's wishes that is known.
    pub fn of_answer(headers: &HeaderMap, length: usize) -> Option<Self> {
        if length < WORTHWHILE {
            return None;
        }
        let wishes = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
        wishes.split(',').find_map(|wish| {
            let (name, weight) = wish.split_once(';').unwrap_or((wish, ""));
            let weight = weight.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
            Self::parse(name.trim()).filter(|_| weight != Some(0.0))
        })
    }

    /// Packs an answer, quickly rather than tightly: tensors hardly shrink, and the client waits.
    pub fn pack(self, body: &[u8]) -> io::Result<Bytes> {
        let (packed, level) = (Vec::with_capacity(body.len() / 2), flate2::Compression::fast());
        let packed = match self {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(packed, level);
                encoder.write_all(body)?;
                encoder.finish()?
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(packed, level);
                encoder.write_all(body)?;
                encoder.finish()?
            }
        };
        Ok(packed.into())
    }
}

/// Takes a packed body piece by piece.
pub struct Unpacker {
    encoding: Encoding,
    decoder: Decoder,
    limit: usize,
}

enum Decoder {
    Gzip(GzDecoder<Bounded>),
    Deflate(ZlibDecoder<Bounded>),
}

impl Unpacker {
    /// `limit`: bytes that the body may unpack to.
    pub fn new(encoding: Encoding, limit: usize) -> Self {
        let body = Bounded { body: Vec::new(), limit, is_full: false };
        let decoder = match encoding {
            Encoding::Gzip => Decoder::Gzip(GzDecoder::new(body)),
            Encoding::Deflate => Decoder::Deflate(ZlibDecoder::new(body)),
        };
        Self { encoding, decoder, limit }
    }

    pub fn push(&mut self, piece: &[u8]) -> Result<(), Error> {
        let written = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.write_all(piece),
            Decoder::Deflate(decoder) => decoder.write_all(piece),
        };
        written.map_err(|_| self.error())
    }

    /// The body, once all of it has come.
    pub fn finish(mut self) -> Result<Bytes, Error> {
        let finished = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.try_finish(),
            Decoder::Deflate(decoder) => decoder.try_finish(),
        };
        if finished.is_err() {
            return Err(self.error());
        }
        Ok(std::mem::take(&mut self.body().body).into())
    }

    /// Bytes so far.
    pub fn unpacked(&self) -> usize {
        match &self.decoder {
            Decoder::Gzip(decoder) => decoder.get_ref().body.len(),
            Decoder::Deflate(decoder) => decoder.get_ref().body.len(),
        }
    }

    fn body(&mut self) -> &mut Bounded {
        match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Deflate(decoder) => decoder.get_mut(),
        }
    }

    fn error(&mut self) -> Error {
        match self.body().is_full {
            true => Error::too_large(self.limit),
            false => {
                Error::invalid(format!("the body is not {}, as content-encoding says", self.encoding.name()))
            }
        }
    }
}

/// Grows to `limit` and no further.
struct Bounded {
    body: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.limit - self.body.len() {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.body.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
