"""The graph as a python model, for servers without Triton's ONNX Runtime backend."""

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_outputs()]

    def execute(self, requests):
        inputs = {
            name: [utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in ("crops", "cameras")
        }
        ends = np.cumsum([len(each) for each in inputs["crops"]])[:-1]
        outputs = self._session.run(self._names, {name: np.concatenate(each) for name, each in inputs.items()})
        shares = zip(*(np.split(array, ends) for array in outputs), strict=True)
        return [
            utils.InferenceResponse([utils.Tensor(name, array) for name, array in zip(self._names, share, strict=True)])
            for share in shares
        ]
