//! One run before the first request: pays for lazy initialisation, and proves that the model answers.

use bytes::Bytes;

use super::batch::{BatchAxes, BatchWish, Probe, Unproven, prove};
use super::engine::{LoadError, Loaded, Reason, RunError};
use super::queue::Batching;
use crate::protocol::{Tensor, TensorSpec};

/// Lengths tried for the dynamic axes: most models take one of anything; some need a window or an image.
const LENGTHS: [i64; 5] = [1, 2, 16, 64, 224];

/// What the first run showed.
#[derive(Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// It answered, with dynamic axes of this length.
    Answered(i64),
    /// It refused every made-up input, and serves all the same.
    Refused(String),
}

/// Runs the model on zeros, with longer axes until it answers.
///
/// # Errors
/// The session is beyond use, or not even the smallest request fits into memory.
pub fn warm_up(loaded: &mut Loaded) -> Result<WarmUp, RunError> {
    let dynamic = loaded.inputs.iter().any(|spec| spec.shape.iter().any(|dim| *dim < 0));
    let outputs: Vec<usize> = (0..loaded.outputs.len()).collect();
    let Some(runner) = loaded.runners.first_mut() else {
        return Ok(WarmUp::Refused("no thread runs it".into()));
    };
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
            Ok(_) => return Ok(WarmUp::Answered(*length)),
            Err(e @ RunError::Poisoned(_)) => return Err(e),
            // The smallest request there is does not fit.
            Err(e @ RunError::OutOfMemory(_)) if refusal.is_empty() => return Err(e),
            // The first refusal speaks of the most natural shape.
            Err(e) if refusal.is_empty() => refusal = e.to_string(),
            Err(_) => {}
        }
    }
    Ok(WarmUp::Refused(format!("not warmed up: the model refused inputs of zeros: {refusal}")))
}

/// A second session, where each thread has its own: not before the first has shown what memory it needs.
///
/// # Errors
/// It fails for another reason than memory.
pub fn add_session(loaded: &mut Loaded, warm: &WarmUp) -> Result<(), LoadError> {
    let Some(another) = loaded.another.take() else { return Ok(()) };
    let outputs: Vec<usize> = (0..loaded.outputs.len()).collect();
    let made = another().and_then(|mut runner| {
        let WarmUp::Answered(length) = *warm else { return Ok(runner) };
        let Ok(inputs) = loaded.inputs.iter().map(|spec| zeros(spec, length)).collect::<Result<Vec<_>, _>>()
        else {
            return Ok(runner);
        };
        runner.run(&inputs, &outputs).map(|_| runner).map_err(|e| LoadError {
            reason: match e {
                RunError::OutOfMemory(_) => Reason::InsufficientGpuMemory,
                _ => Reason::ExecutionProviderUnavailable,
            },
            message: format!("the first run of the second session failed: {e}"),
        })
    });
    match made {
        Ok(runner) => loaded.runners.push(runner),
        Err(e) if e.reason == Reason::InsufficientGpuMemory => {
            let one = "the GPU has room for one copy of the model, so that runs don't overlap".into();
            let note = loaded.note.take();
            loaded.note = [note, Some(one)].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"));
        }
        Err(e) => return Err(e),
    }
    Ok(())
}

/// How requests share runs, where the proof succeeds; else why they don't.
pub fn prove_batching(
    loaded: &mut Loaded,
    warm: &WarmUp,
    wish: &BatchWish,
    quantizes: bool,
) -> Result<Batching, String> {
    if wish.max_rows == Some(1) {
        return Err("maxBatchSize is 1".into());
    }
    let axes = BatchAxes::find(&loaded.input_axes, &loaded.output_axes, &wish.axes)?;
    let batching = |axes| Batching { axes, max_rows: wish.max_rows, delay: wish.delay };
    // Whoever sets a size knows the model.
    if wish.max_rows.is_some() {
        return Ok(batching(axes));
    }
    if quantizes {
        return Err("DynamicQuantizeLinear takes its scale from the whole batch, so that answers depend on the other \
                    requests in it: set batching.maxBatchSize to accept that"
            .into());
    }
    let WarmUp::Answered(accepted) = *warm else {
        return Err("it can't be proven: the model refuses made-up inputs".into());
    };
    let (inputs, Some(runner)) = (&loaded.inputs, loaded.runners.first_mut()) else {
        return Err("no thread runs it".into());
    };
    // One of anything hides what a longer axis would show.
    let mut why = String::new();
    for length in [accepted.max(2), accepted] {
        match prove(runner.as_mut(), &Probe { inputs, axes: &axes, length }) {
            Ok(_) => return Ok(batching(axes)),
            Err(Unproven::Differs(how)) => return Err(how),
            Err(Unproven::Refused(refusal)) => why = refusal,
        }
    }
    Err(format!("it can't be proven: {why}"))
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
