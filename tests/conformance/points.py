"""What a point of the protocol is, how points are run, and what they are run against."""

import http.client
import json
import struct
import sys
import traceback
import urllib.parse
from dataclasses import dataclass

POINTS = []


class Skip(Exception):
    """This point can't be tried here."""


@dataclass
class Point:
    protocol: str
    group: str
    text: str
    run: object


def point(protocol, group, text):
    """Registers a function of a Target as one point; it fails by an exception."""

    def register(function):
        POINTS.append(Point(protocol, group, text, function))
        return function

    return register


def check(condition, *said):
    if not condition:
        raise AssertionError(" ".join(str(s) for s in said) or "it did not hold")


def equal(have, want, what=""):
    check(have == want, f"{what}: " if what else "", f"{short(have)} instead of {short(want)}")


def short(value, limit=160):
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "BF16": "H", "FP32": "f", "FP64": "d", "BYTES": None,
}
# They have no form in JSON, nor in gRPC's typed contents.
HALF = {"FP16", "BF16"}
# Three values a type: the extremes, and what a float or a 53-bit integer in between would spoil.
SAMPLES = {
    "BOOL": [True, False, True], "UINT8": [0, 1, 255], "UINT16": [0, 1, 2**16 - 1], "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 2**53 + 1, 2**64 - 1], "INT8": [-128, 0, 127], "INT16": [-(2**15), 0, 2**15 - 1],
    "INT32": [-(2**31), 0, 2**31 - 1], "INT64": [-(2**63), 2**53 + 1, 2**63 - 1], "FP16": [0.0, -1.5, 65504.0],
    "BF16": [0, 0x3F80, 0xBF80], "FP32": [0.10000000149011612, -3.4028234663852886e38, 1.401298464324817e-45],
    "FP64": [0.1, -1.7976931348623157e308, 5e-324], "BYTES": ["", 'ü "\\\n', "a" * 300],
}


def pack(datatype, values):
    """The binary form."""
    if datatype == "BYTES":
        elements = [v.encode() if isinstance(v, str) else v for v in values]
        return b"".join(struct.pack("<I", len(e)) + e for e in elements)
    return struct.pack(f"<{len(values)}{FORMATS[datatype]}", *values)


def unpack(datatype, data):
    if datatype == "BYTES":
        values = []
        while data:
            (length,) = struct.unpack_from("<I", data)
            check(len(data) >= 4 + length, "a BYTES element reaches beyond the data")
            values.append(data[4 : 4 + length])
            data = data[4 + length :]
        return values
    size = struct.calcsize(FORMATS[datatype])
    equal(len(data) % size, 0, f"bytes left over after {datatype} elements")
    return list(struct.unpack(f"<{len(data) // size}{FORMATS[datatype]}", data))


def count(shape):
    product = 1
    for dim in shape:
        product *= dim
    return product


@dataclass
class Tensor:
    name: str
    datatype: str
    shape: list
    values: list

    @property
    def data(self):
        return pack(self.datatype, self.values)

    def as_json(self, **more):
        return {"name": self.name, "shape": self.shape, "datatype": self.datatype, "data": self.values, **more}

    def as_binary(self, **more):
        parameters = {"binary_data_size": len(self.data), **more}
        return {"name": self.name, "shape": self.shape, "datatype": self.datatype, "parameters": parameters}


class Rest:
    def __init__(self, url):
        parsed = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        self.host, self.base = parsed.netloc, parsed.path.rstrip("/")
        self.connection = None

    def call(self, method, path, body=None, headers=None, chunked=False):
        """Status, headers (lower case) and body. A body that is no bytes is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})} if body is not None else headers or {}
        for attempt in (1, 2):
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.host, timeout=30)
            try:
                pieces = iter([body[:7], body[7:]]) if chunked else body
                self.connection.request(method, f"{self.base}/{path}", pieces, headers, encode_chunked=chunked)
                response = self.connection.getresponse()
                data = response.read()
                return response.status, {k.lower(): v for k, v in response.getheaders()}, data
            except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
                # A server may close after an error; the next request opens anew.
                self.connection.close()
                self.connection = None
                if attempt == 2:
                    raise

    def json(self, method, path, body=None, headers=None):
        """The answer of a request that succeeds."""
        status, _, data = self.call(method, path, body, headers)
        equal(status, 200, f"status of {method} {path}: {short(data)}")
        return json.loads(data)

    def refused(self, method, path, body=None, headers=None, statuses=range(400, 500)):
        """The message of a request that is refused: a status of the client's fault, and {"error": "…"}."""
        status, _, data = self.call(method, path, body, headers)
        check(status in statuses, f"status {status}: {short(data)}")
        message = json.loads(data)["error"]
        check(isinstance(message, str) and message, "error is no sentence:", short(data))
        return message


@dataclass
class Output:
    datatype: str
    shape: list
    values: list


