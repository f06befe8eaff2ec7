//! Protobuf's wire encoding (protobuf.dev/programming-guides/encoding) over a window of the file.

use super::MAX_READ;

/// After a jump over a payload the next header needs about a hundred bytes; sequential reads double up to `MAX_READ`.
const FIRST_STRIDE: usize = 512;

/// The bytes around the walk's position.
pub(super) struct Window {
    start: u64,
    bytes: Vec<u8>,
    stride: usize,
}

impl Window {
    pub fn new() -> Self {
        // Small models need one read.
        Self { start: 0, bytes: Vec::new(), stride: MAX_READ }
    }

    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// What is held from `pos` on; empty where nothing is.
    pub fn from(&self, pos: u64) -> &[u8] {
        let skip = pos.checked_sub(self.start).and_then(|n| usize::try_from(n).ok());
        skip.and_then(|n| self.bytes.get(n..)).unwrap_or_default()
    }

    /// Makes room and says which bytes are needed to go on at `pos`: offset and length.
    pub fn want(&mut self, pos: u64, size: u64) -> (u64, usize) {
        if (self.start..=self.end()).contains(&pos) {
            self.bytes.drain(..(pos - self.start) as usize);
        } else {
            self.bytes.clear();
            self.stride = FIRST_STRIDE;
        }
        self.start = pos;
        let left = size.saturating_sub(self.end());
        (self.end(), self.stride.min(usize::try_from(left).unwrap_or(MAX_READ)))
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.stride = (self.stride * 2).min(MAX_READ);
    }
}

pub(super) enum Varint {
    /// The value and the bytes that it took.
    Value(u64, usize),
    /// Needs more bytes.
    Short,
    /// More than 64 bits.
    Overflow,
}

pub(super) fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        if i == 9 && *byte > 1 {
            return Varint::Overflow;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Varint::Value(value, i + 1);
        }
    }
    if bytes.len() >= 10 { Varint::Overflow } else { Varint::Short }
}

/// One field: its number, what it holds, and where it ends.
pub(super) struct Item {
    pub number: u64,
    pub value: Value,
    /// Bytes of tag, length and number, before any content.
    pub header: u64,
}

pub(super) enum Value {
    Number(u64),
    /// 32 or 64 bits: already counted into the header.
    Fixed,
    /// Content of so many bytes follows.
    Bytes(u64),
}

/// `Ok(None)`: needs more bytes.
pub(super) fn item(bytes: &[u8]) -> Result<Option<Item>, &'static str> {
    let (tag, tag_len) = match varint(bytes) {
        Varint::Value(tag, len) => (tag, len),
        Varint::Short => return Ok(None),
        Varint::Overflow => return Err("a field's tag has more than 64 bits"),
    };
    let number = tag >> 3;
    if number == 0 || number > 0x1fff_ffff {
        return Err("a field has an impossible number");
    }
    let rest = &bytes[tag_len..];
    let (value, len) = match tag & 7 {
        1 => (Value::Fixed, 8),
        5 => (Value::Fixed, 4),
        wire @ (0 | 2) => match varint(rest) {
            Varint::Value(n, len) => (if wire == 0 { Value::Number(n) } else { Value::Bytes(n) }, len),
            Varint::Short => return Ok(None),
            Varint::Overflow => return Err("a number has more than 64 bits"),
        },
        3 | 4 => return Err("it holds a protobuf group, which ONNX has none of"),
        _ => return Err("a field has an impossible wire type"),
    };
    Ok(Some(Item { number, value, header: (tag_len + len) as u64 }))
}
