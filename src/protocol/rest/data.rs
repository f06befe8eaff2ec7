//! Tensor data in JSON, straight into the tensor's bytes: no document tree in between.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::protocol::tensor::owned;
use crate::protocol::{Datatype, MAX_RANK};

/// What a `data` array held.
pub(super) struct Parsed {
    pub bytes: Bytes,
    /// Lengths of the nested arrays, outermost first. One length: the data was flat.
    pub dims: Vec<usize>,
    pub count: usize,
}

/// Reads a `data` array of `datatype`; `hint` elements are expected (an upper bound that the caller trusts).
pub(super) struct DataSeed {
    pub datatype: Datatype,
    pub hint: usize,
}

impl<'de> DeserializeSeed<'de> for DataSeed {
    type Value = Parsed;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        macro_rules! numbers {
            ($type:ty) => {
                read(deserializer, Numbers::<$type>(Vec::with_capacity(self.hint)))
            };
        }
        match self.datatype {
            Datatype::Bool => read(deserializer, Booleans(Vec::with_capacity(self.hint))),
            Datatype::Uint8 => numbers!(u8),
            Datatype::Uint16 => numbers!(u16),
            Datatype::Uint32 => numbers!(u32),
            Datatype::Uint64 => numbers!(u64),
            Datatype::Int8 => numbers!(i8),
            Datatype::Int16 => numbers!(i16),
            Datatype::Int32 => numbers!(i32),
            Datatype::Int64 => numbers!(i64),
            Datatype::Fp32 => numbers!(f32),
            Datatype::Fp64 => numbers!(f64),
            Datatype::Bytes => read(deserializer, Text { data: Vec::new(), count: 0 }),
            Datatype::Fp16 | Datatype::Bf16 => Err(D::Error::custom(format_args!(
                "{} has no form in JSON: send it as binary data (binary_data_size)",
                self.datatype
            ))),
        }
    }
}

fn read<'de, D: Deserializer<'de>, S: Sink>(deserializer: D, mut sink: S) -> Result<Parsed, D::Error> {
    let mut levels = Levels { dims: Vec::new(), leaf_depth: None };
    deserializer.deserialize_seq(Nested { sink: &mut sink, levels: &mut levels, depth: 0 })?;
    let dims = levels.dims.into_iter().map(|d| d.unwrap_or(0)).collect();
    Ok(Parsed { count: sink.count(), bytes: sink.into_bytes(), dims })
}

/// Takes the elements of one datatype; false: this JSON value is none.
trait Sink {
    fn unsigned(&mut self, _: u64) -> bool {
        false
    }
    fn signed(&mut self, _: i64) -> bool {
        false
    }
    fn float(&mut self, _: f64) -> bool {
        false
    }
    fn boolean(&mut self, _: bool) -> bool {
        false
    }
    fn text(&mut self, _: &str) -> bool {
        false
    }
    fn expecting(&self) -> &'static str;
    fn count(&self) -> usize;
    fn into_bytes(self) -> Bytes;
}

struct Numbers<T>(Vec<T>);

macro_rules! integer {
    ($($type:ty => $name:literal),*) => {$(
        impl Sink for Numbers<$type> {
            fn unsigned(&mut self, v: u64) -> bool {
                <$type>::try_from(v).map(|v| self.0.push(v)).is_ok()
            }
            fn signed(&mut self, v: i64) -> bool {
                <$type>::try_from(v).map(|v| self.0.push(v)).is_ok()
            }
            fn expecting(&self) -> &'static str {
                concat!("an integer that fits ", $name)
            }
            fn count(&self) -> usize {
                self.0.len()
            }
            fn into_bytes(self) -> Bytes {
                owned(self.0)
            }
        }
    )*};
}
integer!(u8 => "UINT8", u16 => "UINT16", u32 => "UINT32", u64 => "UINT64");
integer!(i8 => "INT8", i16 => "INT16", i32 => "INT32", i64 => "INT64");

