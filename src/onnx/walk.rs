use super::draft::Draft;
use super::schema::{Field, Kind, Number, Text, datatype, field, other_type};
use super::sniff::sniff;
use super::tensor::TensorDraft;
use super::wire::{Item, Value, Varint, Window, item, varint};
use super::{Model, OnnxError, limits};
use crate::formats::Dim;

/// A part of the file that the walk needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    pub offset: u64,
    /// At least 1, at most [`super::MAX_READ`].
    pub len: usize,
}

/// The streaming walk: see the module. Ranges only ever go forward, so a plain stream can serve them too.
pub struct Walk {
    size: u64,
    pos: u64,
    window: Window,
    wanted: Option<ByteRange>,
    read: u64,
    is_sniffed: bool,
    stack: Vec<Frame>,
    tensor: TensorDraft,
    draft: Draft,
}

struct Frame {
    kind: Kind,
    end: u64,
    /// Numbers of `Field::Single` that have stood here, one bit each: all are below 32.
    singles: u32,
    /// Of a node its operator, of a function its name.
    name: String,
    domain: String,
}

impl Frame {
    fn new(kind: Kind, end: u64) -> Self {
        Self { kind, end, singles: 0, name: String::new(), domain: String::new() }
    }
}

enum Step {
    Moved,
    NeedsMore,
    End,
}

impl Walk {
    /// `size` is the file's, bytes.
    pub fn new(size: u64) -> Result<Self, OnnxError> {
        if size == 0 {
            return Err(OnnxError::NotOnnx("the file is empty".into()));
        }
        Ok(Self {
            size,
            pos: 0,
            window: Window::new(),
            wanted: None,
            read: 0,
            is_sniffed: false,
            stack: vec![Frame::new(Kind::Model, size)],
            tensor: TensorDraft::default(),
            draft: Draft::default(),
        })
    }

    /// The bytes to supply next; `None` at the end of the file.
    pub fn wanted(&mut self) -> Result<Option<ByteRange>, OnnxError> {
        if self.wanted.is_some() {
            return Ok(self.wanted);
        }
        loop {
            match self.step()? {
                Step::Moved => {}
                Step::End => return Ok(None),
                Step::NeedsMore => {
                    let (offset, len) = self.window.want(self.pos, self.size);
                    self.wanted = Some(ByteRange { offset, len });
                    return Ok(self.wanted);
                }
            }
        }
    }

    /// Takes the wanted bytes, or the first of them; more than was wanted is left aside.
    pub fn supply(&mut self, bytes: &[u8]) -> Result<(), OnnxError> {
        let Some(range) = self.wanted.filter(|_| !bytes.is_empty()) else { return Ok(()) };
        self.wanted = None;
        let bytes = &bytes[..bytes.len().min(range.len)];
        self.read += bytes.len() as u64;
        if self.read > limits::READ {
            let megabytes = limits::READ >> 20;
            return Err(OnnxError::Limit(format!("it has more than {megabytes} MiB beside its weights")));
        }
        self.window.push(bytes);
        Ok(())
    }

    /// Bytes supplied so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// What was found. An error before the end of the file.
    pub fn finish(mut self) -> Result<Model, OnnxError> {
        if self.wanted()?.is_some() {
            return Err(OnnxError::Truncated { offset: self.pos, announced: self.size, size: self.pos });
        }
        self.draft.finish()
    }

