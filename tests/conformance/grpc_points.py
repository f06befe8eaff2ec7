"""gRPC: the protocol, Triton's extensions, and gRPC's own services."""

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2 as pb

from extension_points import compare_config
from grpc_client import outputs, request
from points import FORMATS, HALF, SAMPLES, Skip, check, equal, point


def core(text):
    return point("gRPC", "core", text)


def infer(t, message, **options):
    return t.grpc.call("ModelInfer", message, **options)


def good(t, raw=True, **more):
    return request(t.model, t.inputs(), raw, **more)


def typed(t):
    if any(i["datatype"] in HALF for i in t.metadata["inputs"]):
        raise Skip("the model has half-precision inputs")
    return good(t, raw=False)


@core("ServerLive and ServerReady say yes")
def _(t):
    check(t.grpc.call("ServerLive", pb.ServerLiveRequest()).live)
    check(t.grpc.call("ServerReady", pb.ServerReadyRequest()).ready)


@core("ModelReady says yes, of a version too")
def _(t):
    for version in ("", t.version or ""):
        check(t.grpc.call("ModelReady", pb.ModelReadyRequest(name=t.model, version=version)).ready)


@core("ModelReady of an unknown model is false or refused")
def _(t):
    try:
        check(not t.grpc.call("ModelReady", pb.ModelReadyRequest(name="no-such-model")).ready)
    except grpc.RpcError as error:
        check(error.code().name in ("NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE"), error.code())


@core("ServerMetadata says what REST says")
def _(t):
    server = t.grpc.server_metadata()
    check(server["name"] and server["version"], server)
    if t.rest:
        equal(server, t.rest.json("GET", "v2"))


@core("ModelMetadata says what REST says, of a version too")
def _(t):
    for version in ("", t.version or ""):
        equal(t.grpc.model_metadata(t.model, version), {**t.metadata, "versions": t.metadata.get("versions", [])})


@core("ModelMetadata of an unknown model or version is refused")
def _(t):
    codes = ("NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE")
    t.grpc.refused("ModelMetadata", pb.ModelMetadataRequest(name="no-such-model"), *codes)
    t.grpc.refused("ModelMetadata", pb.ModelMetadataRequest(name=t.model, version="987654321"), *codes)


@core("ModelInfer answers outputs that agree with the metadata, and names the model")
def _(t):
    answer = infer(t, good(t))
    equal(answer.model_name, t.model)
    known = {o["name"]: o["datatype"] for o in t.metadata["outputs"]}
    equal({name: o.datatype for name, o in outputs(answer).items()}, known)


@core("typed contents mean what raw contents mean")
def _(t):
    equal(outputs(infer(t, typed(t))), outputs(infer(t, good(t))))


@core("ModelInfer answers what REST answers")
def _(t):
    if not t.rest:
        raise Skip("no --http")
    body, headers = t.binary(t.inputs(), parameters={"binary_data_output": True})
    equal(outputs(infer(t, good(t))), t.infer(body, headers)[1])


def values(datatype):
    @core(f"{datatype} survives, raw and typed" if datatype not in HALF else f"{datatype} survives, raw")
    def _(t):
        t.identity()
        if all(i["datatype"] != datatype for i in t.metadata["inputs"]):
            raise Skip(f"no input of {datatype}")
        samples = {"BYTES": [b"\x00\xff", b"", b"x"]}
        for raw in (True, False) if datatype not in HALF else (True,):
            message = request(t.model, t.inputs(samples), raw)
            have = outputs(infer(t, message))[f"y_{datatype}"].values
            equal(have, samples.get(datatype, SAMPLES[datatype]), "raw" if raw else "typed")


for name in FORMATS:
    values(name)


@core("a tensor without elements passes")
def _(t):
    t.identity()
    message = request(t.model, t.inputs({d: [] for d in FORMATS}))
    check(all(o.shape == [0] and o.values == [] for o in outputs(infer(t, message)).values()))


