//! A protobuf writer for test models: a message is its bytes.

pub fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

#[derive(Clone, Default)]
pub struct Msg(pub Vec<u8>);

impl Msg {
    pub fn int(mut self, field: u64, n: i64) -> Self {
        self.0.extend(varint(field << 3));
        self.0.extend(varint(n as u64));
        self
    }

    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.0.extend(varint(field << 3 | 2));
        self.0.extend(varint(bytes.len() as u64));
        self.0.extend(bytes);
        self
    }

    pub fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub fn msg(self, field: u64, msg: Msg) -> Self {
        self.bytes(field, &msg.0)
    }
}

pub fn msg() -> Msg {
    Msg::default()
}

pub fn opset(domain: &str, version: i64) -> Msg {
    msg().text(1, domain).int(2, version)
}

/// A value of a tensor type; a negative dim is written as a name.
pub fn value(name: &str, datatype: i64, dims: &[i64]) -> Msg {
    let mut shape = msg();
    for dim in dims {
        shape = shape.msg(1, if *dim < 0 { msg().text(2, "batch") } else { msg().int(1, *dim) });
    }
    msg().text(1, name).msg(2, msg().msg(1, msg().int(1, datatype).msg(2, shape)))
}

/// An FP32 tensor.
pub fn tensor(name: &str, dims: &[i64]) -> Msg {
    let dims: Vec<u8> = dims.iter().flat_map(|d| varint(*d as u64)).collect();
    msg().bytes(1, &dims).int(2, 1).text(8, name)
}

pub fn external(tensor: Msg, entries: &[(&str, &str)]) -> Msg {
    let tensor = entries.iter().fold(tensor, |t, (k, v)| t.msg(13, msg().text(1, k).text(2, v)));
    tensor.int(14, 1)
}

pub fn node(domain: &str, op: &str, attributes: &[Msg]) -> Msg {
    let node = msg().text(1, "x").text(2, "y").text(4, op);
    let node = attributes.iter().fold(node, |n, a| n.msg(5, a.clone()));
    if domain.is_empty() { node } else { node.text(7, domain) }
}

/// A graph with one input `x` and one output `y`, both FP32 [batch, 4].
pub fn graph(nodes: &[Msg], initializers: &[Msg]) -> Msg {
    let graph = nodes.iter().fold(msg(), |g, n| g.msg(1, n.clone())).text(2, "g");
    let graph = initializers.iter().fold(graph, |g, t| g.msg(5, t.clone()));
    graph.msg(11, value("x", 1, &[-1, 4])).msg(12, value("y", 1, &[-1, 4]))
}

pub fn model(graph: Msg) -> Msg {
    msg().int(1, 8).text(2, "fixture").msg(7, graph).msg(8, opset("", 17))
}

/// Everything that the walk knows, in one small model.
pub fn rich() -> Vec<u8> {
    let raw = |name: &str| tensor(name, &[3, 4]).bytes(9, &[0x5a; 48]);
    let constant = node("", "Constant", &[msg().text(1, "value").msg(5, raw("c")).int(20, 4)]);
    let sparse = msg().msg(1, raw("values")).msg(2, tensor("indices", &[2]).bytes(9, &[0; 8])).int(3, 100);
    let inner = msg().msg(1, constant.clone()).msg(5, raw("inner")).msg(12, value("o", 7, &[]));
    let branch = node("", "If", &[msg().text(1, "then_branch").msg(6, inner.clone()), msg().msg(11, inner)]);
    let nodes = [
        node("", "Relu", &[msg().text(1, "alpha").int(3, -1).bytes(7, &[0; 400])]),
        constant,
        node("", "Constant", &[msg().msg(22, sparse.clone())]),
        branch,
        node("com.acme", "Frobnicate", &[]),
        node("local", "Twice", &[]),
    ];
    let far = external(tensor("far", &[1000]), &[("location", "w/far.bin"), ("offset", "4096")]);
    let typed = tensor("typed", &[2]).bytes(4, &[0; 8]);
    let graph = graph(&nodes, &[raw("w"), typed, far]).msg(15, sparse).msg(11, value("w", 1, &[3, 4]));
    let function = msg().text(1, "Twice").msg(7, node("", "Add", &[])).text(10, "local");
    model(graph)
        .msg(8, opset("com.acme", 1))
        .msg(25, function)
        .msg(20, msg().msg(1, msg().msg(5, raw("t"))))
        .0
}
