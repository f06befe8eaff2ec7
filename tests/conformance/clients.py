"""Triton's own Python clients against a server of the fixture model: clients.py HTTP_URL GRPC_ADDRESS MODEL"""

import queue
import sys
import unittest

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

HTTP, GRPC, MODEL = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1)
SIZE = 400  # enough to be worth a compression
VALUES = {
    "BOOL": np.arange(SIZE) % 3 == 0, "BYTES": np.array([f"ü{i}".encode() for i in range(SIZE)], dtype=np.object_),
    "FP32": np.linspace(-1, 1, SIZE, dtype=np.float32), "FP64": np.linspace(-1, 1, SIZE),
    **{f"{sign}INT{bits}": np.arange(SIZE).astype(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


def inputs(module, **options):
    tensors = []
    for datatype, values in VALUES.items():
        tensor = module.InferInput(f"x_{datatype}", values.shape, np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values, **options)
        tensors.append(tensor)
    return tensors


class Clients(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.http = http.InferenceServerClient(HTTP, concurrency=4)
        self.grpc = grpc.InferenceServerClient(GRPC)
        self.addCleanup(self.http.close)
        self.addCleanup(self.grpc.close)

    def right(self, result, names=None):
        for datatype in names or VALUES:
            values = result.as_numpy(f"y_{datatype}")
            if datatype == "BYTES":  # the client gives text where JSON carried it, else bytes
                values = np.array([v.encode() if isinstance(v, str) else v for v in values], dtype=np.object_)
            np.testing.assert_array_equal(values, VALUES[datatype], datatype)

    def test_health_and_metadata(self):
        for client, options in ((self.http, {}), (self.grpc, {"as_json": True})):
            self.assertTrue(client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL))
            self.assertIn("binary_tensor_data", client.get_server_metadata(**options)["extensions"])
            metadata = client.get_model_metadata(MODEL, **options)
            self.assertEqual({i["name"] for i in metadata["inputs"]}, {f"x_{d}" for d in VALUES})

    def test_configuration(self):
        over_http = self.http.get_model_config(MODEL)
        over_grpc = self.grpc.get_model_config(MODEL, as_json=True)["config"]
        self.assertEqual(over_http["backend"], "onnxruntime")
        self.assertEqual([i["data_type"] for i in over_http["input"]], [i["data_type"] for i in over_grpc["input"]])

    def test_statistics(self):
        def count(client, **options):
            stats = client.get_inference_statistics(MODEL, **options)["model_stats"][0]
            return int(stats["inference_stats"]["success"]["count"])

        before = count(self.http)
        self.http.infer(MODEL, inputs(http))
        self.grpc.infer(MODEL, inputs(grpc))
        self.assertEqual((count(self.http), count(self.grpc, as_json=True)), (before + 2, before + 2))

    def test_repository_index(self):
        self.assertEqual(self.http.get_model_repository_index()[0]["state"], "READY")
        self.assertEqual(self.grpc.get_model_repository_index().models[0].name, MODEL)

    def test_http_binary_and_json(self):
        for binary_inputs in (True, False):
            for binary_outputs in (True, False):
                wanted = [http.InferRequestedOutput(f"y_{d}", binary_data=binary_outputs) for d in VALUES]
                tensors = inputs(http, binary_data=binary_inputs)
                self.right(self.http.infer(MODEL, tensors, outputs=wanted, request_id="7"))
        self.assertEqual(self.http.infer(MODEL, inputs(http), request_id="7").get_response()["id"], "7")

    def test_http_compression(self):
        for algorithm in ("gzip", "deflate"):
            for binary in (True, False):
                wanted = [http.InferRequestedOutput(f"y_{d}", binary_data=binary) for d in VALUES]
                result = self.http.infer(
                    MODEL, inputs(http, binary_data=binary), outputs=wanted,
                    request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
                )
                self.right(result)

    def test_grpc_compression(self):
        for algorithm in ("gzip", "deflate"):
            self.right(self.grpc.infer(MODEL, inputs(grpc), compression_algorithm=algorithm))

    def test_grpc_chosen_outputs_and_parameters(self):
        wanted = [grpc.InferRequestedOutput("y_FP32"), grpc.InferRequestedOutput("y_BYTES")]
        result = self.grpc.infer(
            MODEL, inputs(grpc), outputs=wanted, request_id="7", priority=3, timeout=20_000_000, client_timeout=30,
            parameters={"custom": "x"},
        )
        self.right(result, ["FP32", "BYTES"])
        self.assertEqual((result.get_response().id, len(result.get_response().outputs)), ("7", 2))

    def test_asynchronous_calls(self):
        requests = [self.http.async_infer(MODEL, inputs(http)) for _ in range(8)]
        for request in requests:
            self.right(request.get_result(timeout=30))
        answers = queue.Queue()
        for _ in range(8):
            self.grpc.async_infer(MODEL, inputs(grpc), lambda result, error: answers.put(error or result))
        for _ in range(8):
            self.right(answers.get(timeout=30))

    def test_errors_are_sentences(self):
        for client, module in ((self.http, http), (self.grpc, grpc)):
            with self.assertRaisesRegex(InferenceServerException, "input \"x_.*\" is missing"):
                client.infer(MODEL, inputs(module)[:-1])
            with self.assertRaisesRegex(InferenceServerException, "unknown model"):
                client.get_model_metadata("other")
        with self.assertRaisesRegex(InferenceServerException, "change the ModelDeployment"):
            self.http.load_model(MODEL)
        with self.assertRaisesRegex(InferenceServerException, "change the ModelDeployment"):
            self.grpc.unload_model(MODEL)
        with self.assertRaisesRegex(InferenceServerException, "send tensors"):
            self.grpc.get_system_shared_memory_status()


class AsyncioClients(unittest.IsolatedAsyncioTestCase):
    async def test_infer(self):
        for module, address in ((http_aio, HTTP), (grpc_aio, GRPC)):
            client = module.InferenceServerClient(address)
            result = await client.infer(MODEL, inputs(http if module is http_aio else grpc))
            np.testing.assert_array_equal(result.as_numpy("y_FP32"), VALUES["FP32"])
            await client.close()


unittest.main()