@core("a request's id comes back, and the version that answered")
def _(t):
    answer = infer(t, good(t, id="42", version=t.version or ""))
    equal((answer.id, answer.model_version), ("42", t.version or answer.model_version))


@core("only the outputs that were asked for are answered")
def _(t):
    message = good(t)
    wanted = t.metadata["outputs"][-1]["name"]
    message.outputs.add(name=wanted)
    equal(set(outputs(infer(t, message))), {wanted})


@core("inputs may come in any order")
def _(t):
    equal(outputs(infer(t, request(t.model, t.inputs()[::-1]))), outputs(infer(t, good(t))))


@core("parameters that nobody knows are read past")
def _(t):
    message = good(t)
    message.parameters["x_unknown"].string_param = "a"
    message.parameters["x_number"].double_param = 1.5
    message.inputs[0].parameters["x_flag"].bool_param = True
    message.outputs.add(name=t.metadata["outputs"][0]["name"]).parameters["x_int"].int64_param = 3
    infer(t, message)


@core("many calls at once get their own answers")
def _(t):
    calls = [t.grpc.stub.ModelInfer.future(good(t, id=str(i)), timeout=30) for i in range(32)]
    equal([c.result().id for c in calls], [str(i) for i in range(32)])


def refusal(text, spoil, *codes):
    @core(f"refused with a code and a sentence: {text}")
    def _(t):
        message = good(t)
        if spoil(t, message) is Skip:
            raise Skip("the model has no such input")
        t.grpc.refused("ModelInfer", message, *(codes or ("INVALID_ARGUMENT",)))


def retype(t, m):
    m.inputs[0].datatype = "INT8" if m.inputs[0].datatype != "INT8" else "INT16"


def lying_bytes(t, m):
    index = next((n for n, i in enumerate(m.inputs) if i.datatype == "BYTES"), None)
    if index is None:
        return Skip
    m.raw_input_contents[index] = b"\xff\xff\xff\x7fab"


def wrong_contents(t, m):
    m.CopyFrom(typed(t))
    tensor = m.inputs[0]
    tensor.contents.Clear()
    wrong = "uint64_contents" if tensor.datatype != "UINT64" else "int64_contents"
    getattr(tensor.contents, wrong).append(1)


def overflow(t, m):
    m.CopyFrom(typed(t))
    index = next((n for n, i in enumerate(m.inputs) if i.datatype == "INT8"), None)
    if index is None:
        return Skip
    m.inputs[index].contents.int_contents[0] = 300


def no_inputs(t, m):
    del m.inputs[:], m.raw_input_contents[:]


def fewer_raw(t, m):
    del m.raw_input_contents[-1]


def shorter_raw(t, m):
    m.raw_input_contents[0] = m.raw_input_contents[0][:-1]


def longer_raw(t, m):
    m.raw_input_contents[0] += b"x"


def unknown_output(t, m):
    m.outputs.add(name="zz")


NO_MODEL = ("NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE")
refusal("a model that does not exist", lambda t, m: setattr(m, "model_name", "no-such-model"), *NO_MODEL)
refusal("a version that does not exist", lambda t, m: setattr(m, "model_version", "987654321"), *NO_MODEL)
refusal("no inputs", no_inputs)
refusal("one raw content too few", fewer_raw)
refusal("one raw content too many", lambda t, m: m.raw_input_contents.append(b"x"))
refusal("raw contents that are shorter than the shape", shorter_raw)
refusal("raw contents that are longer than the shape", longer_raw)
refusal("raw and typed contents at once", lambda t, m: m.inputs[0].contents.fp32_contents.append(1))
refusal("typed contents of another type", wrong_contents)
refusal("a typed integer beyond its type", overflow)
refusal("a BYTES element whose length reaches beyond the data", lying_bytes)
refusal("an input that the model does not have", lambda t, m: setattr(m.inputs[0], "name", "zz"))
refusal("an output that the model does not have", unknown_output)
refusal("a datatype that does not exist", lambda t, m: setattr(m.inputs[0], "datatype", "FP31"))
refusal("a datatype that is not the model's", retype)
refusal("an axis below zero", lambda t, m: m.inputs[0].shape.append(-1))
refusal("an axis too many", lambda t, m: m.inputs[0].shape.append(1))
refusal("a shape whose product overflows", lambda t, m: m.inputs[0].shape.extend([2**32, 2**32]))


