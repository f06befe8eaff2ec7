//! What a message will cost in memory, before it is read: a tensor of nothing takes two bytes on the wire and some
//! hundred in memory, so 64 MiB of them would take 10 GiB.

use crate::protocol::{MAX_PARTS, MAX_RANK};

/// Strings in typed contents, each with a header of its own.
const MAX_STRINGS: usize = 1 << 20;
/// A number on the wire, bytes.
const LONGEST_VARINT: usize = 10;

/// Refuses a `ModelInferRequest` with more parts than any model has.
///
/// # Errors
/// A sentence.
pub fn check(message: &[u8]) -> Result<(), String> {
    let mut parts = 0;
    each(message, |field, value| {
        match field {
            // parameters, outputs and theirs, raw_input_contents
            4 | 7 => parts += 1,
            6 => parts += 1 + count(value, 2)?,
            5 => parts += 1 + check_tensor(value)?,
            _ => {}
        }
        match parts > MAX_PARTS {
            true => Err(format!("more than {MAX_PARTS} tensors, outputs and parameters")),
            false => Ok(()),
        }
    })
}

/// Refuses a `ModelInferResponse` with more parts than any model has.
///
/// # Errors
/// A sentence.
pub fn check_response(message: &[u8]) -> Result<(), String> {
    let mut parts = 0;
    each(message, |field, value| {
        match field {
            // parameters, raw_output_contents
            4 | 6 => parts += 1,
            5 => parts += 1 + check_tensor(value)?,
            _ => {}
        }
        match parts > MAX_PARTS {
            true => Err(format!("more than {MAX_PARTS} tensors and parameters")),
            false => Ok(()),
        }
    })
}

/// The number of a tensor's parameters.
fn check_tensor(tensor: &[u8]) -> Result<usize, String> {
    let (mut parameters, mut axes, mut strings) = (0, 0, 0);
    each(tensor, |field, value| {
        match field {
            // An axis alone, or a packed list of them.
            3 if value.is_empty() => axes += 1,
            3 => axes += value.len().div_ceil(LONGEST_VARINT),
            4 => parameters += 1,
            5 => strings += count(value, 8)?,
            _ => {}
        }
        if axes > MAX_RANK {
            return Err(format!("a tensor has more than {MAX_RANK} axes"));
        }
        if strings > MAX_STRINGS {
            return Err(format!("more than {MAX_STRINGS} strings: send them in raw_input_contents"));
        }
        Ok(())
    })?;
    Ok(parameters)
}

fn count(message: &[u8], wanted: u64) -> Result<usize, String> {
    let mut count = 0;
    each(message, |field, _| {
        count += usize::from(field == wanted);
        Ok(())
    })?;
    Ok(count)
}

/// Shows the fields of a message, with the bytes of those that have a length.
fn each<'a>(
    mut rest: &'a [u8],
    mut see: impl FnMut(u64, &'a [u8]) -> Result<(), String>,
) -> Result<(), String> {
    while !rest.is_empty() {
        let (field, value) = next(&mut rest).ok_or("the message is damaged")?;
        see(field, value)?;
    }
    Ok(())
}

/// None: no field. Groups, which only proto2 had, are none: what they hold would go unseen.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => varint(rest).map(|_| &[][..])?,
        1 => rest.split_off(..8).map(|_| &[][..])?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            rest.split_off(..length)?
        }
        5 => rest.split_off(..4).map(|_| &[][..])?,
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..LONGEST_VARINT {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
