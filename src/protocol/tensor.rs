use bytemuck::NoUninit;
use bytes::Bytes;

use super::metadata::Shape;
use super::{Datatype, Error, MAX_RANK};

/// A named tensor, in the protocol's binary form, whatever form it came in: one buffer, no copy on the way through.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub datatype: Datatype,
    /// No axis is negative.
    pub shape: Vec<i64>,
    /// Row major, little endian. `BYTES`: each element follows its length, 4 bytes. May start at any address.
    data: Bytes,
}

impl Tensor {
    /// Checks `data` against `datatype` and `shape`.
    pub fn new(name: String, datatype: Datatype, shape: Vec<i64>, data: Bytes) -> Result<Self, Error> {
        let count = element_count(&shape).map_err(|e| Error::invalid(format!("tensor {name:?}: {e}")))?;
        let wrong = |what: String| {
            let shape = Shape(&shape);
            Err(Error::invalid(format!("tensor {name:?}: {datatype} {shape} has {count} elements, {what}")))
        };
        match datatype.size() {
            Some(size) => match count.checked_mul(size) {
                Some(want) if want == data.len() => {}
                Some(want) => return wrong(format!("{want} bytes, but {} bytes came", data.len())),
                None => return wrong("more than can be addressed".into()),
            },
            None => {
                let mut elements = bytes_elements(&data);
                let found = elements.by_ref().count();
                if !elements.rest.is_empty() {
                    return wrong(format!("but the length of element {found} reaches beyond the data"));
                }
                if found != count {
                    return wrong(format!("but {found} came"));
                }
            }
        }
        // C++ must never see a bool that is neither 0 nor 1.
        if datatype == Datatype::Bool && data.iter().any(|b| *b > 1) {
            return Err(Error::invalid(format!("tensor {name:?}: a BOOL byte is neither 0 nor 1")));
        }
        Ok(Self { name, datatype, shape, data })
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }

    pub fn into_data(self) -> Bytes {
        self.data
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        // Checked when it was built.
        self.shape.iter().product::<i64>() as usize
    }

    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }
}

/// The number of elements of a shape; a scalar has one.
pub fn element_count(shape: &[i64]) -> Result<usize, String> {
    if shape.len() > MAX_RANK {
        return Err(format!("{} axes are more than {MAX_RANK}", shape.len()));
    }
    // Zero-sized axes count as one here: the strides of [0, 2^62, 2^62] overflow too.
    let mut extent: i64 = 1;
    for dim in shape {
        if *dim < 0 {
            return Err(format!("shape {} has a negative axis", Shape(shape)));
        }
        extent = extent
            .checked_mul((*dim).max(1))
            .filter(|n| *n <= i64::MAX / 8)
            .ok_or_else(|| format!("shape {} has more elements than can be addressed", Shape(shape)))?;
    }
    Ok(if shape.contains(&0) { 0 } else { extent as usize })
}

/// The elements of `BYTES` data. Stops where a length reaches beyond the data, with `rest` not empty.
pub fn bytes_elements(data: &[u8]) -> Elements<'_> {
    Elements { rest: data }
}

/// The vector itself becomes the buffer.
pub(super) fn owned<T: NoUninit + Send + 'static>(mut values: Vec<T>) -> Bytes {
    // Room that was given for a shape's promise, and not needed.
    if values.len() < values.capacity() / 2 {
        values.shrink_to_fit();
    }
    struct Owner<T>(Vec<T>);
    impl<T: NoUninit> AsRef<[u8]> for Owner<T> {
        fn as_ref(&self) -> &[u8] {
            bytemuck::must_cast_slice(&self.0)
        }
    }
    Bytes::from_owner(Owner(values))
}

pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, tail) = self.rest.split_first_chunk::<4>()?;
        let (element, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = tail;
        Some(element)
    }
}

#[cfg(test)]
mod tests;
