"""Servers that speak Triton's two protocols in this process, around any backend of ours, and fail as they are told to.

The messages are those of tritonclient's own protobuf and of the HTTP protocol's binary extension.
"""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import grpc
import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

TYPES = {"uint8": "UINT8", "int32": "INT32", "float32": "FP32"}


class Model:
    """What both servers serve.

    Attributes:
        metadata: The model's, as JSON; tests change it.
        config: The same.
        delay: Seconds before an answer.
        busy: How many of the next calls are refused as those of a server that is not ready.
        stall: Seconds that an answer by HTTP stands still in its middle, and is never whole.
        change: Applied to the outputs.
        calls: Names of the calls that arrived.
    """

    def __init__(self, backend, bundle, name="glnet", most=8):
        self.backend, self.name, self.delay, self.stall, self.busy, self.calls = backend, name, 0.0, 0.0, 0, []
        self.change = lambda outputs: outputs
        manifest = bundle.manifest
        side = manifest.crop.size

        def tensor(spec):
            sides = [side if each == "C" else each for each in spec.shape[1:]]
            return {"name": spec.name, "datatype": TYPES[spec.dtype], "shape": [-1, *(sides or [1])]}

        self.metadata = {
            "name": name,
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [tensor(spec) for spec in manifest.inputs],
            "outputs": [tensor(spec) for spec in manifest.outputs],
        }
        digest = manifest.graph.file.sha256
        self.config = {
            "name": name,
            "max_batch_size": most,
            "parameters": {"glnet_graph_sha256": {"string_value": digest}},
        }

    def begin(self, call):
        """Whether a call is refused, after the delay."""
        self.calls.append(call)
        if self.busy > 0:
            self.busy -= 1
            return True
        time.sleep(self.delay)
        return False

    def run(self, inputs):
        outputs = dict(self.backend.run(inputs["crops"], inputs["cameras"]))
        outputs["confidence"] = outputs["confidence"][:, None]
        return self.change(outputs)


class GrpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """By gRPC."""

    scheme = "triton"

    def __init__(self, model, port=0):
        self.model = model
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def _begin(self, request, context, call):
        name = getattr(request, "name", "") or getattr(request, "model_name", "")
        if name != self.model.name:
            self.model.calls.append("unknown")
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name}")
        if self.model.begin(call):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not ready")

    def ModelMetadata(self, request, context):  # noqa: N802 - the protocol's names
        self._begin(request, context, "metadata")
        return json_format.ParseDict(self.model.metadata, service_pb2.ModelMetadataResponse())

    def ModelConfig(self, request, context):  # noqa: N802
        self._begin(request, context, "config")
        config = json_format.ParseDict(self.model.config, model_config_pb2.ModelConfig())
        return service_pb2.ModelConfigResponse(config=config)

    def ModelInfer(self, request, context):  # noqa: N802
        self._begin(request, context, "infer")
        arrays = {
            tensor.name: np.frombuffer(raw, {v: k for k, v in TYPES.items()}[tensor.datatype]).reshape(tensor.shape)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        outputs = self.model.run(arrays)
        response = service_pb2.ModelInferResponse(model_name=self.model.name)
        for asked in request.outputs:
            if asked.name in outputs:
                array = outputs[asked.name]
                response.outputs.add(name=asked.name, datatype=TYPES[array.dtype.name], shape=array.shape)
                response.raw_output_contents.append(array.tobytes())
        return response

    def stop(self):
        self._server.stop(0).wait()


class HttpServer:
    """By HTTP."""

    scheme = "triton+http"

    def __init__(self, model, port=0):
        self.model = model

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, document, tail=b""):
                head = json.dumps(document).encode()
                self.send_response(status)
                if tail:
                    self.send_header("Inference-Header-Content-Length", str(len(head)))
                self.send_header("Content-Length", str(len(head) + len(tail)))
                self.end_headers()
                if tail and model.stall:
                    self.wfile.write(head + tail[: len(tail) // 2])
                    time.sleep(model.stall)
                    self.close_connection = True
                    return
                self.wfile.write(head + tail)

            def begin(self, call):
                if self.path.split("/")[3] != model.name:
                    model.calls.append("unknown")
                    self.answer(404, {"error": f"unknown model at {self.path}"})
                    return False
                if model.begin(call):
                    self.answer(503, {"error": "not ready"})
                    return False
                return True

            def do_GET(self):
                is_config = self.path.endswith("/config")
                if self.begin("config" if is_config else "metadata"):
                    self.answer(200, model.config if is_config else model.metadata)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not self.begin("infer"):
                    return
                at = int(self.headers["Inference-Header-Content-Length"])
                request, arrays = json.loads(body[:at]), {}
                for tensor in request["inputs"]:
                    size = tensor["parameters"]["binary_data_size"]
                    dtype = {v: k for k, v in TYPES.items()}[tensor["datatype"]]
                    arrays[tensor["name"]] = np.frombuffer(body[at : at + size], dtype).reshape(tensor["shape"])
                    at += size
                outputs, described, tail = model.run(arrays), [], b""
                for asked in request["outputs"]:
                    if asked["name"] in outputs:
                        array = outputs[asked["name"]]
                        raw = array.tobytes()
                        described.append(
                            {
                                "name": asked["name"],
                                "datatype": TYPES[array.dtype.name],
                                "shape": list(array.shape),
                                "parameters": {"binary_data_size": len(raw)},
                            }
                        )
                        tail += raw
                self.answer(200, {"model_name": model.name, "outputs": described}, tail)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            connections: ClassVar = []  # of this one server

            def process_request(self, request, client_address):
                self.connections.append(request)
                super().process_request(request, client_address)

            def handle_error(self, *_):  # a client that left
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        for each in self._server.connections:
            with suppress(OSError):  # one that is closed
                each.shutdown(socket.SHUT_RDWR)


SERVERS = (GrpcServer, HttpServer)