class Target:
    """A server, and one of its models."""

    def __init__(self, http_url, grpc_address, model):
        self.rest = Rest(http_url) if http_url else None
        self.grpc = None
        self.extensions = []
        self.model = model
        if grpc_address:
            import grpc_client

            self.grpc = grpc_client.Grpc(grpc_address)
        if self.rest:
            self.extensions = self.rest.json("GET", "v2").get("extensions", [])
            self.model = self.model or self.only_model()
            self.metadata = self.rest.json("GET", f"v2/models/{self.model}")
        else:
            self.extensions = self.grpc.server_metadata()["extensions"]
            if not self.model:
                raise SystemExit("name the model: --model NAME")
            self.metadata = self.grpc.model_metadata(self.model)
        self.version = (self.metadata.get("versions") or [None])[0]

    def only_model(self):
        status, _, data = self.rest.call("POST", "v2/repository/index", {})
        models = [m["name"] for m in json.loads(data)] if status == 200 else []
        if len(models) != 1:
            raise SystemExit(f"name the model: --model NAME (the server lists {models})")
        return models[0]

    @property
    def is_identity(self):
        """The fixture: y_T is x_T, of one axis of any length."""
        inputs = {f"x_{i['datatype']}" for i in self.metadata["inputs"] if i["shape"] == [-1]}
        outputs = {o["name"].replace("y_", "x_", 1) for o in self.metadata["outputs"]}
        names = {i["name"] for i in self.metadata["inputs"]}
        return bool(names) and names == inputs == outputs

    def identity(self):
        if not self.is_identity:
            raise Skip("needs the fixture model")

    def inputs(self, samples=None):
        """One tensor an input: known samples for the fixture, zeros for another model."""
        tensors = []
        for spec in self.metadata["inputs"]:
            datatype = spec["datatype"]
            if self.is_identity:
                values = (samples or {}).get(datatype, SAMPLES[datatype])
                tensors.append(Tensor(spec["name"], datatype, [len(values)], values))
                continue
            shape = [1 if dim < 0 else dim for dim in spec["shape"]]
            zero = {"BOOL": False, "BYTES": "a"}.get(datatype, 0)
            tensors.append(Tensor(spec["name"], datatype, shape, [zero] * count(shape)))
        return tensors

    def json_only(self):
        """The inputs, where all inputs and outputs have a form in JSON."""
        if any(t["datatype"] in HALF for t in self.metadata["inputs"] + self.metadata["outputs"]):
            raise Skip("the model has half-precision tensors")
        return [tensor.as_json() for tensor in self.inputs()]

    def path(self, what, version=None):
        middle = f"/versions/{version}" if version else ""
        return f"v2/models/{self.model}{middle}/{what}"

    def binary(self, inputs, **request):
        """Body and headers of a request whose inputs are binary, but for those given as JSON objects."""
        described = [i if isinstance(i, dict) else i.as_binary() for i in inputs]
        header = json.dumps({"inputs": described, **request}).encode()
        body = header + b"".join(i.data for i in inputs if isinstance(i, Tensor))
        return body, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(header))}

    def infer(self, body, headers=None, version=None):
        """Status-checked, whichever form the answer has."""
        status, headers, data = self.rest.call("POST", self.path("infer", version), body, headers)
        equal(status, 200, f"status of infer: {short(data)}")
        return self.outputs(headers, data)

    def outputs(self, headers, data):
        """The answer's document, and its outputs by name."""
        length = headers.get("inference-header-content-length")
        answer = json.loads(data[: int(length)] if length else data)
        rest = data[int(length) :] if length else b""
        found = {}
        for output in answer["outputs"]:
            name, datatype, shape = output["name"], output["datatype"], output["shape"]
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                values = flat(output["data"])
                # Numbers of a JSON answer have the tensor's precision, not Python's.
                values = unpack(datatype, pack(datatype, values))
            else:
                values, rest = unpack(datatype, rest[:size]), rest[size:]
            equal(len(values), count(shape), f"elements of {name} {shape}")
            check(name not in found, f"output {name} comes twice")
            found[name] = Output(datatype, shape, values)
        equal(rest, b"", "bytes after the last output")
        return answer, found


def flat(data):
    for item in data:
        if isinstance(item, list):
            return [leaf for inner in data for leaf in flat(inner)]
    return list(data)


def run(target, groups, without, verbose):
    """Prints the table; the number of points that failed."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for p in POINTS:
        if (p.protocol == "REST" and not target.rest) or (p.protocol == "gRPC" and not target.grpc):
            continue
        result, why = "passed", ""
        try:
            if p.group not in groups:
                raise Skip("not an extension of this server")
            if any(text in p.text for text in without):
                raise Skip("left out by --skip")
            p.run(target)
        except Skip as skip:
            result, why = "skipped", str(skip)
        except Exception as error:  # whatever goes wrong: this point is not met
            result, why = "failed", f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
            if verbose:
                traceback.print_exc(file=sys.stderr)
        counts[result] += 1
        line = f"{p.protocol:5}{p.group:21}{p.text:90}{result}"
        print(f"{line}\n      {why}" if result == "failed" else f"{line}{': ' + why if why else ''}")
    print(", ".join(f"{result} {number}" for result, number in counts.items()))
    return counts["failed"]