    /// One item. Changes nothing when it needs more bytes.
    fn step(&mut self) -> Result<Step, OnnxError> {
        let Some(frame) = self.stack.last() else { return Ok(Step::End) };
        let (kind, end) = (frame.kind, frame.end);
        if self.pos >= end {
            return self.close();
        }
        let held = self.window.from(self.pos);
        let whole = held.len() as u64 >= end - self.pos;
        let held = &held[..held.len().min(usize::try_from(end - self.pos).unwrap_or(usize::MAX))];
        if !self.is_sniffed {
            // 512 bytes reach the tar magic; a shorter file is all there is.
            if !whole && held.len() < 512 {
                return Ok(Step::NeedsMore);
            }
            if let Some(what) = sniff(held) {
                return Err(OnnxError::NotOnnx(what.into()));
            }
            self.is_sniffed = true;
        }
        if kind == Kind::PackedDims {
            return match varint(held) {
                Varint::Value(dim, len) => {
                    self.tensor.dim(dim);
                    self.pos += len as u64;
                    Ok(Step::Moved)
                }
                Varint::Short if !whole => Ok(Step::NeedsMore),
                _ => Err(self.damaged("a dimension is no number")),
            };
        }
        let Item { number, value, header } = match item(held) {
            Ok(Some(item)) => item,
            Ok(None) if !whole => return Ok(Step::NeedsMore),
            Ok(None) if kind == Kind::Model => return Err(self.too_short(self.size.saturating_add(1))),
            Ok(None) => return Err(self.damaged("a field ends with its message")),
            Err(what) => return Err(self.damaged(what)),
        };
        let start = self.pos + header;
        let len = if let Value::Bytes(len) = value { len } else { 0 };
        let content_end = start.saturating_add(len);
        if content_end > end {
            // The outermost message is the file: nothing inside it can be the first to reach past its end.
            let is_file = kind == Kind::Model;
            return Err(if is_file {
                self.too_short(content_end)
            } else {
                self.damaged("a field is longer than its message")
            });
        }
        if kind == Kind::Type
            && let Some(name) = other_type(number)
        {
            self.draft.value.datatype = name.into();
        }
        match (field(kind, number), value) {
            (Field::Raw, Value::Bytes(len)) => {
                if self.tensor.raw.replace(len).is_some() {
                    return Err(self.damaged("a tensor has raw data twice"));
                }
            }
            (Field::Typed, Value::Bytes(len)) => self.tensor.typed += len,
            (Field::Typed, _) => self.tensor.typed += header,
            (Field::Single(into), Value::Bytes(_)) => {
                let bit = 1u32 << (number & 31);
                let Some(frame) = self.stack.last_mut() else { return Ok(Step::End) };
                if frame.singles & bit != 0 {
                    return Err(self.damaged("a field that may stand once stands twice"));
                }
                frame.singles |= bit;
                return self.open(into, start, content_end);
            }
            (Field::Message(into), Value::Bytes(_)) => return self.open(into, start, content_end),
            (Field::Number(Number::Dims), Value::Bytes(_)) => {
                return self.open(Kind::PackedDims, start, content_end);
            }
            (Field::Number(target), Value::Number(n)) => self.number(target, n)?,
            (Field::Text(target), Value::Bytes(len)) => {
                if len > limits::NAME {
                    self.long_text(target)?;
                } else {
                    let held = self.window.from(start);
                    let Some(bytes) = held.get(..len as usize) else { return Ok(Step::NeedsMore) };
                    let Ok(text) = std::str::from_utf8(bytes) else {
                        return Err(self.damaged("a name is not UTF-8"));
                    };
                    let text = text.to_owned();
                    self.text(target, text);
                }
            }
            (Field::Skip, _) => {}
            _ => return Err(self.damaged("a field has the wrong wire type")),
        }
        self.pos = content_end;
        Ok(Step::Moved)
    }

    fn open(&mut self, kind: Kind, start: u64, end: u64) -> Result<Step, OnnxError> {
        // The file itself is no nested message.
        if self.stack.len() > limits::DEPTH {
            return Err(OnnxError::Invalid(format!(
                "the graph is nested deeper than {} messages, ONNX Runtime's own limit, at byte {start}",
                limits::DEPTH
            )));
        }
        match kind {
            Kind::MainGraph => self.draft.has_graph = true,
            Kind::Tensor => {
                self.draft.count_tensor()?;
                self.tensor = TensorDraft::default();
            }
            Kind::Shape => self.draft.value.shape = Some(Vec::new()),
            _ => {}
        }
        self.stack.push(Frame::new(kind, end));
        self.pos = start;
        Ok(Step::Moved)
    }

