"""REST: Triton's extensions that describe and count, and compressed bodies."""

import gzip
import json
import zlib

from points import Skip, check, equal, point


def config(text):
    return point("REST", "model_configuration", text)


def statistics(text):
    return point("REST", "statistics", text)


def index(text):
    return point("REST", "repository_index", text)


def compression(text):
    return point("REST", "compression", text)


def compare_config(t, model):
    """A configuration against the metadata."""
    equal(model["name"], t.model)
    batched = [-1] if model.get("max_batch_size", 0) > 0 else []
    for described, tensors in ((model["input"], t.metadata["inputs"]), (model["output"], t.metadata["outputs"])):
        equal([d["name"] for d in described], [m["name"] for m in tensors])
        for have, want in zip(described, tensors):
            datatype = "TYPE_STRING" if want["datatype"] == "BYTES" else f"TYPE_{want['datatype']}"
            equal(have["data_type"], datatype, have["name"])
            equal(batched + [int(d) for d in have["dims"]], want["shape"], f"dims of {have['name']}")


@config("the configuration agrees with the metadata")
def _(t):
    compare_config(t, t.rest.json("GET", t.path("config")))


@config("it has the members that clients read")
def _(t):
    model = t.rest.json("GET", t.path("config"))
    check(model["platform"] or model["backend"], model)
    check(isinstance(model["max_batch_size"], int) and model["version_policy"], model)


@config("a version has a configuration")
def _(t):
    if not t.version:
        raise Skip("the model has no versions")
    compare_config(t, t.rest.json("GET", t.path("config", t.version)))


@config("refused: the configuration of an unknown model")
def _(t):
    t.rest.refused("GET", "v2/models/no-such-model/config")


def counted(t):
    return t.rest.json("GET", t.path("stats"))["model_stats"][0]


@statistics("statistics name the model and have the members that clients read")
def _(t):
    model = counted(t)
    equal((model["name"], model["version"]), (t.model, t.version or model["version"]))
    for member in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        duration = model["inference_stats"][member]
        check(isinstance(duration["count"], int) and isinstance(duration["ns"], int), member, duration)
    check(isinstance(model["batch_stats"], list))


@statistics("each inference is counted once")
def _(t):
    before = counted(t)
    for _ in range(3):
        t.infer(*t.binary(t.inputs(), parameters={"binary_data_output": True}))
    after = counted(t)
    equal(after["execution_count"] - before["execution_count"], 3, "execution_count")
    # Where the first axis is a batch, each of its rows is an inference.
    rows = t.inputs()[0].shape[0] if t.rest.json("GET", t.path("config"))["max_batch_size"] > 0 else 1
    equal(after["inference_count"] - before["inference_count"], 3 * rows, "inference_count")
    for member in ("success", "queue", "compute_infer"):
        have = after["inference_stats"][member]["count"] - before["inference_stats"][member]["count"]
        equal(have, 3, member)
    check(after["last_inference"] >= before["last_inference"])


@statistics("time passes in the model, and in its batches")
def _(t):
    t.infer(*t.binary(t.inputs(), parameters={"binary_data_output": True}))
    model = counted(t)
    check(model["inference_stats"]["compute_infer"]["ns"] > 0, model["inference_stats"])
    check(sum(b["compute_infer"]["ns"] for b in model["batch_stats"]) > 0, model["batch_stats"])


@statistics("statistics are answered for all models")
def _(t):
    check(t.model in [m["name"] for m in t.rest.json("GET", "v2/models/stats")["model_stats"]])


@statistics("statistics are answered for a version")
def _(t):
    if t.version:
        equal(t.rest.json("GET", t.path("stats", t.version))["model_stats"][0]["version"], t.version)


@statistics("refused: the statistics of an unknown model")
def _(t):
    t.rest.refused("GET", "v2/models/no-such-model/stats")


@index("the index lists the model as READY")
def _(t):
    for body in ({}, {"ready": True}):
        models = t.rest.json("POST", "v2/repository/index", body)
        check({"READY"} == {m["state"] for m in models if m["name"] == t.model}, models)


def packed(t, encoding):
    body = json.dumps({"inputs": t.json_only()}).encode()
    return gzip.compress(body) if encoding == "gzip" else zlib.compress(body)


for encoding in ("gzip", "deflate"):

    @compression(f"a request's body may be packed: {encoding}")
    def _(t, encoding=encoding):
        answer = t.infer(packed(t, encoding), {"Content-Encoding": encoding})[1]
        equal(answer, t.infer({"inputs": t.json_only()})[1])

    @compression(f"a binary body may be packed, its header length is that of the unpacked JSON: {encoding}")
    def _(t, encoding=encoding):
        body, headers = t.binary(t.inputs(), parameters={"binary_data_output": True})
        pack = gzip.compress if encoding == "gzip" else zlib.compress
        answer = t.infer(pack(body), {**headers, "Content-Encoding": encoding})[1]
        equal(answer, t.infer(body, headers)[1])

    @compression(f"an answer may be packed, where the client says so: {encoding}")
    def _(t, encoding=encoding):
        request = {"inputs": t.json_only()}
        _, headers, data = t.rest.call("POST", t.path("infer"), request, {"Accept-Encoding": encoding})
        # A server may leave a small answer as it is.
        if "content-encoding" in headers:
            equal(headers["content-encoding"], encoding)
            data = gzip.decompress(data) if encoding == "gzip" else zlib.decompress(data)
        equal(t.outputs(headers, data)[1], t.infer(request)[1])

    @compression(f"refused: a body that is not what it says: {encoding}")
    def _(t, encoding=encoding):
        t.rest.refused("POST", t.path("infer"), {"inputs": t.json_only()}, {"Content-Encoding": encoding})

    @compression(f"refused: a packed body that ends early: {encoding}")
    def _(t, encoding=encoding):
        t.rest.refused("POST", t.path("infer"), packed(t, encoding)[:-5], {"Content-Encoding": encoding})


@compression("identity is no packing")
def _(t):
    t.infer(json.dumps({"inputs": t.json_only()}).encode(), {"Content-Encoding": "identity"})


@compression("refused: an encoding that nobody knows")
def _(t):
    t.rest.refused("POST", t.path("infer"), {"inputs": t.json_only()}, {"Content-Encoding": "x-unknown"})
