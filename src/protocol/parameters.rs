//! The `parameters` objects of requests, inputs and requested outputs: what means something here is read and checked,
//! the rest is read past.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// One object. A name that has its meaning elsewhere (`binary_data` of an input, say) does no harm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Of an input: the length of its binary data.
    pub binary_data_size: Option<usize>,
    /// Of a request: the default for its outputs.
    pub binary_data_output: Option<bool>,
    /// Of a requested output.
    pub binary_data: Option<bool>,
    /// Of a request, in microseconds: shortens the server's own deadline. 0 is none, as on Triton.
    pub timeout: Option<Duration>,
    /// Of a request, from 1, which comes first, to 9. 0 is none.
    pub priority: Option<u8>,
}

/// A value of the protocol: a string, a number or a boolean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Bool(bool),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(&'a str),
}

impl Parameters {
    /// # Errors
    /// A sentence about a value of the wrong type, or one that asks for what this server does not do: to read past it
    /// would answer another question.
    pub fn set(&mut self, name: &str, value: Value<'_>) -> Result<(), String> {
        match name {
            "binary_data_size" => {
                let size = value.unsigned().and_then(|size| usize::try_from(size).ok());
                self.binary_data_size =
                    Some(size.ok_or("parameter binary_data_size must be a number of bytes")?);
            }
            "binary_data_output" => self.binary_data_output = Some(value.boolean(name)?),
            "binary_data" => self.binary_data = Some(value.boolean(name)?),
            "timeout" => {
                let microseconds =
                    value.unsigned().ok_or("parameter timeout must be a number of microseconds")?;
                self.timeout = (microseconds > 0).then_some(Duration::from_micros(microseconds));
            }
            "priority" => {
                let level =
                    value.unsigned().and_then(|level| u8::try_from(level).ok()).filter(|level| *level <= 9);
                let level = level.ok_or("parameter priority must be a number from 0 to 9")?;
                self.priority = (level > 0).then_some(level);
            }
            "classification" if value.unsigned() != Some(0) => {
                return Err(
                    "parameter classification is not supported: ask for the tensor and sort it".into()
                );
            }
            "shared_memory_region" | "shared_memory_offset" | "shared_memory_byte_size" => {
                return Err(format!("parameter {name} is not supported: send tensors in the request"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Value<'_> {
    fn unsigned(self) -> Option<u64> {
        match self {
            Value::Uint64(value) => Some(value),
            Value::Int64(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    fn boolean(self, name: &str) -> Result<bool, String> {
        match self {
            Value::Bool(value) => Ok(value),
            _ => Err(format!("parameter {name} must be true or false")),
        }
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Parameters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
        let mut parameters = Parameters::default();
        while let Some(Text(name)) = map.next_key()? {
            let value: Scalar<'_> = map.next_value()?;
            parameters.set(&name, value.as_value()).map_err(A::Error::custom)?;
        }
        Ok(parameters)
    }
}

/// Borrowed where the JSON has no escapes: serde's own `Cow` never is.
struct Text<'a>(std::borrow::Cow<'a, str>);

/// What JSON holds.
enum Scalar<'a> {
    Value(Value<'a>),
    Text(Text<'a>),
}

impl Scalar<'_> {
    fn as_value(&self) -> Value<'_> {
        match self {
            Scalar::Value(value) => *value,
            Scalar::Text(Text(text)) => Value::String(text),
        }
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(ScalarVisitor)? {
            Scalar::Text(text) => Ok(text),
            Scalar::Value(_) => Err(D::Error::custom("a parameter's name is a string")),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter's value: a string, a number, true or false")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Value(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Value(Value::Int64(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Value(Value::Uint64(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Value(Value::Double(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Text(value.into())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Text(value.to_string().into())))
    }
}

#[cfg(test)]
mod tests;
