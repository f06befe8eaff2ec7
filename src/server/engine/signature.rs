//! A session's inputs and outputs, in the protocol's terms.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use super::{LoadError, invalid};
use crate::formats::Dim;
use crate::protocol::{Datatype, TensorSpec};
use crate::server::batch::TensorAxes;

/// A model's inputs and outputs, in the protocol's terms.
pub(super) struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub input_axes: Vec<TensorAxes>,
    pub output_axes: Vec<TensorAxes>,
    pub note: Option<String>,
}

impl Signature {
    pub fn read(session: &Session) -> Result<Self, LoadError> {
        let read = |outlet: &Outlet| -> Result<(TensorSpec, TensorAxes), String> {
            let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
                return Err(format!("{:?} is not a tensor", outlet.name()));
            };
            let datatype = datatype(*ty).ok_or_else(|| {
                format!("{:?} has element type {ty}, which the protocol lacks", outlet.name())
            })?;
            let dims = shape.iter().zip(dimension_symbols.iter()).map(|(length, symbol)| match length {
                0.. => Dim::Fixed(*length),
                _ => Dim::Dynamic(symbol.clone()),
            });
            let axes = TensorAxes { name: outlet.name().into(), datatype, dims: dims.collect() };
            Ok((TensorSpec { name: outlet.name().into(), datatype, shape: shape.to_vec() }, axes))
        };
        let inputs = session.inputs().iter().map(read).collect::<Result<Vec<_>, _>>();
        let inputs = inputs.map_err(|e| invalid(format!("input {e}: no request can carry it")))?;
        let (inputs, input_axes) = inputs.into_iter().unzip();
        let (mut outputs, mut output_axes, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        for outlet in session.outputs() {
            match read(outlet) {
                Ok((output, axes)) => {
                    outputs.push(output);
                    output_axes.push(axes);
                }
                Err(e) => left_out.push(e),
            }
        }
        if outputs.is_empty() {
            return Err(invalid(format!(
                "no output is a tensor that the protocol can carry: {}",
                left_out.join("; ")
            )));
        }
        let note = (!left_out.is_empty()).then(|| format!("outputs left out: {}", left_out.join("; ")));
        Ok(Self { inputs, outputs, input_axes, output_axes, note })
    }
}

fn datatype(ty: TensorElementType) -> Option<Datatype> {
    Some(match ty {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}
