"""REST: Triton's binary tensor data extension."""

import json

from points import FORMATS, SAMPLES, Skip, check, equal, point, unpack


def binary(text):
    return point("REST", "binary_tensor_data", text)


ALL = {"parameters": {"binary_data_output": True}}


@binary("binary inputs and outputs carry what JSON does")
def _(t):
    inputs = t.json_only()
    body, headers = t.binary(t.inputs(), **ALL)
    equal(t.infer(body, headers)[1], t.infer({"inputs": inputs})[1])


@binary("each output's binary_data_size and the header tell where the data is")
def _(t):
    body, headers = t.binary(t.inputs(), **ALL)
    status, headers, data = t.rest.call("POST", t.path("infer"), body, headers)
    equal(status, 200, data[:200])
    length = int(headers["inference-header-content-length"])
    equal(headers["content-type"].split(";")[0], "application/octet-stream")
    outputs = json.loads(data[:length])["outputs"]
    check(all("data" not in o for o in outputs), outputs)
    equal(sum(o["parameters"]["binary_data_size"] for o in outputs), len(data) - length)


def values(datatype):
    @binary(f"{datatype} survives as binary data")
    def _(t):
        t.identity()
        if all(i["datatype"] != datatype for i in t.metadata["inputs"]):
            raise Skip(f"no input of {datatype}")
        samples = {"BYTES": [b"\x00\xff", b"", b"x"]}
        body, headers = t.binary(t.inputs(samples), **ALL)
        equal(t.infer(body, headers)[1][f"y_{datatype}"].values, samples.get(datatype, SAMPLES[datatype]))


for name in FORMATS:
    values(name)


@binary("some inputs may be binary and others JSON")
def _(t):
    t.json_only()
    inputs = t.inputs()
    if len(inputs) < 2:
        raise Skip("the model has one input")
    mixed = [tensor.as_json() if i % 2 else tensor for i, tensor in enumerate(inputs)]
    body, headers = t.binary(mixed)
    equal(t.infer(body, headers)[1], t.infer({"inputs": t.json_only()})[1])


@binary("binary inputs may be answered in JSON, which is then the whole body")
def _(t):
    t.json_only()
    body, headers = t.binary(t.inputs())
    status, headers, data = t.rest.call("POST", t.path("infer"), body, headers)
    equal(status, 200, data[:200])
    check("inference-header-content-length" not in headers)
    check(all("data" in o for o in json.loads(data)["outputs"]))


@binary("JSON inputs may be answered in binary")
def _(t):
    _, headers, data = t.rest.call("POST", t.path("infer"), {"inputs": t.json_only(), **ALL})
    check("inference-header-content-length" in headers, data[:200])
    equal(t.outputs(headers, data)[1], t.infer({"inputs": t.json_only()})[1])


def described(t, request):
    """Which outputs are binary."""
    _, headers, data = t.rest.call("POST", t.path("infer"), {"inputs": t.json_only(), **request})
    length = int(headers.get("inference-header-content-length", len(data)))
    return {o["name"]: "binary_data_size" in o.get("parameters", {}) for o in json.loads(data[:length])["outputs"]}


@binary("binary_data asks for one output")
def _(t):
    names = [o["name"] for o in t.metadata["outputs"]]
    outputs = [{"name": n, "parameters": {"binary_data": i == 0}} for i, n in enumerate(names)]
    equal(described(t, {"outputs": outputs}), {n: i == 0 for i, n in enumerate(names)})


@binary("binary_data goes before binary_data_output")
def _(t):
    names = [o["name"] for o in t.metadata["outputs"]]
    outputs = [{"name": n, **({"parameters": {"binary_data": False}} if i == 0 else {})} for i, n in enumerate(names)]
    equal(described(t, {"outputs": outputs, **ALL}), {n: i != 0 for i, n in enumerate(names)})


@binary("outputs in JSON and in binary come together")
def _(t):
    names = [o["name"] for o in t.metadata["outputs"]]
    if len(names) < 2:
        raise Skip("the model has one output")
    outputs = [{"name": n, "parameters": {"binary_data": i % 2 == 0}} for i, n in enumerate(names)]
    equal(t.infer({"inputs": t.json_only(), "outputs": outputs})[1], t.infer({"inputs": t.json_only()})[1])


@binary("the binary data stands in the order of the outputs")
def _(t):
    t.identity()
    body, headers = t.binary(t.inputs(), **ALL)
    _, headers, data = t.rest.call("POST", t.path("infer"), body, headers)
    length = int(headers["inference-header-content-length"])
    rest = data[length:]
    for output in json.loads(data[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        have = unpack(output["datatype"], rest[:size])
        want = SAMPLES[output["datatype"]]
        equal([v.decode() for v in have] if output["datatype"] == "BYTES" else have, want, output["name"])
        rest = rest[size:]


@binary("the id comes back in a binary answer")
def _(t):
    body, headers = t.binary(t.inputs(), id="7", **ALL)
    equal(t.infer(body, headers)[0]["id"], "7")


def refused(text, spoil):
    @binary(f"refused: {text}")
    def _(t):
        body, headers = spoil(t, *t.binary(t.inputs(), **ALL))
        t.rest.refused("POST", t.path("infer"), body, headers)


def header(headers, value):
    return {**headers, "Inference-Header-Content-Length": value}


def first_size(t, change):
    inputs = t.inputs()
    tensor = inputs[0].as_binary()
    tensor["parameters"]["binary_data_size"] = change(tensor["parameters"]["binary_data_size"])
    body, _ = t.binary([tensor, *inputs[1:]])
    length = len(body) - sum(len(i.data) for i in inputs[1:])
    whole = body[:length] + b"".join(i.data for i in inputs)
    return whole, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}


refused("data that ends early", lambda t, b, h: (b[:-1], h))
refused("bytes after the last input", lambda t, b, h: (b + b"x", h))
refused("a header length beyond the body", lambda t, b, h: (b, header(h, "1000000")))
refused("a header length that is no number", lambda t, b, h: (b, header(h, "x")))
refused("a negative header length", lambda t, b, h: (b, header(h, "-1")))
refused("a header length that cuts the JSON", lambda t, b, h: (b, header(h, "10")))
refused("a binary_data_size that is not the shape's", lambda t, b, h: first_size(t, lambda size: size + 1))
refused("a negative binary_data_size", lambda t, b, h: first_size(t, lambda size: -1))
refused("a binary_data_size that is no number", lambda t, b, h: first_size(t, lambda size: "x"))
refused("a binary_data_size beyond the body", lambda t, b, h: first_size(t, lambda size: 2**40))


@binary("refused: an input with both data and binary_data_size")
def _(t):
    inputs = t.inputs()
    both = t.json_only()
    both[0] = {**both[0], "parameters": {"binary_data_size": len(inputs[0].data)}}
    body, headers = t.binary(both)
    t.rest.refused("POST", t.path("infer"), body + inputs[0].data, headers)


@binary("refused: a BYTES element whose length reaches beyond the data")
def _(t):
    t.identity()
    inputs = t.inputs()
    index = next((n for n, i in enumerate(inputs) if i.datatype == "BYTES"), None)
    if index is None:
        raise Skip("no input of BYTES")
    body, headers = t.binary(inputs)
    at = body.rindex(inputs[index].data)
    t.rest.refused("POST", t.path("infer"), body[:at] + b"\xff\xff\xff\x7f" + body[at + 4 :], headers)


@binary("after all of that, a good request is answered")
def _(t):
    t.infer(*t.binary(t.inputs(), **ALL))
