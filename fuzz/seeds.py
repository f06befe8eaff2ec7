#!/usr/bin/env python3
"""Writes corpus/: small documents of every kind that the fuzz targets read."""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"


def seed(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# Protobuf, the writing half.
def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def number(field, value):
    return varint(field << 3) + varint(value)


def text(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


TYPES = {
    "BOOL": ("?", 1, True), "UINT8": ("B", 4, 7), "UINT16": ("H", 4, 7), "UINT32": ("I", 4, 7), "UINT64": ("Q", 5, 7),
    "INT8": ("b", 2, -7), "INT16": ("h", 2, -7), "INT32": ("i", 2, -7), "INT64": ("q", 3, -7),
    "FP16": ("e", None, 1.5), "BF16": ("H", None, 7), "FP32": ("f", 6, 1.5), "FP64": ("d", 7, -0.25),
}


def requests():
    for datatype, (code, field, value) in TYPES.items():
        raw = struct.pack(f"<2{code}", value, value)
        tensor = {"name": "x", "datatype": datatype, "shape": [1, 2]}
        if field:
            seed("rest_json", datatype, json.dumps({"inputs": [tensor | {"data": [[value, value]]}]}).encode())
        head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
        seed("rest_binary", datatype, struct.pack("<H", len(head)) + head + raw)
        named = text(1, "x") + text(2, datatype) + text(3, varint(1) + varint(2))
        seed("grpc", f"{datatype}_raw", text(1, "m") + text(5, named) + text(7, raw))
        if field:
            if code in "fd":
                packed = raw
            else:
                packed = varint(int(value)) * 2
            contents = text({"BOOL": 1}.get(datatype, field), packed)
            seed("grpc", datatype, text(1, "m") + text(2, "1") + text(3, "id") + text(5, named + text(5, contents)))
    strings = {"name": "s", "datatype": "BYTES", "shape": [3]}
    seed("rest_json", "BYTES", json.dumps({"id": "7", "inputs": [strings | {"data": ["a", "", "ü\u0000"]}]}).encode())
    seed("rest_json", "data_first", b'{"inputs":[{"data":[1,2.5e-3],"shape":[2],"datatype":"FP64","name":"x"}],"outputs":[{"name":"y","parameters":{"binary_data":false}}],"parameters":{"binary_data_output":true,"timeout":1000,"k":"v"}}')
    seed("rest_json", "empty", b'{"inputs":[{"name":"x","datatype":"INT64","shape":[0,3],"data":[]},{"name":"y","datatype":"BOOL","shape":[],"data":[true]}]}')
    raw = b"".join(struct.pack("<I", len(s)) + s for s in (b"a", b"", b"\xff\x00"))
    head = json.dumps({"inputs": [strings | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
    seed("rest_binary", "BYTES", struct.pack("<H", len(head)) + head + raw)
    mixed = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]},{"name":"y","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}}]}'
    seed("rest_binary", "mixed", struct.pack("<H", len(mixed)) + mixed + b"\x01\x02")
    named = text(1, "s") + text(2, "BYTES") + number(3, 3)
    contents = text(8, b"a") + text(8, b"") + text(8, b"\xff\x00")
    seed("grpc", "BYTES", text(1, "m") + text(5, named + text(5, contents)))
    parameter = lambda value: text(4, text(1, "k") + text(2, value))
    parameters = parameter(number(1, 1)) + parameter(number(2, -1)) + parameter(text(3, "v")) + parameter(varint(4 << 3 | 1) + b"\0" * 8) + parameter(number(5, 9))
    seed("grpc", "parameters", text(1, "m") + parameters + text(6, text(1, "y") + parameter(number(1, 0)).replace(b"\x22", b"\x12", 1)))


def models():
    def tensor(*fields):
        return text(1, varint(3) + varint(4)) + number(2, 1) + text(8, "w") + b"".join(fields)

    def value(name):
        dims = text(1, text(2, "batch")) + text(1, number(1, 4))
        return text(1, name) + text(2, text(1, number(1, 1) + text(2, dims)))

    def node(operator, *attributes, domain=""):
        return text(1, "x") + text(2, "y") + text(4, operator) + text(7, domain) + b"".join(text(5, a) for a in attributes)

    def model(nodes, tensors, *more):
        graph = b"".join(text(1, n) for n in nodes) + text(2, "g") + b"".join(text(5, t) for t in tensors)
        graph += text(11, value("x")) + text(12, value("y"))
        return number(1, 8) + text(2, "seed") + text(7, graph) + text(8, text(1, "") + number(2, 17)) + b"".join(more)

    def entry(key, value):
        return text(13, text(1, key) + text(2, value))

    raw = tensor(text(9, bytes(48)))
    far = tensor(entry("location", "a/./w.bin"), entry("offset", "4096"), entry("length", "48"), number(14, 1))
    inner = text(1, node("Constant", text(1, "value") + text(5, raw) + number(20, 4))) + text(12, value("o"))
    sparse = text(1, raw) + text(2, text(1, varint(2)) + number(2, 7) + text(9, bytes(16))) + number(3, 100)
    function = text(25, text(1, "Twice") + text(7, node("Add")) + text(10, "local"))
    training = text(20, text(1, text(5, raw)))
    seed("onnx", "plain", b"\xff" + model([node("Relu")], [raw]))
    seed("onnx", "external", b"\x07" + model([node("Relu")], [far]))
    seed("onnx", "escape", b"\xff" + model([node("Relu")], [tensor(entry("location", "../w"), number(14, 1))]))
    seed("onnx", "subgraph", b"\x00" + model([node("If", text(1, "then_branch") + text(6, inner), text(11, inner))], []))
    seed("onnx", "sparse", b"\xff" + model([node("Constant", text(22, sparse))], [], function, training))
    seed("onnx", "domain", b"\xff" + model([node("F", domain="com.example")], [], text(8, text(1, "com.example") + number(2, 1))))
    seed("onnx", "html", b"\xff<html></html>")


def formats():
    source = {"uri": "s3://models/m", "s3": {"endpoint": "http://store:9000", "region": "r"}, "immutable": True,
              "sha256": "sha256:00", "files": [{"path": "model.onnx", "size": 7, "pin": {"versionId": "v"}},
                                               {"path": "w.bin", "size": 9, "pin": {"etag": "e"}}]}
    assignment = {"deployment": "m", "revision": "m-r1", "modelVersion": "1", "port": 8001, "source": source}
    seed("formats", "assignment", json.dumps({"formatVersion": 1, "assignments": [assignment]}).encode())
    seed("formats", "source", json.dumps({"formatVersion": 1} | source).encode())
    seed("formats", "load", json.dumps({"formatVersion": 1, "phase": "Fetched", "modelFile": "model.onnx", "bytes": 7, "totalBytes": 7, "seconds": 0.5}).encode())
    revision = {"deployment": "m", "revision": "m-r1", "phase": "Failed", "reason": "ModelInvalid", "message": "x", "device": "CPU", "seconds": {"load": 1.5}}
    seed("formats", "state", json.dumps({"formatVersion": 1, "ready": False, "revisions": [revision]}).encode())


def stories():
    seed("former", "zeros", bytes(64))
    seed("former", "mixed", bytes(range(1, 255)))
    seed("former", "long", bytes(i * 37 % 251 for i in range(1000)))


requests()
models()
formats()
stories()
