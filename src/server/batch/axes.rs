use crate::formats::Dim;
use crate::protocol::Datatype;

/// A model's tensor, with the names of its dynamic axes.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorAxes {
    pub name: String,
    pub datatype: Datatype,
    pub dims: Vec<Dim>,
}

/// The axis of each tensor along which requests can be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchAxes {
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
}

impl BatchAxes {
    /// The one symbolic name that stands exactly once in every tensor (silero's state has it on axis 1); else axis 0,
    /// where it is dynamic in all (Magika names it differently on both sides). `chosen` names axes instead.
    ///
    /// # Errors
    /// Which tensor has no such axis.
    pub fn find(
        inputs: &[TensorAxes],
        outputs: &[TensorAxes],
        chosen: &[(String, usize)],
    ) -> Result<Self, String> {
        let all = || inputs.iter().chain(outputs);
        let Some(first) = inputs.first() else { return Err("the model has no input".into()) };
        if let Some((name, _)) = chosen.iter().find(|(name, _)| all().all(|t| t.name != *name)) {
            return Err(format!("a batch axis is set for {name:?}, which is no input or output"));
        }
        let shared: Vec<&str> =
            names(first).filter(|name| all().all(|t| names(t).filter(|n| n == name).count() == 1)).collect();
        let shared = match shared[..] {
            [name] => Some(name),
            // Several, such as batch and sequence: the batch comes before the others by convention.
            _ => shared.iter().copied().find(|name| {
                all().all(|t| shared.iter().all(|other| position(t, name) <= position(t, other)))
            }),
        };
        let axis = |tensor: &TensorAxes| -> Result<usize, String> {
            let set = chosen.iter().find(|(name, _)| *name == tensor.name).map(|(_, axis)| *axis);
            let axis = set.or_else(|| position(tensor, shared?)).unwrap_or(0);
            match tensor.dims.get(axis) {
                Some(Dim::Dynamic(_)) => {}
                Some(Dim::Fixed(length)) => {
                    return Err(format!("axis {axis} of {:?} is fixed to {length}", tensor.name));
                }
                None => return Err(format!("{:?} has no axis {axis}", tensor.name)),
            }
            // Strings have no fixed size: only whole runs of them can be moved.
            if tensor.datatype == Datatype::Bytes && axis > 0 {
                return Err(format!("{:?} has strings along axis {axis}", tensor.name));
            }
            Ok(axis)
        };
        Ok(Self {
            inputs: inputs.iter().map(axis).collect::<Result<_, _>>()?,
            outputs: outputs.iter().map(axis).collect::<Result<_, _>>()?,
        })
    }
}

fn names(tensor: &TensorAxes) -> impl Iterator<Item = &str> {
    tensor.dims.iter().filter_map(|dim| match dim {
        Dim::Dynamic(name) if !name.is_empty() => Some(name.as_str()),
        _ => None,
    })
}

fn position(tensor: &TensorAxes, name: &str) -> Option<usize> {
    tensor.dims.iter().position(|dim| matches!(dim, Dim::Dynamic(n) if n == name))
}

#[cfg(test)]
mod tests;
