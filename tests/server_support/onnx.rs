//! Tiny ONNX models, written by hand: the fields of onnx.proto that a runtime needs.

/// Protobuf, the writing half.
#[derive(Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub fn message(self, field: u64, value: Message) -> Self {
        self.bytes(field, &value.0)
    }

    pub fn all(self, field: u64, values: impl IntoIterator<Item = Message>) -> Self {
        values.into_iter().fold(self, |message, value| message.message(field, value))
    }
}

/// TensorProto.DataType
pub mod types {
    pub const FLOAT: i64 = 1;
    pub const UINT8: i64 = 2;
    pub const INT8: i64 = 3;
    pub const UINT16: i64 = 4;
    pub const INT16: i64 = 5;
    pub const INT32: i64 = 6;
    pub const INT64: i64 = 7;
    pub const STRING: i64 = 8;
    pub const BOOL: i64 = 9;
    pub const FLOAT16: i64 = 10;
    pub const DOUBLE: i64 = 11;
    pub const UINT32: i64 = 12;
    pub const UINT64: i64 = 13;
    pub const BFLOAT16: i64 = 16;
}

/// A graph input or output; an axis below zero is dynamic.
pub fn value(name: &str, element: i64, shape: &[i64]) -> Message {
    let dims = shape.iter().enumerate().map(|(i, dim)| match dim {
        0.. => Message::default().int(1, *dim),
        _ => Message::default().text(2, &format!("{name}_{i}")),
    });
    let tensor = Message::default().int(1, element).message(2, Message::default().all(1, dims));
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

pub fn node(operator: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let node = inputs.iter().fold(Message::default(), |node, name| node.text(1, name));
    let node = outputs.iter().fold(node, |node, name| node.text(2, name));
    node.text(4, operator).text(7, domain)
}

pub fn model(opset: i64, nodes: Vec<Message>, inputs: Vec<Message>, outputs: Vec<Message>) -> Vec<u8> {
    model_with(opset, nodes, inputs, outputs, vec![])
}

pub fn model_with(
    opset: i64,
    nodes: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
    initializers: Vec<Message>,
) -> Vec<u8> {
    let graph =
        Message::default().all(1, nodes).text(2, "g").all(5, initializers).all(11, inputs).all(12, outputs);
    let opset = Message::default().text(1, "").int(2, opset);
    let custom = Message::default().text(1, "com.example").int(2, 1);
    Message::default().int(1, 8).message(7, graph).message(8, opset).message(8, custom).0
}

/// `size` floats of zero.
pub fn zeros(name: &str, size: usize) -> Message {
    Message::default().int(1, size as i64).int(2, types::FLOAT).text(8, name).bytes(9, &vec![0; size * 4])
}

pub fn identity(element: i64, shape: &[i64]) -> Vec<u8> {
    model(
        17,
        vec![node("Identity", "", &["x"], &["y"])],
        vec![value("x", element, shape)],
        vec![value("y", element, shape)],
    )
}

/// `sum = a + b`, both of two dynamic axes; `same` is `a` itself.
pub fn add() -> Vec<u8> {
    model(
        17,
        vec![node("Add", "", &["a", "b"], &["sum"]), node("Identity", "", &["a"], &["same"])],
        vec![value("a", types::FLOAT, &[-1, -1]), value("b", types::FLOAT, &[-1, -1])],
        vec![value("sum", types::FLOAT, &[-1, -1]), value("same", types::FLOAT, &[-1, -1])],
    )
}
