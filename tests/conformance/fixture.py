"""The fixture: an ONNX model whose output y_T is its input x_T, of one axis of any length, for each datatype T."""

TYPES = {
    "FP32": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BYTES": 8, "BOOL": 9,
    "FP16": 10, "FP64": 11, "UINT32": 12, "UINT64": 13, "BF16": 16,
}
HALF = ("FP16", "BF16")


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(field, value):
    return varint(field << 3) + varint(value)


def block(field, value):
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def value(name, element):
    """A ValueInfoProto of shape [n], the axis named after the tensor."""
    shape = block(1, block(2, f"n_{name}"))
    return block(1, name) + block(2, block(1, integer(1, element) + block(2, shape)))


def model(datatypes):
    graph = block(2, "identity")
    for name in datatypes:
        graph += block(1, block(1, f"x_{name}") + block(2, f"y_{name}") + block(4, "Identity"))
        graph += block(11, value(f"x_{name}", TYPES[name])) + block(12, value(f"y_{name}", TYPES[name]))
    return integer(1, 8) + block(7, graph) + block(8, block(1, "") + integer(2, 17))


def full():
    """All types that JSON can carry."""
    return model([name for name in TYPES if name not in HALF])


def half():
    """The others: every request to it is binary."""
    return model(HALF)