macro_rules! float {
    ($($type:ty => $name:literal),*) => {$(
        impl Sink for Numbers<$type> {
            fn unsigned(&mut self, v: u64) -> bool {
                self.0.push(v as $type);
                true
            }
            fn signed(&mut self, v: i64) -> bool {
                self.0.push(v as $type);
                true
            }
            fn float(&mut self, v: f64) -> bool {
                self.0.push(v as $type);
                (v as $type).is_finite()
            }
            fn expecting(&self) -> &'static str {
                concat!("a number that fits ", $name)
            }
            fn count(&self) -> usize {
                self.0.len()
            }
            fn into_bytes(self) -> Bytes {
                owned(self.0)
            }
        }
    )*};
}
float!(f32 => "FP32", f64 => "FP64");

struct Booleans(Vec<u8>);

impl Sink for Booleans {
    fn boolean(&mut self, v: bool) -> bool {
        self.0.push(v.into());
        true
    }
    fn expecting(&self) -> &'static str {
        "true or false"
    }
    fn count(&self) -> usize {
        self.0.len()
    }
    fn into_bytes(self) -> Bytes {
        owned(self.0)
    }
}

struct Text {
    data: Vec<u8>,
    count: usize,
}

impl Sink for Text {
    fn text(&mut self, v: &str) -> bool {
        let Ok(length) = u32::try_from(v.len()) else { return false };
        self.data.extend_from_slice(&length.to_le_bytes());
        self.data.extend_from_slice(v.as_bytes());
        self.count += 1;
        true
    }
    fn expecting(&self) -> &'static str {
        "a string"
    }
    fn count(&self) -> usize {
        self.count
    }
    fn into_bytes(self) -> Bytes {
        self.data.into()
    }
}

struct Levels {
    /// The length that every array of a level has; None until the first of them has ended.
    dims: Vec<Option<usize>>,
    leaf_depth: Option<usize>,
}

/// One array of the nest.
struct Nested<'a, S> {
    sink: &'a mut S,
    levels: &'a mut Levels,
    depth: usize,
}

impl<'de, S: Sink> DeserializeSeed<'de> for Nested<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<S: Sink> Nested<'_, S> {
    fn leaf<E: serde::de::Error>(self, taken: bool, what: impl fmt::Display) -> Result<(), E> {
        if !taken {
            return Err(E::custom(format_args!("{what} is not {}", self.sink.expecting())));
        }
        match self.levels.leaf_depth {
            None => self.levels.leaf_depth = Some(self.depth),
            Some(depth) if depth == self.depth => {}
            Some(_) => return Err(E::custom("the nested arrays are ragged")),
        }
        Ok(())
    }
}

impl<'de, S: Sink> Visitor<'de> for Nested<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.depth {
            0 => f.write_str("an array"),
            _ => write!(f, "{} or an array", self.sink.expecting()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.depth == MAX_RANK {
            return Err(A::Error::custom(format_args!("data is nested deeper than {MAX_RANK}")));
        }
        if self.levels.leaf_depth.is_some_and(|leaf| leaf <= self.depth) {
            return Err(A::Error::custom("the nested arrays are ragged"));
        }
        if self.levels.dims.len() == self.depth {
            self.levels.dims.push(None);
        }
        let depth = self.depth;
        let mut length = 0;
        while items
            .next_element_seed(Nested { sink: &mut *self.sink, levels: &mut *self.levels, depth: depth + 1 })?
            .is_some()
        {
            length += 1;
        }
        match &mut self.levels.dims[depth] {
            Some(other) if *other != length => Err(A::Error::custom("the nested arrays are ragged")),
            dim => {
                *dim = Some(length);
                Ok(())
            }
        }
    }

    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<(), E> {
        let taken = self.sink.boolean(v);
        self.leaf(taken, v)
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<(), E> {
        let taken = self.sink.unsigned(v);
        self.leaf(taken, v)
    }

    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<(), E> {
        let taken = self.sink.signed(v);
        self.leaf(taken, v)
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<(), E> {
        let taken = self.sink.float(v);
        self.leaf(taken, v)
    }

    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<(), E> {
        let taken = self.sink.text(v);
        self.leaf(taken, "a string")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.leaf(false, "null")
    }
}
