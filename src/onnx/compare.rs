//! Whether a model can take another's place without its clients noticing.

use crate::formats::{Dim, GraphSummary, TensorSignature};

/// What a client of `stable` would trip over in `candidate`, one sentence each; none: it takes its place.
///
/// Wider inputs, added outputs and a dynamic axis in place of a fixed one are no break: what was sent yesterday is
/// still taken, and gives what it gave. A tensor without a declared shape promises none.
pub fn breaks(stable: &GraphSummary, candidate: &GraphSummary) -> Vec<String> {
    // Lists that were cut to fit a termination message can't tell what is missing.
    let whole = !stable.truncated && !candidate.truncated;
    let mut found = Vec::new();
    for old in &stable.inputs {
        match named(&candidate.inputs, &old.name) {
            Some(new) => {
                found.extend(changed("input", old, new, |old, new| match (old, new) {
                    (Dim::Fixed(old), Dim::Fixed(new)) => old == new,
                    (Dim::Dynamic(_), Dim::Fixed(_)) => false,
                    (_, Dim::Dynamic(_)) => true,
                }));
            }
            None if whole => found.push(format!("input {} is gone", old.name)),
            None => {}
        }
    }
    for new in candidate.inputs.iter().filter(|new| whole && named(&stable.inputs, &new.name).is_none()) {
        found.push(format!("input {} is new: {}", new.name, shown(new)));
    }
    for old in &stable.outputs {
        match named(&candidate.outputs, &old.name) {
            Some(new) => {
                found.extend(changed("output", old, new, |old, new| match (old, new) {
                    (Dim::Fixed(old), Dim::Fixed(new)) => old == new,
                    _ => true,
                }));
            }
            None if whole => found.push(format!("output {} is gone", old.name)),
            None => {}
        }
    }
    found
}

fn named<'a>(tensors: &'a [TensorSignature], name: &str) -> Option<&'a TensorSignature> {
    tensors.iter().find(|t| t.name == name)
}

fn changed(
    kind: &str,
    old: &TensorSignature,
    new: &TensorSignature,
    fits: impl Fn(&Dim, &Dim) -> bool,
) -> Option<String> {
    let same_shape = match (&old.shape, &new.shape) {
        (Some(old), Some(new)) => old.len() == new.len() && old.iter().zip(new).all(|(o, n)| fits(o, n)),
        _ => true,
    };
    let same = old.datatype == new.datatype && same_shape;
    (!same).then(|| format!("{kind} {} was {} and is {}", old.name, shown(old), shown(new)))
}

/// `FP32[batch,3,?]`.
fn shown(tensor: &TensorSignature) -> String {
    let Some(shape) = &tensor.shape else { return tensor.datatype.clone() };
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Dynamic(name) if name.is_empty() => "?".into(),
            Dim::Dynamic(name) => name.clone(),
        })
        .collect();
    format!("{}[{}]", tensor.datatype, dims.join(","))
}

#[cfg(test)]
mod tests;
