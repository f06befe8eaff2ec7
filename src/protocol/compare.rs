//! How far two answers to one request are apart, output by output. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::metadata::Shape;
use super::{Datatype, Tensor, bfloat, bytes_elements, half};

/// Elements of one answer that are compared: what is beyond is not looked at.
pub const MAX_ELEMENTS: usize = 1 << 20;

/// Of one output. A string counts as equal, or as an error of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The largest |a - b|. Between infinity and anything else: `f64::MAX`, which JSON can carry.
    pub max_absolute: f64,
    /// The largest |a - b| / max(|a|, |b|), from 0 to 2: it has a value where one of them is zero.
    pub max_relative: f64,
    /// Of the whole output as one vector, -1 to 1.
    pub cosine: f64,
    /// Floats: rows of the last axis. Integers and strings: elements.
    pub rows: u64,
    /// Rows whose largest element is the same one; elements that are equal.
    pub agreeing: u64,
    /// Elements that are NaN on one side only. They count in no error.
    pub nan: u64,
}

impl Default for Difference {
    /// Nothing was compared, nothing differs.
    fn default() -> Self {
        Self { max_absolute: 0.0, max_relative: 0.0, cosine: 1.0, rows: 0, agreeing: 0, nan: 0 }
    }
}

/// Compares each output of `stable` with the one of its name in `candidate`. One that only the candidate has breaks
/// nobody. `elements`: that are looked at, of all outputs together.
///
/// # Errors
/// An output is missing, or has another datatype or shape: a sentence.
pub fn compare<'a>(
    stable: &'a [Tensor],
    candidate: &[Tensor],
    mut elements: usize,
) -> Result<Vec<(&'a str, Difference)>, String> {
    let mut found = Vec::with_capacity(stable.len());
    for a in stable {
        let name = &a.name;
        let b = candidate.iter().find(|b| b.name == *name);
        let b = b.ok_or_else(|| format!("output {name:?} is missing"))?;
        if (a.datatype, &a.shape) != (b.datatype, &b.shape) {
            return Err(format!(
                "output {name:?} is {} {} instead of {} {}",
                b.datatype,
                Shape(&b.shape),
                a.datatype,
                Shape(&a.shape)
            ));
        }
        if elements == 0 && !a.is_empty() {
            continue;
        }
        let row = a.shape.last().map_or(1, |row| usize::try_from(*row).unwrap_or(1)).max(1);
        let limit = elements.min(a.len());
        // Part of a row has no largest element.
        let limit = if limit > row { limit / row * row } else { limit };
        elements -= limit;
        found.push((name.as_str(), of_tensors(a, b, row, limit)));
    }
    Ok(found)
}

/// The first `limit` elements, in rows of `row`.
fn of_tensors(a: &Tensor, b: &Tensor, row: usize, limit: usize) -> Difference {
    let (x, y) = (a.data(), b.data());
    macro_rules! numbers {
        ($size:literal, $row:expr, $read:expr) => {{
            let (x, y) = (x.as_chunks::<$size>().0, y.as_chunks::<$size>().0);
            let pairs = x.iter().zip(y).take(limit).map(|(x, y)| {
                let read = $read;
                (f64::from(read(*x)), f64::from(read(*y)))
            });
            of_numbers(pairs, $row)
        }};
    }
    // Beyond 2^53 neighbours are one f64: the bytes tell whether they are equal.
    macro_rules! wide {
        ($type:ty) => {{
            let equal = |(x, y): &(&[u8; 8], &[u8; 8])| x == y;
            let (x8, y8) = (x.as_chunks::<8>().0, y.as_chunks::<8>().0);
            let agreeing = x8.iter().zip(y8).take(limit).filter(equal).count() as u64;
            Difference { agreeing, ..numbers!(8, None, |v| <$type>::from_le_bytes(v) as f64) }
        }};
    }
    match a.datatype {
        Datatype::Bytes => of_strings(bytes_elements(x).zip(bytes_elements(y)).take(limit)),
        Datatype::Fp16 => numbers!(2, Some(row), |v| half(u16::from_le_bytes(v))),
        Datatype::Bf16 => numbers!(2, Some(row), |v| bfloat(u16::from_le_bytes(v))),
        Datatype::Fp32 => numbers!(4, Some(row), f32::from_le_bytes),
        Datatype::Fp64 => numbers!(8, Some(row), f64::from_le_bytes),
        Datatype::Bool | Datatype::Uint8 => numbers!(1, None, u8::from_le_bytes),
        Datatype::Int8 => numbers!(1, None, i8::from_le_bytes),
        Datatype::Uint16 => numbers!(2, None, u16::from_le_bytes),
        Datatype::Int16 => numbers!(2, None, i16::from_le_bytes),
        Datatype::Uint32 => numbers!(4, None, u32::from_le_bytes),
        Datatype::Int32 => numbers!(4, None, i32::from_le_bytes),
        Datatype::Uint64 => wide!(u64),
        Datatype::Int64 => wide!(i64),
    }
}

