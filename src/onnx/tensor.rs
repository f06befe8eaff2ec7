//! What a tensor says of itself: enough to find its bytes and to see that they can't be its own.

use super::OnnxError;
use super::draft::Draft;
use super::error::quote;
use super::external::{check_location, escapes};
use super::schema::{STRING, datatype};

#[derive(Default)]
pub(super) struct TensorDraft {
    pub name: String,
    pub datatype: u64,
    /// Product of the dims; no dims is one element.
    elements: Elements,
    pub raw: Option<u64>,
    pub typed: u64,
    pub is_external: bool,
    location: Option<String>,
    offset: Option<u64>,
    length: Option<u64>,
    /// The first thing wrong with it: told at its end, when its name is known.
    wrong: Option<String>,
    pub key: String,
    pub value: Option<String>,
}

struct Elements(Option<u64>);

impl Default for Elements {
    fn default() -> Self {
        Self(Some(1))
    }
}

impl TensorDraft {
    pub fn dim(&mut self, value: u64) {
        if value > i64::MAX as u64 {
            self.blame("has a negative dimension");
        }
        self.elements.0 = self.elements.0.and_then(|n| n.checked_mul(value));
    }

    /// Ends one key and value of the external data. The keys are those that ONNX Runtime takes
    /// (`tensor_external_data_info.cc`); with any other it refuses the model.
    pub fn entry(&mut self) {
        let key = std::mem::take(&mut self.key);
        let value = self.value.take();
        match (key.as_str(), value) {
            ("location", Some(value)) => {
                if self.location.replace(value).is_some() {
                    self.blame("names its external data file twice");
                }
            }
            ("offset", Some(value)) => self.offset = self.number("offset", &value),
            ("length", Some(value)) => self.length = self.number("length", &value),
            ("location" | "offset" | "length", None) => {
                self.blame(&format!("has external data without a usable {key}"));
            }
            ("checksum", _) => {}
            (other, _) if other.starts_with("prepacked") => {}
            (other, _) => self.blame(&format!("has external data with the unknown key {}", quote(other))),
        }
    }

    fn number(&mut self, key: &str, value: &str) -> Option<u64> {
        let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let number = value.parse().ok().filter(|n| digits && *n <= i64::MAX as u64);
        if number.is_none() {
            self.blame(&format!("has external data with the impossible {key} {}", quote(value)));
        }
        number
    }

    fn blame(&mut self, what: &str) {
        self.wrong.get_or_insert_with(|| what.to_owned());
    }

    pub fn finish(self, draft: &mut Draft) -> Result<(), OnnxError> {
        let tensor = quote(&self.name);
        let invalid = |what: String| Err(OnnxError::Invalid(format!("tensor {tensor} {what}")));
        if let Some(what) = self.wrong {
            return invalid(what);
        }
        let bits = datatype(self.datatype).and_then(|(_, bits)| bits);
        let size = self.elements.0.and_then(|n| n.checked_mul(bits.unwrap_or(1)));
        let Some(size) = size.map(|bits| bits.div_ceil(8)).filter(|size| *size <= i64::MAX as u64) else {
            return invalid("has dimensions whose product overflows".into());
        };
        // Known only where the type is.
        let size = bits.map(|_| size);
        if let Some(location) = &self.location {
            let path = check_location(location).map_err(|rule| escapes(&self.name, location, rule))?;
            if self.is_external {
                if self.datatype == STRING {
                    return invalid("holds strings, which can't be external data".into());
                }
                if let (Some(length), Some(size)) = (self.length, size)
                    && length != size
                {
                    return invalid(format!(
                        "has {length} bytes of external data, and its shape needs {size}"
                    ));
                }
                let bytes = self.length.or(size).unwrap_or(0);
                // Neither exceeds i64::MAX, so the sum is no more than u64::MAX.
                let end = self.offset.unwrap_or(0) + bytes;
                draft.external(path, tensor, end, bytes)?;
            }
            return Ok(());
        }
        if self.is_external {
            return invalid("is said to be external data, without a location".into());
        }
        let raw = self.raw.unwrap_or(0);
        if let (Some(raw), Some(size)) = (self.raw, size)
            && raw != size
            && !(raw == 0 && self.typed > 0)
        {
            return invalid(format!("has {raw} bytes of raw data, and its shape needs {size}"));
        }
        draft.weight_bytes = draft.weight_bytes.saturating_add(raw).saturating_add(self.typed);
        Ok(())
    }
}
