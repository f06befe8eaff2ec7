use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::data::{DataSeed, Parsed};
use super::object::Object;
use crate::protocol::parameters::Parameters;
use crate::protocol::{Datatype, Error, InferRequest, MAX_PARTS, RequestedOutput, Tensor, element_count};

/// Reads an inference request. `header_length` is the value of `Inference-Header-Content-Length`, if any.
///
/// # Errors
/// `Kind::Invalid`, with a message that names the tensor.
pub fn decode(body: &Bytes, header_length: Option<usize>) -> Result<InferRequest, Error> {
    let json = head(body, header_length)?;
    // serde would also take a list of the fields' values.
    if json.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(Error::invalid("the request must be a JSON object"));
    }
    let request: Request = serde_json::from_slice(json).map_err(|e| Error::invalid(sentence(&e)))?;
    let binary = body.slice(json.len()..);
    let inputs = tensors("input", request.inputs, binary, header_length.is_some())?;
    let parameters = request.parameters.unwrap_or_default();
    Ok(InferRequest {
        id: request.id.unwrap_or_default(),
        timeout: parameters.timeout,
        priority: parameters.priority,
        binary_output: parameters.binary_data_output.unwrap_or(false),
        inputs,
        outputs: request
            .outputs
            .map_or_else(Vec::new, |list| list.0.into_iter().map(|Object(output)| output.into()).collect()),
    })
}

/// The tensors of an answer.
///
/// # Errors
/// `Kind::Invalid`, with a message that names the tensor.
pub fn decode_response(body: &Bytes, header_length: Option<usize>) -> Result<Vec<Tensor>, Error> {
    let json = head(body, header_length)?;
    let Object(answer): Object<Answer> =
        serde_json::from_slice(json).map_err(|e| Error::invalid(sentence(&e)))?;
    tensors("output", answer.outputs, body.slice(json.len()..), header_length.is_some())
}

/// The part of a body that is JSON.
fn head(body: &Bytes, header_length: Option<usize>) -> Result<&[u8], Error> {
    let Some(length) = header_length else { return Ok(body) };
    body.get(..length).ok_or_else(|| {
        Error::invalid(format!(
            "Inference-Header-Content-Length is {length}, but the body has {} bytes",
            body.len()
        ))
    })
}

fn tensors(
    kind: &str,
    list: Few<Described<'_>>,
    mut binary: Bytes,
    has_binary: bool,
) -> Result<Vec<Tensor>, Error> {
    let mut tensors = Vec::with_capacity(list.0.len());
    for tensor in list.0 {
        tensors.push(tensor.into_tensor(kind, &mut binary, has_binary)?);
    }
    if !binary.is_empty() {
        return Err(Error::invalid(format!("{} bytes follow the last tensor's binary data", binary.len())));
    }
    Ok(tensors)
}

fn sentence(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => error.to_string(),
        _ => format!("the request is not JSON: {error}"),
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Request<'a> {
    id: Option<String>,
    parameters: Option<Parameters>,
    #[serde(borrow)]
    inputs: Few<Described<'a>>,
    outputs: Option<Few<Object<Output>>>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Answer<'a> {
    #[serde(borrow)]
    outputs: Few<Described<'a>>,
}

/// A list of at most `MAX_PARTS`: each takes far more memory than text.
struct Few<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FewVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MAX_PARTS {
                        return Err(A::Error::custom(format_args!("more than {MAX_PARTS} tensors")));
                    }
                    list.push(item);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(FewVisitor(PhantomData)).map(Few)
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Output {
    name: String,
    parameters: Option<Parameters>,
}

impl From<Output> for RequestedOutput {
    fn from(output: Output) -> Self {
        Self { name: output.name, binary: output.parameters.and_then(|p| p.binary_data) }
    }
}

/// A tensor of a message, with its data read when the datatype stands before it (as everybody writes it).
struct Described<'a> {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
    parameters: Parameters,
    data: Option<Data<'a>>,
}

enum Data<'a> {
    Parsed(Parsed),
    Raw(&'a RawValue),
}