@core("a method that does not exist is UNIMPLEMENTED")
def _(t):
    ask = t.grpc.channel.unary_unary("/inference.GRPCInferenceService/NoSuchMethod")
    try:
        ask(b"", timeout=30)
    except grpc.RpcError as error:
        return equal(error.code().name, "UNIMPLEMENTED")
    raise AssertionError("it was answered")


@core("after all of that, a good request is answered")
def _(t):
    infer(t, good(t))


@point("gRPC", "model_configuration", "ModelConfig agrees with the metadata, of a version too")
def _(t):
    for version in ("", t.version or ""):
        answer = t.grpc.as_dict("ModelConfig", pb.ModelConfigRequest(name=t.model, version=version))
        compare_config(t, answer["config"])


@point("gRPC", "model_configuration", "refused: the configuration of an unknown model")
def _(t):
    t.grpc.refused("ModelConfig", pb.ModelConfigRequest(name="no-such-model"), *NO_MODEL)


@point("gRPC", "statistics", "each inference is counted once")
def _(t):
    def counted():
        ask = pb.ModelStatisticsRequest(name=t.model, version=t.version or "")
        return t.grpc.call("ModelStatistics", ask).model_stats[0]

    before = counted()
    infer(t, good(t))
    after = counted()
    equal((after.name, after.execution_count - before.execution_count), (t.model, 1))
    equal(after.inference_stats.success.count - before.inference_stats.success.count, 1)
    check(after.inference_stats.success.ns > before.inference_stats.success.ns)


@point("gRPC", "statistics", "ModelStatistics without a name answers for all models")
def _(t):
    check(t.model in [m.name for m in t.grpc.call("ModelStatistics", pb.ModelStatisticsRequest()).model_stats])


@point("gRPC", "repository_index", "RepositoryIndex lists the model as READY")
def _(t):
    models = t.grpc.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)).models
    equal({m.state for m in models if m.name == t.model}, {"READY"})


for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):

    @point("gRPC", "compression", f"a message may be compressed: {algorithm.name.lower()}")
    def _(t, algorithm=algorithm):
        equal(outputs(infer(t, good(t), compression=algorithm)), outputs(infer(t, good(t))))


@point("gRPC", "grpc_health", "Check says SERVING of the server")
def _(t):
    equal(t.grpc.health.Check(health_pb2.HealthCheckRequest(), timeout=30).status, 1)


@point("gRPC", "grpc_health", "Check of an unknown service is NOT_FOUND")
def _(t):
    try:
        t.grpc.health.Check(health_pb2.HealthCheckRequest(service="no-such-service"), timeout=30)
    except grpc.RpcError as error:
        return equal(error.code().name, "NOT_FOUND")
    raise AssertionError("it was answered")


@point("gRPC", "grpc_health", "Watch begins with the present state")
def _(t):
    watch = t.grpc.health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
    equal(next(watch).status, 1)
    watch.cancel()


@point("gRPC", "grpc_reflection", "reflection lists the inference service")
def _(t):
    answer = t.grpc.reflect("v1", reflection_pb2.ServerReflectionRequest(list_services=""))
    names = [s.name for s in answer.list_services_response.service]
    check("inference.GRPCInferenceService" in names, names)


@point("gRPC", "grpc_reflection", "reflection describes the messages")
def _(t):
    question = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest")
    check(t.grpc.reflect("v1", question).file_descriptor_response.file_descriptor_proto)
