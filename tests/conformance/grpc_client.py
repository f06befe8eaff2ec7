"""gRPC, with Triton's own messages."""

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from points import HALF, Output, check, count, equal, unpack

TIMEOUT = 30
# How typed contents call what they carry.
CONTENTS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}


class Grpc:
    def __init__(self, address):
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=limits)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def call(self, method, request, **options):
        return getattr(self.stub, method)(request, timeout=TIMEOUT, **options)

    def as_dict(self, method, request):
        return json_format.MessageToDict(
            self.call(method, request), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )

    def server_metadata(self):
        return self.as_dict("ServerMetadata", pb.ServerMetadataRequest())

    def model_metadata(self, model, version=""):
        metadata = self.as_dict("ModelMetadata", pb.ModelMetadataRequest(name=model, version=version))
        for tensor in metadata["inputs"] + metadata["outputs"]:
            tensor["shape"] = [int(dim) for dim in tensor["shape"]]
        return metadata

    def refused(self, method, request, *codes, **options):
        """The call's status, one of `codes` (names), with a sentence."""
        try:
            self.call(method, request, **options)
        except grpc.RpcError as error:
            check(error.code().name in codes, f"{error.code().name} ({error.details()}) instead of", " or ".join(codes))
            check(error.details(), f"{error.code().name} without a word")
            return
        raise AssertionError("it was not refused")

    def reflect(self, package, question):
        """One answer of the reflection service, which is the same under two names."""
        ask = self.channel.stream_stream(
            f"/grpc.reflection.{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        return next(ask(iter([question]), timeout=TIMEOUT))


def request(model, tensors, raw=True, version="", **more):
    message = pb.ModelInferRequest(model_name=model, model_version=version, **more)
    for tensor in tensors:
        contents = None
        if not raw:
            values = tensor.values
            if tensor.datatype == "BYTES":
                values = [v.encode() if isinstance(v, str) else v for v in values]
            contents = pb.InferTensorContents(**{CONTENTS[tensor.datatype]: values})
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, contents=contents)
        if raw:
            message.raw_input_contents.append(tensor.data)
    return message


def outputs(answer):
    """By name, whichever form they have."""
    found = {}
    raw = list(answer.raw_output_contents)
    check(not raw or len(raw) == len(answer.outputs), f"{len(raw)} raw contents for {len(answer.outputs)} outputs")
    for index, output in enumerate(answer.outputs):
        if raw:
            values = unpack(output.datatype, raw[index])
        else:
            check(output.datatype not in HALF, f"{output.name} of {output.datatype} is not raw")
            values = list(getattr(output.contents, CONTENTS[output.datatype]))
        equal(len(values), count(output.shape), f"elements of {output.name}")
        check(output.name not in found, f"output {output.name} comes twice")
        found[output.name] = Output(output.datatype, list(output.shape), values)
    return found