    fn close(&mut self) -> Result<Step, OnnxError> {
        let Some(frame) = self.stack.pop() else { return Ok(Step::End) };
        match frame.kind {
            Kind::Opset => self.draft.end_opset()?,
            Kind::Node => self.draft.end_node(frame.name, frame.domain)?,
            Kind::Function => self.draft.end_function(frame.name, frame.domain)?,
            Kind::Tensor => {
                let tensor = std::mem::take(&mut self.tensor);
                // A sparse initializer is named by its values.
                let outer = self.stack.iter().rev().map(|f| f.kind).find(|kind| *kind != Kind::Sparse);
                if outer == Some(Kind::MainGraph) {
                    self.draft.initializer(&tensor.name);
                }
                tensor.finish(&mut self.draft)?;
            }
            Kind::Entry => self.tensor.entry(),
            Kind::Input => self.draft.end_value(true)?,
            Kind::Output => self.draft.end_value(false)?,
            Kind::Dim => self.draft.end_dim()?,
            _ => {}
        }
        Ok(Step::Moved)
    }

    fn number(&mut self, target: Number, n: u64) -> Result<(), OnnxError> {
        let value = &mut self.draft.value;
        match target {
            Number::IrVersion if n > i64::MAX as u64 => {
                return Err(self.damaged("the IR version is negative"));
            }
            Number::IrVersion => self.draft.ir_version = Some(n),
            Number::OpsetVersion => self.draft.opset.1 = n,
            Number::DataType => self.tensor.datatype = n,
            Number::Dims => self.tensor.dim(n),
            Number::DataLocation => self.tensor.is_external = n == 1,
            Number::ElemType => {
                value.datatype = datatype(n).map_or_else(|| format!("UNKNOWN({n})"), |(name, _)| name.into());
            }
            // Some exporters write -1 for "any".
            Number::DimValue => {
                value.dim = Some(i64::try_from(n).map_or_else(|_| Dim::Dynamic(String::new()), Dim::Fixed));
            }
        }
        Ok(())
    }

    fn text(&mut self, target: Text, text: String) {
        match target {
            Text::Producer => self.draft.producer = text.chars().take(128).collect(),
            Text::OpsetDomain => self.draft.opset.0 = text,
            Text::TensorName => self.tensor.name = text,
            Text::EntryKey => self.tensor.key = text,
            Text::EntryValue => self.tensor.value = Some(text),
            Text::ValueName => self.draft.value.name = text,
            Text::DimParam => self.draft.value.dim = Some(Dim::Dynamic(text)),
            Text::Name | Text::Domain => {
                if let Some(frame) = self.stack.last_mut() {
                    if target == Text::Name { frame.name = text } else { frame.domain = text }
                }
            }
        }
    }

    /// Free text may be long; what is compared or shown may not.
    fn long_text(&mut self, target: Text) -> Result<(), OnnxError> {
        match target {
            Text::Producer | Text::EntryValue => Ok(()),
            _ => Err(self.damaged("a name is longer than 4096 bytes")),
        }
    }

    fn damaged(&self, what: &str) -> OnnxError {
        // Random bytes rarely get past their first fields.
        if self.draft.ir_version.is_none() && !self.draft.has_graph {
            return OnnxError::NotOnnx(format!("at byte {} {what}", self.pos));
        }
        OnnxError::Damaged { offset: self.pos, what: what.into() }
    }

    fn too_short(&self, announced: u64) -> OnnxError {
        if self.draft.ir_version.is_none() && !self.draft.has_graph {
            return self.damaged("a field is longer than the file");
        }
        OnnxError::Truncated { offset: self.pos, announced, size: self.size }
    }
}
