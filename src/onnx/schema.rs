//! The part of `onnx-ml.proto` that the walk descends into. Everything else is stepped over by its length.

/// A message that the walk can stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Opset,
    Training,
    Function,
    /// The model's own graph: its inputs and outputs are the model's.
    MainGraph,
    Graph,
    Node,
    Attribute,
    Tensor,
    /// A packed list of numbers: no tags inside.
    PackedDims,
    Sparse,
    /// A key and a value of a tensor's external data.
    Entry,
    Input,
    Output,
    Type,
    TensorType,
    Shape,
    Dim,
}

pub(super) enum Field {
    Skip,
    Message(Kind),
    /// A message that may stand only once: protobuf would merge two, no exporter writes two, and merging is where two
    /// readers begin to disagree.
    Single(Kind),
    Text(Text),
    Number(Number),
    /// Tensor data: counted, never read.
    Raw,
    Typed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Producer,
    OpsetDomain,
    /// The operator of a node, the name of a function.
    Name,
    Domain,
    TensorName,
    EntryKey,
    EntryValue,
    ValueName,
    DimParam,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    IrVersion,
    OpsetVersion,
    DataType,
    /// Alone, or a packed list.
    Dims,
    DataLocation,
    ElemType,
    DimValue,
}

pub(super) fn field(kind: Kind, number: u64) -> Field {
    use Field::{Message, Raw, Single, Skip, Typed};
    match (kind, number) {
        (Kind::Model, 1) => Field::Number(Number::IrVersion),
        (Kind::Model, 2) => Field::Text(Text::Producer),
        (Kind::Model, 7) => Single(Kind::MainGraph),
        (Kind::Model, 8) => Message(Kind::Opset),
        (Kind::Model, 20) => Message(Kind::Training),
        (Kind::Model, 25) => Message(Kind::Function),
        (Kind::Opset, 1) => Field::Text(Text::OpsetDomain),
        (Kind::Opset, 2) => Field::Number(Number::OpsetVersion),
        (Kind::Training, 1 | 2) => Single(Kind::Graph),
        (Kind::Function, 1) => Field::Text(Text::Name),
        (Kind::Function, 10) => Field::Text(Text::Domain),
        (Kind::Function, 7) => Message(Kind::Node),
        (Kind::Function, 11) => Message(Kind::Attribute),
        (Kind::MainGraph | Kind::Graph, 1) => Message(Kind::Node),
        (Kind::MainGraph | Kind::Graph, 5) => Message(Kind::Tensor),
        (Kind::MainGraph | Kind::Graph, 15) => Message(Kind::Sparse),
        (Kind::MainGraph, 11) => Message(Kind::Input),
        (Kind::MainGraph, 12) => Message(Kind::Output),
        (Kind::Node, 4) => Field::Text(Text::Name),
        (Kind::Node, 7) => Field::Text(Text::Domain),
        (Kind::Node, 5) => Message(Kind::Attribute),
        (Kind::Attribute, 5) => Single(Kind::Tensor),
        (Kind::Attribute, 10) => Message(Kind::Tensor),
        (Kind::Attribute, 6) => Single(Kind::Graph),
        (Kind::Attribute, 11) => Message(Kind::Graph),
        (Kind::Attribute, 22) => Single(Kind::Sparse),
        (Kind::Attribute, 23) => Message(Kind::Sparse),
        (Kind::Tensor, 1) => Field::Number(Number::Dims),
        (Kind::Tensor, 2) => Field::Number(Number::DataType),
        (Kind::Tensor, 8) => Field::Text(Text::TensorName),
        (Kind::Tensor, 9) => Raw,
        (Kind::Tensor, 4..=7 | 10 | 11) => Typed,
        (Kind::Tensor, 13) => Message(Kind::Entry),
        (Kind::Tensor, 14) => Field::Number(Number::DataLocation),
        (Kind::Sparse, 1 | 2) => Single(Kind::Tensor),
        (Kind::Entry, 1) => Field::Text(Text::EntryKey),
        (Kind::Entry, 2) => Field::Text(Text::EntryValue),
        (Kind::Input | Kind::Output, 1) => Field::Text(Text::ValueName),
        (Kind::Input | Kind::Output, 2) => Single(Kind::Type),
        (Kind::Type, 1) => Single(Kind::TensorType),
        (Kind::TensorType, 1) => Field::Number(Number::ElemType),
        (Kind::TensorType, 2) => Single(Kind::Shape),
        (Kind::Shape, 1) => Message(Kind::Dim),
        (Kind::Dim, 1) => Field::Number(Number::DimValue),
        (Kind::Dim, 2) => Field::Text(Text::DimParam),
        _ => Skip,
    }
}

/// What stands in `TypeProto` when it is no tensor, as ONNX Runtime calls it.
pub(super) fn other_type(number: u64) -> Option<&'static str> {
    match number {
        4 => Some("seq"),
        5 => Some("map"),
        7 => Some("opaque"),
        8 => Some("sparse_tensor"),
        9 => Some("optional"),
        _ => None,
    }
}

/// `TensorProto.DataType`: the Open Inference Protocol's name, or ONNX's where that has none; bits an element.
pub(super) fn datatype(code: u64) -> Option<(&'static str, Option<u64>)> {
    Some(match code {
        1 => ("FP32", Some(32)),
        2 => ("UINT8", Some(8)),
        3 => ("INT8", Some(8)),
        4 => ("UINT16", Some(16)),
        5 => ("INT16", Some(16)),
        6 => ("INT32", Some(32)),
        7 => ("INT64", Some(64)),
        8 => ("BYTES", None),
        9 => ("BOOL", Some(8)),
        10 => ("FP16", Some(16)),
        11 => ("FP64", Some(64)),
        12 => ("UINT32", Some(32)),
        13 => ("UINT64", Some(64)),
        14 => ("COMPLEX64", Some(64)),
        15 => ("COMPLEX128", Some(128)),
        16 => ("BF16", Some(16)),
        17 => ("FLOAT8E4M3FN", Some(8)),
        18 => ("FLOAT8E4M3FNUZ", Some(8)),
        19 => ("FLOAT8E5M2", Some(8)),
        20 => ("FLOAT8E5M2FNUZ", Some(8)),
        21 => ("UINT4", Some(4)),
        22 => ("INT4", Some(4)),
        23 => ("FLOAT4E2M1", Some(4)),
        24 => ("FLOAT8E8M0", Some(8)),
        25 => ("UINT2", Some(2)),
        26 => ("INT2", Some(2)),
        // Newer than the runtime; how they are packed is not for us to guess.
        27 => ("FLOAT6E2M3", None),
        28 => ("FLOAT6E3M2", None),
        _ => return None,
    })
}

pub(super) const STRING: u64 = 8;
