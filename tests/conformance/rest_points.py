"""REST: the protocol itself."""

import json

from points import FORMATS, SAMPLES, Skip, check, count, equal, point


def rest(text):
    return point("REST", "core", text)


@rest("GET /v2/health/live answers 200")
def _(t):
    equal(t.rest.call("GET", "v2/health/live")[0], 200)


@rest("GET /v2/health/ready answers 200")
def _(t):
    equal(t.rest.call("GET", "v2/health/ready")[0], 200)


@rest("a model that serves is ready")
def _(t):
    equal(t.rest.call("GET", t.path("ready"))[0], 200)


@rest("each of its versions is ready")
def _(t):
    for version in t.metadata.get("versions", []):
        equal(t.rest.call("GET", t.path("ready", version))[0], 200, f"version {version}")


@rest("an unknown model is not ready")
def _(t):
    check(400 <= t.rest.call("GET", "v2/models/no-such-model/ready")[0] < 500)


@rest("GET /v2 names the server, its version and its extensions")
def _(t):
    server = t.rest.json("GET", "v2")
    check(isinstance(server["name"], str) and isinstance(server["version"], str), server)
    check(all(isinstance(e, str) for e in server["extensions"]), server)


@rest("metadata names the model, its platform, versions, inputs and outputs")
def _(t):
    equal(t.metadata["name"], t.model)
    check(isinstance(t.metadata["platform"], str))
    check(all(isinstance(v, str) for v in t.metadata.get("versions", [])))
    for tensor in t.metadata["inputs"] + t.metadata["outputs"]:
        check(isinstance(tensor["name"], str) and tensor["name"], tensor)
        check(tensor["datatype"] in FORMATS, tensor)
        check(all(isinstance(dim, int) and dim >= -1 for dim in tensor["shape"]), tensor)


@rest("metadata of a version is the model's")
def _(t):
    if not t.version:
        raise Skip("the model has no versions")
    versioned = t.rest.json("GET", f"v2/models/{t.model}/versions/{t.version}")
    equal((versioned["inputs"], versioned["outputs"]), (t.metadata["inputs"], t.metadata["outputs"]))


@rest("metadata of an unknown model is refused with an error in JSON")
def _(t):
    t.rest.refused("GET", "v2/models/no-such-model")


@rest("metadata of an unknown version is refused with an error in JSON")
def _(t):
    t.rest.refused("GET", f"v2/models/{t.model}/versions/987654321")


@rest("infer answers outputs with name, datatype, shape and data that agree")
def _(t):
    answer, outputs = t.infer({"inputs": t.json_only()})
    equal(answer["model_name"], t.model)
    known = {o["name"]: o for o in t.metadata["outputs"]}
    equal(set(outputs), set(known), "outputs without a wish")
    for name, output in outputs.items():
        equal(output.datatype, known[name]["datatype"], name)
        equal(len(output.shape), len(known[name]["shape"]), f"axes of {name}")


@rest("an answer in JSON is application/json, without the binary extension's header")
def _(t):
    _, headers, _ = t.rest.call("POST", t.path("infer"), {"inputs": t.json_only()})
    equal(headers["content-type"].split(";")[0], "application/json")
    check("inference-header-content-length" not in headers)


@rest("infer on a version's path says that version")
def _(t):
    if not t.version:
        raise Skip("the model has no versions")
    answer, _ = t.infer({"inputs": t.json_only()}, version=t.version)
    equal(answer["model_version"], t.version)


@rest("a request's id comes back")
def _(t):
    for id in ["42", 'a "quoted" ü']:
        equal(t.infer({"id": id, "inputs": t.json_only()})[0]["id"], id)