/// `row`: elements among which the largest is looked for. None: each must be equal.
fn of_numbers(pairs: impl Iterator<Item = (f64, f64)> + Clone, row: Option<usize>) -> Difference {
    let mut found = Difference::default();
    // Squares of the largest floats are beyond what a float holds.
    let finite = |v: f64| if v.is_finite() { v.abs() } else { 0.0 };
    let scale = pairs.clone().fold(0.0, |largest: f64, (a, b)| largest.max(finite(a)).max(finite(b)));
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    let mut top = Top::default();
    for (index, (a, b)) in pairs.enumerate() {
        match row {
            None => {
                found.rows += 1;
                found.agreeing += u64::from(a == b);
            }
            Some(row) => {
                top.see(a, b);
                if (index + 1) % row == 0 {
                    found.rows += 1;
                    found.agreeing += u64::from(std::mem::take(&mut top).agrees());
                }
            }
        }
        if a.is_nan() != b.is_nan() {
            found.nan += 1;
            continue;
        }
        if a.is_nan() {
            continue;
        }
        if a != b {
            let absolute = (a - b).abs();
            let relative = absolute / a.abs().max(b.abs());
            found.max_absolute = found.max_absolute.max(absolute.min(f64::MAX));
            found.max_relative = found.max_relative.max(if relative.is_finite() { relative } else { 2.0 });
        }
        if a.is_finite() && b.is_finite() && scale > 0.0 {
            let (a, b) = (a / scale, b / scale);
            dot += a * b;
            aa += a * a;
            bb += b * b;
        }
    }
    found.cosine = match (aa > 0.0, bb > 0.0) {
        (true, true) => (dot / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0),
        // Two vectors of zeros point the same way, and one alone nowhere.
        (a, b) => f64::from(a == b),
    };
    found
}

/// The largest element of a row on each side. Elements that are equal are all the largest: the sides agree when one's
/// largest is among the other's.
#[derive(Default)]
struct Top {
    best: Option<(f64, f64)>,
    other: Option<(f64, f64)>,
    unlike: bool,
}

impl Top {
    fn see(&mut self, a: f64, b: f64) {
        self.unlike |= a.is_nan() != b.is_nan();
        if a.is_nan() || b.is_nan() {
            return;
        }
        if self.best.is_none_or(|(best, at)| a > best || a == best && b > at) {
            self.best = Some((a, b));
        }
        if self.other.is_none_or(|(best, at)| b > best || b == best && a > at) {
            self.other = Some((b, a));
        }
    }

    fn agrees(self) -> bool {
        let same = match (self.best, self.other) {
            (Some((a, its_b)), Some((b, its_a))) => its_b == b || its_a == a,
            _ => true,
        };
        same && !self.unlike
    }
}

fn of_strings<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Difference {
    let (mut rows, mut agreeing) = (0, 0);
    for (a, b) in pairs {
        rows += 1;
        agreeing += u64::from(a == b);
    }
    let error = f64::from(rows != agreeing);
    let cosine = if rows == 0 { 1.0 } else { agreeing as f64 / rows as f64 };
    Difference { max_absolute: error, max_relative: error, cosine, rows, agreeing, nan: 0 }
}

#[cfg(test)]
mod tests;
