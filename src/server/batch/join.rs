//! Tensors along one axis: put together, and apart again.

use bytes::Bytes;

use crate::protocol::{Datatype, Tensor, bytes_elements};

/// One tensor of all `parts`, which differ in the length of `axis` at most. A single part is passed on as it is.
///
/// # Errors
/// The parts don't fit.
pub fn join(parts: &[&Tensor], axis: usize) -> Result<Tensor, String> {
    let [first, rest @ ..] = parts else { return Err("nothing to join".into()) };
    if rest.is_empty() {
        return Ok((*first).clone());
    }
    let mut shape = first.shape.clone();
    let Some(rows) = shape.get_mut(axis) else { return Err(format!("{:?} has no axis {axis}", first.name)) };
    *rows = parts.iter().filter_map(|part| part.shape.get(axis)).sum();
    let outer = outer(&first.shape, axis);
    let mut data = Vec::with_capacity(parts.iter().map(|part| part.data().len()).sum());
    if outer == 1 || first.datatype == Datatype::Bytes {
        for part in parts {
            data.extend_from_slice(part.data());
        }
    } else {
        for index in 0..outer {
            for part in parts {
                let step = part.data().len() / outer;
                data.extend_from_slice(part.data().get(index * step..(index + 1) * step).unwrap_or_default());
            }
        }
    }
    Tensor::new(first.name.clone(), first.datatype, shape, data.into()).map_err(|e| e.to_string())
}

/// Parts of `rows` rows each; they share the memory of `whole` where they are contiguous.
///
/// # Errors
/// `whole` has another number of rows along `axis`: the model's output does not follow its inputs.
pub fn split(whole: Tensor, axis: usize, rows: &[usize]) -> Result<Vec<Tensor>, String> {
    let total: usize = rows.iter().sum();
    if whole.shape.get(axis).copied() != i64::try_from(total).ok() {
        return Err(format!(
            "output {:?} has shape {:?} for {total} rows along axis {axis}",
            whole.name, whole.shape
        ));
    }
    if rows.len() == 1 {
        return Ok(vec![whole]);
    }
    let outer = outer(&whole.shape, axis);
    let (name, datatype, shape) = (whole.name.clone(), whole.datatype, whole.shape.clone());
    let data = whole.into_data();
    let mut strings = bytes_elements(&data);
    let per_row = shape[axis + 1..].iter().product::<i64>() as usize;
    let step = data.len().checked_div(outer * total).unwrap_or(0);
    let mut start = 0;
    let mut parts = Vec::with_capacity(rows.len());
    for rows in rows.iter().copied() {
        let part: Bytes = if datatype == Datatype::Bytes {
            let length: usize = strings.by_ref().take(rows * per_row).map(|s| s.len() + 4).sum();
            let part = data.slice(start..start + length);
            start += length;
            part
        } else if outer == 1 {
            let part = data.slice(start..start + rows * step);
            start += rows * step;
            part
        } else {
            let mut part = Vec::with_capacity(outer * rows * step);
            for index in 0..outer {
                let from = index * total * step + start;
                part.extend_from_slice(data.get(from..from + rows * step).unwrap_or_default());
            }
            start += rows * step;
            part.into()
        };
        let mut shape = shape.clone();
        shape[axis] = rows as i64;
        parts.push(Tensor::new(name.clone(), datatype, shape, part).map_err(|e| e.to_string())?);
    }
    Ok(parts)
}

/// Blocks before the axis comes round again.
fn outer(shape: &[i64], axis: usize) -> usize {
    shape.iter().take(axis).product::<i64>() as usize
}

#[cfg(test)]
mod tests;