impl<'de: 'a, 'a> Deserialize<'de> for Described<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DescribedVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Name,
    Datatype,
    Shape,
    Parameters,
    Data,
    #[serde(other)]
    Unknown,
}

struct DescribedVisitor;

impl<'de> Visitor<'de> for DescribedVisitor {
    type Value = Described<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Described<'de>, A::Error> {
        fn once<T, E: serde::de::Error>(
            slot: &mut Option<T>,
            field: &'static str,
            value: T,
        ) -> Result<(), E> {
            match slot.replace(value) {
                Some(_) => Err(E::duplicate_field(field)),
                None => Ok(()),
            }
        }
        let (mut name, mut datatype, mut shape, mut parameters, mut data) = (None, None, None, None, None);
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Name => once(&mut name, "name", map.next_value::<String>()?)?,
                Field::Shape => once(&mut shape, "shape", map.next_value::<Vec<i64>>()?)?,
                Field::Parameters => once(&mut parameters, "parameters", map.next_value::<Parameters>()?)?,
                Field::Datatype => {
                    let text = map.next_value::<String>()?;
                    let known = Datatype::parse(&text)
                        .ok_or_else(|| A::Error::custom(format_args!("unknown datatype {text:?}")))?;
                    once(&mut datatype, "datatype", known)?;
                }
                Field::Data => {
                    let value = match datatype {
                        None => Data::Raw(map.next_value()?),
                        // Without the body's size in hand, only a small promise is kept in advance.
                        Some(datatype) => Data::Parsed(
                            map.next_value_seed(DataSeed {
                                datatype,
                                hint: shape
                                    .as_deref()
                                    .and_then(|s| element_count(s).ok())
                                    .unwrap_or(0)
                                    .min(1 << 16),
                            })?,
                        ),
                    };
                    once(&mut data, "data", value)?;
                }
                Field::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Described {
            name: name.ok_or_else(|| A::Error::missing_field("name"))?,
            datatype: datatype.ok_or_else(|| A::Error::missing_field("datatype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            parameters: parameters.unwrap_or_default(),
            data,
        })
    }
}

impl Described<'_> {
    fn into_tensor(self, kind: &str, binary: &mut Bytes, has_binary: bool) -> Result<Tensor, Error> {
        let name = self.name;
        let wrong = |what: String| Error::invalid(format!("{kind} {name:?}: {what}"));
        let size = self.parameters.binary_data_size;
        let bytes = match (self.data, size) {
            (Some(_), Some(_)) => return Err(wrong("has both data and binary_data_size".into())),
            (None, None) => return Err(wrong("has neither data nor binary_data_size".into())),
            (None, Some(_)) if !has_binary => {
                return Err(wrong(
                    "binary_data_size needs the header Inference-Header-Content-Length".into(),
                ));
            }
            (None, Some(size)) if size > binary.len() => {
                return Err(wrong(format!(
                    "binary_data_size is {size}, but {} bytes are left",
                    binary.len()
                )));
            }
            (None, Some(size)) => binary.split_to(size),
            (Some(data), None) => {
                let parsed = match data {
                    Data::Parsed(parsed) => parsed,
                    Data::Raw(raw) => DataSeed { datatype: self.datatype, hint: 0 }
                        .deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
                        .map_err(|e| wrong(e.to_string()))?,
                };
                let count = element_count(&self.shape).map_err(wrong)?;
                let nested = parsed.dims.len() > 1;
                let fits = parsed.count == count
                    && (!nested
                        || parsed.dims.iter().zip(&self.shape).all(|(have, want)| *have as i64 == *want)
                            && parsed.dims.len() <= self.shape.len()
                            && (parsed.dims.len() == self.shape.len() || count == 0));
                if !fits {
                    let held = match nested {
                        true => format!("arrays of {:?}", parsed.dims),
                        false => format!("{} elements", parsed.count),
                    };
                    return Err(wrong(format!("data holds {held}, shape is {:?}", self.shape)));
                }
                parsed.bytes
            }
        };
        Tensor::new(name, self.datatype, self.shape, bytes)
    }
}

#[cfg(test)]
mod tests;
