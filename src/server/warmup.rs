//! One run before the first request: pays for lazy initialisation, and proves that the model answers.

use bytes::Bytes;

use super::engine::{Loaded, RunError};
use crate::protocol::{Tensor, TensorSpec};

/// Lengths tried for the dynamic axes: most models take one of anything; some need a window or an image.
const LENGTHS: [i64; 5] = [1, 2, 16, 64, 224];

/// None: it answered. A message: it refused every made-up input, and serves all the same.
///
/// # Errors
/// The session is beyond use, or not even the smallest request fits into memory.
pub fn warm_up(loaded: &mut Loaded) -> Result<Option<String>, RunError> {
    let dynamic = loaded.inputs.iter().any(|spec| spec.shape.iter().any(|dim| *dim < 0));
    let outputs: Vec<usize> = (0..loaded.outputs.len()).collect();
    let Some(runner) = loaded.runners.first_mut() else { return Ok(None) };
    let mut refusal = String::new();
    for length in &LENGTHS[..if dynamic { LENGTHS.len() } else { 1 }] {
        let inputs =
            match loaded.inputs.iter().map(|spec| zeros(spec, *length)).collect::<Result<Vec<_>, _>>() {
                Ok(inputs) => inputs,
                Err(e) => {
                    refusal = e;
                    break;
                }
            };
        match runner.run(&inputs, &outputs) {
            Ok(_) => return Ok(None),
            Err(e @ RunError::Poisoned(_)) => return Err(e),
            // The smallest request there is does not fit.
            Err(e @ RunError::OutOfMemory(_)) if refusal.is_empty() => return Err(e),
            // The first refusal speaks of the most natural shape.
            Err(e) if refusal.is_empty() => refusal = e.to_string(),
            Err(_) => {}
        }
    }
    Ok(Some(format!("not warmed up: the model refused inputs of zeros: {refusal}")))
}

/// More than this is no warm-up.
const ELEMENT_LIMIT: i64 = 1 << 28;

fn zeros(spec: &TensorSpec, length: i64) -> Result<Tensor, String> {
    let shape: Vec<i64> = spec.shape.iter().map(|dim| if *dim < 0 { length } else { *dim }).collect();
    let count = shape
        .iter()
        .try_fold(1i64, |product, dim| product.checked_mul(*dim))
        .filter(|count| *count <= ELEMENT_LIMIT)
        .ok_or_else(|| format!("input {:?} is too large to make up", spec.name))?;
    // An empty string is its length, 0, in four bytes.
    let size = spec.datatype.size().unwrap_or(4);
    let data = Bytes::from(vec![0; count as usize * size]);
    Tensor::new(spec.name.clone(), spec.datatype, shape, data).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
