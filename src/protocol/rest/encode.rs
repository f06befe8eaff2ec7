use std::io::Write;

use bytes::Bytes;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::protocol::{Datatype, Error, InferRequest, InferResponse, Tensor, bytes_elements};

/// A response body.
pub struct Encoded {
    pub body: Bytes,
    /// The value of `Inference-Header-Content-Length`; None: the body is JSON alone.
    pub header_length: Option<usize>,
}

/// Writes a response in the form that `request` asks for.
///
/// # Errors
/// `Kind::Invalid` when an output that was asked for as JSON has no form there: a half-precision type, a value that is
/// not finite, a string that is not UTF-8.
pub fn encode(response: &InferResponse, request: &InferRequest) -> Result<Encoded, Error> {
    let binary = |tensor: &Tensor| {
        let asked = request.outputs.iter().find(|o| o.name == tensor.name).and_then(|o| o.binary);
        asked.unwrap_or(request.binary_output)
    };
    let outputs: Vec<Output<'_>> =
        response.outputs.iter().map(|tensor| Output { tensor, binary: binary(tensor) }).collect();
    for output in outputs.iter().filter(|o| !o.binary) {
        has_json_form(output.tensor)?;
    }

    // Text takes about three characters for each of a number's bytes; the largest answers may grow as they are written.
    const TEXT_LIMIT: usize = 1 << 20;
    let size = |o: &Output<'_>| {
        let bytes = o.tensor.data().len();
        if o.binary { bytes } else { bytes.saturating_mul(3).min(TEXT_LIMIT) }
    };
    let mut body = Vec::with_capacity(outputs.iter().map(size).sum::<usize>() + 256);
    let document = Document { response, outputs: &outputs };
    serde_json::to_writer(&mut body, &document).map_err(|e| {
        Error::new(crate::protocol::Kind::Internal, format!("the response can't be written: {e}"))
    })?;
    let header_length = outputs.iter().any(|o| o.binary).then_some(body.len());
    for output in outputs.iter().filter(|o| o.binary) {
        // Writing to a Vec does not fail.
        let _ = body.write_all(output.tensor.data());
    }
    Ok(Encoded { body: body.into(), header_length })
}

fn has_json_form(tensor: &Tensor) -> Result<(), Error> {
    let data = tensor.data();
    let lost = match tensor.datatype {
        Datatype::Fp16 | Datatype::Bf16 => Some(format!("is {}", tensor.datatype)),
        Datatype::Fp32 => (!chunks(data).all(|v| f32::from_le_bytes(v).is_finite()))
            .then(|| "holds NaN or infinity".to_string()),
        Datatype::Fp64 => (!chunks(data).all(|v| f64::from_le_bytes(v).is_finite()))
            .then(|| "holds NaN or infinity".to_string()),
        Datatype::Bytes => bytes_elements(data)
            .any(|v| std::str::from_utf8(v).is_err())
            .then(|| "holds a string that is not UTF-8".to_string()),
        _ => None,
    };
    match lost {
        None => Ok(()),
        Some(what) => Err(Error::invalid(format!(
            "output {:?} {what}, which JSON can't carry: ask for it with the parameter binary_data",
            tensor.name
        ))),
    }
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.as_chunks::<N>().0.iter().copied()
}

struct Document<'a> {
    response: &'a InferResponse,
    outputs: &'a [Output<'a>],
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model_name", &self.response.model_name)?;
        map.serialize_entry("model_version", &self.response.model_version)?;
        if !self.response.id.is_empty() {
            map.serialize_entry("id", &self.response.id)?;
        }
        map.serialize_entry("outputs", self.outputs)?;
        map.end()
    }
}

struct Output<'a> {
    tensor: &'a Tensor,
    binary: bool,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.tensor.name)?;
        map.serialize_entry("datatype", self.tensor.datatype.name())?;
        map.serialize_entry("shape", &self.tensor.shape)?;
        match self.binary {
            true => {
                map.serialize_entry(
                    "parameters",
                    &BinarySize { binary_data_size: self.tensor.data().len() },
                )?;
            }
            false => map.serialize_entry("data", &Data(self.tensor))?,
        }
        map.end()
    }
}

/// The elements, flat.
struct Data<'a>(&'a Tensor);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.0.data();
        macro_rules! numbers {
            ($type:ty) => {
                serializer.collect_seq(chunks(data).map(<$type>::from_le_bytes))
            };
        }
        match self.0.datatype {
            Datatype::Bool => serializer.collect_seq(data.iter().map(|b| *b != 0)),
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
            Datatype::Bytes => {
                let mut seq = serializer.serialize_seq(None)?;
                for element in bytes_elements(data) {
                    seq.serialize_element(std::str::from_utf8(element).map_err(serde::ser::Error::custom)?)?;
                }
                seq.end()
            }
            // `has_json_form` has refused them.
            Datatype::Fp16 | Datatype::Bf16 => Err(serde::ser::Error::custom("no JSON form")),
        }
    }
}

#[cfg(test)]
mod tests;
