//! Small ONNX models, written by hand.

#[path = "../../../src/onnx/fixture.rs"]
#[allow(dead_code)]
mod fixture;

use fixture::{Msg, external, graph, model, msg, node, opset, tensor, value, varint};

/// `y = Relu(x)` of FP32 [batch, 4].
pub fn relu() -> Vec<u8> {
    operator("Relu")
}

/// `y = -x`
pub fn neg() -> Vec<u8> {
    operator("Neg")
}

pub fn operator(name: &str) -> Vec<u8> {
    model(graph(&[node("", name, &[])], &[])).0
}

/// `y = Relu(x)`, and a tensor of so many bytes that nothing uses.
pub fn padded(bytes: usize) -> Vec<u8> {
    let count = (bytes / 4) as i64;
    let unused = tensor("unused", &[count]).bytes(9, &vec![0; bytes / 4 * 4]);
    model(graph(&[node("", "Relu", &[])], &[unused])).0
}

/// `output = Relu(x)`
pub fn renamed(output: &str) -> Vec<u8> {
    let graph = msg().msg(1, named(&["x"], output, "Relu")).text(2, "g");
    let [x, y] = ["x", output].map(|name| value(name, 1, &[-1, 4]));
    model(graph.msg(11, x).msg(12, y)).0
}

pub fn of_opset(version: i64) -> Vec<u8> {
    let graph = graph(&[node("", "Relu", &[])], &[]);
    msg().int(1, 8).text(2, "fixture").msg(7, graph).msg(8, opset("", version)).0
}

/// `y = x + w`, with `w` in another file.
pub fn with_weights_in(location: &str) -> Vec<u8> {
    let w = external(tensor("w", &[4]), &[("location", location), ("offset", "0"), ("length", "16")]);
    model(graph(&[node("", "Add", &[]).text(1, "w")], &[w])).0
}

/// Four FP32.
pub fn weights(values: [f32; 4]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// `y = x + max(a tensor of so many FP32)`: nothing on disk, gigabytes in memory.
pub fn hungry(elements: i64) -> Vec<u8> {
    let shape = msg().bytes(1, &varint(1)).int(2, 7).text(8, "shape").bytes(7, &varint(elements as u64));
    let nodes = [
        named(&["shape"], "c", "ConstantOfShape"),
        named(&["c"], "m", "ReduceMax").msg(5, keepdims(0)),
        named(&["x", "m"], "y", "Add"),
    ];
    model(graph(&nodes, &[shape])).0
}

/// `y = Relu(x)`, and the product of two matrices that nothing uses: milliseconds of a core.
pub fn slow() -> Vec<u8> {
    let side = varint(1024);
    let shape =
        msg().bytes(1, &varint(2)).int(2, 7).text(8, "shape").bytes(7, &[side.clone(), side].concat());
    let nodes = [
        // Of x: a product of constants would be made once.
        named(&["x"], "m", "ReduceMax").msg(5, keepdims(1)),
        named(&["m", "shape"], "w", "Expand"),
        named(&["w", "w"], "product", "MatMul"),
        named(&["product"], "p", "ReduceMax").msg(5, keepdims(0)),
        named(&["p", "p"], "zero", "Sub"),
        named(&["x"], "r", "Relu"),
        named(&["r", "zero"], "y", "Add"),
    ];
    model(graph(&nodes, &[shape])).0
}

fn named(inputs: &[&str], output: &str, operator: &str) -> Msg {
    let node = inputs.iter().fold(msg(), |n, i| n.text(1, i));
    node.text(2, output).text(4, operator)
}

fn keepdims(value: i64) -> Msg {
    msg().text(1, "keepdims").int(3, value).int(20, 2)
}