@rest("data nested like the shape means the same as flat data")
def _(t):
    def nest(values, shape):
        if len(shape) < 2:
            return values
        step = len(values) // shape[0]
        return [nest(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]

    inputs = t.json_only()
    if all(len(i["shape"]) < 2 for i in inputs):
        # A second axis would not fit the fixture, and one axis has one form.
        raise Skip("no input has two axes")
    nested = [{**i, "data": nest(i["data"], i["shape"]) if count(i["shape"]) else i["data"]} for i in inputs]
    equal(t.infer({"inputs": nested})[1], t.infer({"inputs": inputs})[1])


@rest("the members of an input may come in any order, data first")
def _(t):
    inputs = [{key: i[key] for key in ("data", "shape", "datatype", "name")} for i in t.json_only()]
    equal(t.infer({"inputs": inputs})[1], t.infer({"inputs": t.json_only()})[1])


@rest("inputs may come in any order")
def _(t):
    equal(t.infer({"inputs": t.json_only()[::-1]})[1], t.infer({"inputs": t.json_only()})[1])


@rest("only the outputs that were asked for are answered")
def _(t):
    wanted = t.metadata["outputs"][-1]["name"]
    equal(set(t.infer({"inputs": t.json_only(), "outputs": [{"name": wanted}]})[1]), {wanted})


@rest("parameters that nobody knows are read past")
def _(t):
    parameters = {"x_unknown": "a", "x_number": 1.5, "x_flag": True}
    inputs = [{**i, "parameters": parameters} for i in t.json_only()]
    outputs = [{"name": o["name"], "parameters": parameters} for o in t.metadata["outputs"]]
    t.infer({"parameters": parameters, "inputs": inputs, "outputs": outputs})


@rest("white space is read past, and text may be escaped")
def _(t):
    body = json.dumps({"inputs": t.json_only()}, indent=3)
    name = t.metadata["inputs"][0]["name"]
    escaped = "".join(f"\\u{ord(c):04x}" for c in name)
    t.infer(body.replace(f'"{name}"', f'"{escaped}"').encode())


@rest("a body may come in chunks")
def _(t):
    body = json.dumps({"inputs": t.json_only()}).encode()
    status, _, data = t.rest.call("POST", t.path("infer"), body, chunked=True)
    equal(status, 200, data[:100])


@rest("a connection carries one request after the other")
def _(t):
    t.infer({"inputs": t.json_only()})
    connection = t.rest.connection
    socket = connection.sock
    t.infer({"inputs": t.json_only()})
    check(t.rest.connection is connection and connection.sock is socket, "it was closed in between")


def values(datatype):
    @rest(f"{datatype} survives JSON, extremes too")
    def _(t):
        t.identity()
        if all(i["datatype"] != datatype for i in t.metadata["inputs"]):
            raise Skip(f"no input of {datatype}")
        output = t.infer({"inputs": t.json_only()})[1][f"y_{datatype}"]
        have = [v.decode() for v in output.values] if datatype == "BYTES" else output.values
        equal(have, SAMPLES[datatype])


for name in FORMATS:
    if name not in ("FP16", "BF16"):
        values(name)


@rest("BOOL is answered as true and false, BYTES as text")
def _(t):
    t.identity()
    t.json_only()
    _, _, data = t.rest.call("POST", t.path("infer"), {"inputs": t.json_only()})
    outputs = {o["name"]: o["data"] for o in json.loads(data)["outputs"]}
    check(all(isinstance(v, bool) for v in outputs["y_BOOL"]), outputs["y_BOOL"])
    check(all(isinstance(v, str) for v in outputs["y_BYTES"]), outputs["y_BYTES"])


@rest("a tensor without elements passes")
def _(t):
    t.identity()
    t.json_only()
    inputs = [i.as_json() for i in t.inputs({d: [] for d in FORMATS})]
    check(all(o.shape == [0] and o.values == [] for o in t.infer({"inputs": inputs})[1].values()))


def refusal(text, change):
    """`change` spoils a good request, given as its JSON; None stands for what can't be tried."""

    @rest(f"refused with an error in JSON: {text}")
    def _(t):
        request = {"inputs": t.json_only()}
        spoilt = change(t, request)
        if spoilt is None:
            raise Skip("the model has no such input")
        t.rest.refused("POST", t.path("infer"), spoilt)


def first(request, **members):
    head, *tail = request["inputs"]
    return {**request, "inputs": [{**head, **members}, *tail]}


def of_type(request, datatypes, **members):
    for index, tensor in enumerate(request["inputs"]):
        if tensor["datatype"] in datatypes:
            inputs = list(request["inputs"])
            inputs[index] = {**tensor, **members}
            return {**request, "inputs": inputs}
    return None


def without(request, member):
    head, *tail = request["inputs"]
    return {"inputs": [{key: value for key, value in head.items() if key != member}, *tail]}


def head(r):
    return r["inputs"][0]


def other_type(t, r):
    return first(r, datatype="INT8" if head(r)["datatype"] != "INT8" else "INT16")


def all_data(value):
    return lambda t, r: first(r, data=[value] * count(head(r)["shape"]))


def text(t, r):
    return all_data("x")(t, r) if head(r)["datatype"] != "BYTES" else None


def below_zero(t, r):
    return first(r, shape=[-dim for dim in head(r)["shape"]]) if head(r)["shape"] else None


refusal("an empty body", lambda t, r: b"")
refusal("a body that is no JSON", lambda t, r: b"{")
refusal("a body that is no object", lambda t, r: [1])
refusal("no inputs", lambda t, r: {})
refusal("inputs that are no list", lambda t, r: {"inputs": 5})
refusal("one input too few", lambda t, r: {"inputs": r["inputs"][1:]})
refusal("an input that the model does not have", lambda t, r: {"inputs": [*r["inputs"], {**head(r), "name": "zz"}]})
refusal("an output that the model does not have", lambda t, r: {**r, "outputs": [{"name": "zz"}]})
refusal("an input without a name", lambda t, r: without(r, "name"))
refusal("an input without a datatype", lambda t, r: without(r, "datatype"))
refusal("an input without a shape", lambda t, r: without(r, "shape"))
refusal("an input without data", lambda t, r: without(r, "data"))
refusal("a datatype that does not exist", lambda t, r: first(r, datatype="FP31"))
refusal("a datatype that is not the model's", other_type)
refusal("FP16 in JSON", lambda t, r: first(r, datatype="FP16"))
refusal("an axis below zero", below_zero)
refusal("an axis too many", lambda t, r: first(r, shape=[*head(r)["shape"], 1]))
refusal("a shape whose product overflows", lambda t, r: first(r, shape=[2**32, 2**32]))
refusal("more data than the shape holds", lambda t, r: first(r, data=head(r)["data"] * 2))
refusal("less data than the shape holds", lambda t, r: first(r, data=head(r)["data"][1:]))
refusal("ragged data", lambda t, r: first(r, data=[head(r)["data"], [head(r)["data"]]]))
refusal("text where a number belongs", text)
refusal("a number where text belongs", lambda t, r: of_type(r, ["BYTES"], data=[1], shape=[1]))
refusal("null in the data", all_data(None))
refusal("an integer beyond its type", lambda t, r: of_type(r, ["INT8"], data=[300], shape=[1]))
refusal("a negative number for an unsigned type", lambda t, r: of_type(r, ["UINT8", "UINT64"], data=[-1], shape=[1]))
refusal("a fraction for an integer type", lambda t, r: of_type(r, ["INT8", "INT32", "INT64"], data=[1.5], shape=[1]))


@rest("refused with an error in JSON: a model that does not exist")
def _(t):
    t.rest.refused("POST", "v2/models/no-such-model/infer", {"inputs": []})


@rest("refused with an error in JSON: a version that does not exist")
def _(t):
    t.rest.refused("POST", t.path("infer", "987654321"), {"inputs": []})


@rest("refused: GET where POST belongs")
def _(t):
    check(400 <= t.rest.call("GET", t.path("infer"))[0] < 500)


@rest("after all of that, a good request is answered")
def _(t):
    t.infer({"inputs": t.json_only()})
