use std::fmt;

use serde::{Deserialize, Serialize};

use super::Datatype;

/// `GET /v2`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerMetadata {
    pub name: String,
    pub version: String,
    pub extensions: Vec<String>,
}

/// `GET /v2/models/{name}`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelMetadata {
    pub name: String,
    pub versions: Vec<String>,
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// What a model says of one input or output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorSpec {
    pub name: String,
    #[serde(serialize_with = "datatype_name")]
    pub datatype: Datatype,
    /// -1: a dynamic axis.
    pub shape: Vec<i64>,
}

fn datatype_name<S: serde::Serializer>(datatype: &Datatype, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(datatype.name())
}

/// `INT32 [-1,2048]`
impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.datatype, Shape(&self.shape))
    }
}

/// A shape as the protocol writes it.
pub(super) struct Shape<'a>(pub &'a [i64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

impl TensorSpec {
    /// Whether a tensor of `shape` fits: same rank, and the same length where an axis is fixed.
    pub fn accepts(&self, shape: &[i64]) -> bool {
        self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(|(want, got)| *want < 0 || want == got)
    }
}
