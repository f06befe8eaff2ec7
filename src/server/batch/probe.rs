//! The proof that a request's answer does not depend on its neighbours.

use bytes::Bytes;

use super::{BatchAxes, join, split};
use crate::protocol::{Datatype, Tensor, TensorSpec, bfloat, half};
use crate::server::engine::{RunError, Runner};

/// What is tried.
pub struct Probe<'a> {
    pub inputs: &'a [TensorSpec],
    pub axes: &'a BatchAxes,
    /// Of dynamic axes other than the batch: one that the model is known to accept.
    pub length: i64,
}

/// Rows with different contents; each is run alone, and beside others.
const ROWS: [u64; 3] = [1, 2, 3];
const COMPANIES: [&[usize]; 2] = [&[0, 1, 2], &[2, 0]];

/// Why requests must not share a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Nothing is known: the model does not take such inputs.
    Refused(String),
    /// An answer changes with its neighbours.
    Differs(String),
}

/// Runs made-up requests one by one and together. True: the answers are the same bit by bit; false: within the tolerance
/// of their type, since sums in another order round differently.
pub fn prove(runner: &mut dyn Runner, probe: &Probe<'_>) -> Result<bool, Unproven> {
    let outputs: Vec<usize> = (0..probe.axes.outputs.len()).collect();
    let rows: Vec<Vec<Tensor>> =
        ROWS.iter().map(|seed| probe.row(*seed)).collect::<Result<_, _>>().map_err(Unproven::Refused)?;
    let refused = |e: RunError| Unproven::Refused(format!("the model refuses made-up inputs: {e}"));
    let alone: Vec<Vec<Tensor>> =
        rows.iter().map(|row| runner.run(row, &outputs).map_err(refused)).collect::<Result<_, _>>()?;
    let mut identical = true;
    for company in COMPANIES {
        let joined = (0..probe.inputs.len())
            .map(|input| {
                let parts: Vec<&Tensor> = company.iter().map(|row| &rows[*row][input]).collect();
                join(&parts, probe.axes.inputs[input])
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(Unproven::Refused)?;
        for (index, whole) in runner.run(&joined, &outputs).map_err(refused)?.into_iter().enumerate() {
            let parts = split(whole, probe.axes.outputs[index], &vec![1; company.len()])
                .map_err(Unproven::Differs)?;
            for (part, row) in parts.iter().zip(company) {
                let expected = &alone[*row][index];
                if part == expected {
                    continue;
                }
                identical = false;
                if !agree(part, expected) {
                    return Err(Unproven::Differs(format!(
                        "output {:?} of a request is another when it shares a run with others",
                        expected.name
                    )));
                }
            }
        }
    }
    Ok(identical)
}

impl Probe<'_> {
    fn row(&self, seed: u64) -> Result<Vec<Tensor>, String> {
        let tensor = |(spec, axis): (&TensorSpec, &usize)| {
            let mut shape: Vec<i64> =
                spec.shape.iter().map(|dim| if *dim < 0 { self.length } else { *dim }).collect();
            shape[*axis] = 1;
            let count = shape.iter().try_fold(1i64, |n, dim| n.checked_mul(*dim)).filter(|n| *n <= 1 << 24);
            let count = count.ok_or_else(|| format!("input {:?} is too large to make up", spec.name))?;
            let data = made_up(spec.datatype, count as usize, seed);
            Tensor::new(spec.name.clone(), spec.datatype, shape, data).map_err(|e| e.to_string())
        };
        self.inputs.iter().zip(&self.axes.inputs).map(tensor).collect()
    }
}

/// Values that most models take: numbers between -1 and 1, and the integers 0 and 1, which are tokens, masks, classes.
fn made_up(datatype: Datatype, count: usize, seed: u64) -> Bytes {
    let mut state = seed;
    // SplitMix64: the same everywhere, and well mixed from the first number on.
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut data = Vec::with_capacity(count * datatype.size().unwrap_or(5));
    for _ in 0..count {
        let random = next();
        let unit = (random >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        match datatype {
            Datatype::Fp32 => data.extend_from_slice(&(unit as f32).to_le_bytes()),
            Datatype::Fp64 => data.extend_from_slice(&unit.to_le_bytes()),
            // 1, -1 and 0.5, in their formats.
            Datatype::Fp16 => {
                data.extend_from_slice(&[0x3c00u16, 0xbc00, 0x3800][(random % 3) as usize].to_le_bytes())
            }
            Datatype::Bf16 => {
                data.extend_from_slice(&[0x3f80u16, 0xbf80, 0x3f00][(random % 3) as usize].to_le_bytes())
            }
            Datatype::Bytes => data.extend_from_slice(&[1, 0, 0, 0, b'a' + (random % 2) as u8]),
            _ => {
                data.push((random % 2) as u8);
                data.resize(data.len() + datatype.size().unwrap_or(1) - 1, 0);
            }
        }
    }
    data.into()
}

/// Whether two tensors differ by rounding only.
fn agree(one: &Tensor, other: &Tensor) -> bool {
    if one.shape != other.shape || one.datatype != other.datatype {
        return false;
    }
    let (a, b) = (one.data(), other.data());
    let within = |x: f64, y: f64, relative: f64, absolute: f64| {
        x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= absolute + relative * y.abs()
    };
    macro_rules! pairs {
        ($size:literal, $read:expr, $relative:expr, $absolute:expr) => {
            a.as_chunks::<$size>().0.iter().zip(b.as_chunks::<$size>().0).all(|(x, y)| {
                let read = $read;
                within(read(*x), read(*y), $relative, $absolute)
            })
        };
    }
    match one.datatype {
        Datatype::Fp32 => pairs!(4, |v| f64::from(f32::from_le_bytes(v)), 1e-4, 1e-5),
        Datatype::Fp64 => pairs!(8, f64::from_le_bytes, 1e-4, 1e-5),
        // Ten bits of fraction, and seven.
        Datatype::Fp16 => pairs!(2, |v| half(u16::from_le_bytes(v)), 1e-2, 1e-3),
        Datatype::Bf16 => pairs!(2, |v| bfloat(u16::from_le_bytes(v)), 4e-2, 1e-3),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;
