//! `InferTensorContents`: one typed list a datatype, several datatypes to a list.

use bytes::{BufMut, Bytes, BytesMut};

use super::proto::InferTensorContents;
use crate::protocol::tensor::owned;
use crate::protocol::{Datatype, Tensor, bytes_elements};

pub(super) fn is_empty(contents: &InferTensorContents) -> bool {
    lengths(contents).iter().all(|(_, length)| *length == 0)
}

fn lengths(c: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", c.bool_contents.len()),
        ("int_contents", c.int_contents.len()),
        ("int64_contents", c.int64_contents.len()),
        ("uint_contents", c.uint_contents.len()),
        ("uint64_contents", c.uint64_contents.len()),
        ("fp32_contents", c.fp32_contents.len()),
        ("fp64_contents", c.fp64_contents.len()),
        ("bytes_contents", c.bytes_contents.len()),
    ]
}

fn field(datatype: Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

/// The protocol's binary form of typed contents.
pub(super) fn decode(datatype: Datatype, contents: InferTensorContents) -> Result<Bytes, String> {
    let Some(wanted) = field(datatype) else {
        return Err(format!("{datatype} has no typed contents: send it in raw_input_contents"));
    };
    if let Some((other, _)) =
        lengths(&contents).into_iter().find(|(name, length)| *length > 0 && *name != wanted)
    {
        return Err(format!("{datatype} belongs into {wanted}, but {other} is filled"));
    }
    fn narrow<From: Copy + std::fmt::Display, To: TryFrom<From> + bytemuck::NoUninit + Send + 'static>(
        datatype: Datatype,
        values: &[From],
    ) -> Result<Bytes, String> {
        let mut narrowed = Vec::with_capacity(values.len());
        for value in values {
            narrowed.push(To::try_from(*value).map_err(|_| format!("{value} does not fit {datatype}"))?);
        }
        Ok(owned(narrowed))
    }
    match datatype {
        Datatype::Bool => Ok(contents.bool_contents.into_iter().map(u8::from).collect()),
        Datatype::Int8 => narrow::<i32, i8>(datatype, &contents.int_contents),
        Datatype::Int16 => narrow::<i32, i16>(datatype, &contents.int_contents),
        Datatype::Int32 => Ok(owned(contents.int_contents)),
        Datatype::Int64 => Ok(owned(contents.int64_contents)),
        Datatype::Uint8 => narrow::<u32, u8>(datatype, &contents.uint_contents),
        Datatype::Uint16 => narrow::<u32, u16>(datatype, &contents.uint_contents),
        Datatype::Uint32 => Ok(owned(contents.uint_contents)),
        Datatype::Uint64 => Ok(owned(contents.uint64_contents)),
        Datatype::Fp32 => Ok(owned(contents.fp32_contents)),
        Datatype::Fp64 => Ok(owned(contents.fp64_contents)),
        Datatype::Bytes => {
            let mut data = BytesMut::new();
            for element in contents.bytes_contents {
                let length = u32::try_from(element.len())
                    .map_err(|_| "an element is larger than 4 GiB".to_string())?;
                data.put_u32_le(length);
                data.extend_from_slice(&element);
            }
            Ok(data.freeze())
        }
        Datatype::Fp16 | Datatype::Bf16 => Ok(Bytes::new()), // `field` has refused them
    }
}

/// The typed form; empty for the half-precision types, which have none.
pub(super) fn encode(tensor: &Tensor) -> InferTensorContents {
    fn list<const N: usize, T>(data: &[u8], value: fn([u8; N]) -> T) -> Vec<T> {
        data.as_chunks::<N>().0.iter().map(|chunk| value(*chunk)).collect()
    }
    let data = tensor.data();
    let mut c = InferTensorContents::default();
    match tensor.datatype {
        Datatype::Bool => c.bool_contents = data.iter().map(|b| *b != 0).collect(),
        Datatype::Int8 => c.int_contents = list(data, |b| i8::from_le_bytes(b).into()),
        Datatype::Int16 => c.int_contents = list(data, |b| i16::from_le_bytes(b).into()),
        Datatype::Int32 => c.int_contents = list(data, i32::from_le_bytes),
        Datatype::Int64 => c.int64_contents = list(data, i64::from_le_bytes),
        Datatype::Uint8 => c.uint_contents = list(data, |b| u8::from_le_bytes(b).into()),
        Datatype::Uint16 => c.uint_contents = list(data, |b| u16::from_le_bytes(b).into()),
        Datatype::Uint32 => c.uint_contents = list(data, u32::from_le_bytes),
        Datatype::Uint64 => c.uint64_contents = list(data, u64::from_le_bytes),
        Datatype::Fp32 => c.fp32_contents = list(data, f32::from_le_bytes),
        Datatype::Fp64 => c.fp64_contents = list(data, f64::from_le_bytes),
        Datatype::Bytes => {
            c.bytes_contents = bytes_elements(data).map(|e| tensor.data().slice_ref(e)).collect()
        }
        Datatype::Fp16 | Datatype::Bf16 => {}
    }
    c
}
