use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use super::fixture::{Msg, external, graph, msg, node, opset, tensor, value, varint};

/// Bytes with long runs of zeros that are never held.
#[derive(Clone, Default)]
pub struct Sparse {
    /// Bytes, then so many zeros.
    pieces: Vec<(Vec<u8>, u64)>,
}

impl Sparse {
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { pieces: vec![(bytes, 0)] }
    }

    pub fn zeros(len: u64) -> Self {
        Self { pieces: vec![(Vec::new(), len)] }
    }

    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|(bytes, zeros)| bytes.len() as u64 + zeros).sum()
    }

    fn then(mut self, other: Sparse) -> Self {
        self.pieces.extend(other.pieces);
        self
    }

    /// Itself as a field of a message.
    fn field(self, number: u64) -> Self {
        let mut header = varint(number << 3 | 2);
        header.extend(varint(self.len()));
        Sparse::of(header).then(self)
    }

    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        for (bytes, zeros) in &self.pieces {
            for (len, bytes) in [(bytes.len() as u64, Some(bytes)), (*zeros, None)] {
                let (from, to) = (range.start.clamp(at, at + len), range.end.clamp(at, at + len));
                match bytes {
                    Some(bytes) => out.extend(&bytes[(from - at) as usize..(to - at) as usize]),
                    None => out.resize(out.len() + (to - from) as usize, 0),
                }
                at += len;
            }
        }
        out
    }

    /// Takes no more of the disk than its bytes.
    pub fn write(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.set_len(self.len()).unwrap();
        for (bytes, zeros) in &self.pieces {
            file.write_all(bytes).unwrap();
            file.seek(SeekFrom::Current(*zeros as i64)).unwrap();
        }
    }
}

/// A model with so many tensors of `rows` × 1,000 FP32 inside.
pub fn inline_model(tensors: usize, rows: i64) -> Sparse {
    let mut body = Sparse::of(msg().msg(1, node("", "Relu", &[])).text(2, "g").0);
    for i in 0..tensors {
        let raw = Sparse::zeros(rows as u64 * 4000).field(9);
        body =
            body.then(Sparse::of(tensor(&format!("layer.{i}.weight"), &[rows, 1000]).0).then(raw).field(5));
    }
    let ends = msg().msg(11, value("x", 1, &[-1, 4])).msg(12, value("y", 1, &[-1, 4])).0;
    let head = Sparse::of(msg().int(1, 8).text(2, "fixture").0);
    let opset = Sparse::of(msg().msg(8, opset("", 17)).0);
    head.then(body.then(Sparse::of(ends)).field(7)).then(opset)
}

/// The same with its tensors in `weights.bin`; the model, and how long that file is.
pub fn with_external_data(tensors: usize, rows: i64) -> (Vec<u8>, u64) {
    let size = rows as u64 * 4000;
    let tensors: Vec<Msg> = (0..tensors)
        .map(|i| {
            let (offset, length) = ((i as u64 * size).to_string(), size.to_string());
            let entries = [("location", "weights.bin"), ("offset", &offset), ("length", &length)];
            external(tensor(&format!("layer.{i}.weight"), &[rows, 1000]), &entries)
        })
        .collect();
    let model = super::fixture::model(graph(&[node("", "Relu", &[])], &tensors)).0;
    (model, tensors.len() as u64 * size)
}
