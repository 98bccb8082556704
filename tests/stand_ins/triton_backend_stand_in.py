"""What Triton's python backend gives to a model, with our own runtime as the server's other model."""

from types import SimpleNamespace

import numpy as np


class Tensor:
    def __init__(self, name, array):
        assert isinstance(array, np.ndarray) and array.flags.c_contiguous, name
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array

    def to_dlpack(self):
        return self._array

    @staticmethod
    def from_dlpack(name, array):
        return Tensor(name, array)


class TritonError:
    INVALID_ARG, INTERNAL = "invalid", "internal"

    def __init__(self, message, code=INTERNAL):
        self._message, self.code = message, code

    def message(self):
        return self._message


class InferenceResponse:
    def __init__(self, output_tensors=(), error=None):
        self.tensors, self._error = {each.name(): each for each in output_tensors}, error

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error


class Request:
    """A client's request for one image: arrays by name, before which Triton puts a side that counts images."""

    def __init__(self, **arrays):
        self.tensors = {name: Tensor(name, array[None]) for name, array in arrays.items()}


class Utils:
    """The module ``triton_python_backend_utils``, around a backend of ours.

    Attributes:
        calls: Numbers of crops of the calls to the other model.
        logged: What was logged as an error.
        failure: What the other model answers instead; empty where it works.
    """

    Tensor, TritonError, InferenceResponse = Tensor, TritonError, InferenceResponse
    TRITONSERVER_MEMORY_CPU = 0

    def __init__(self, backend):
        self.calls, self.logged, self.failure = [], [], ""
        self.Logger = SimpleNamespace(log_error=self.logged.append)
        utils = self

        class InferenceRequest:
            def __init__(self, model_name, requested_output_names, inputs, preferred_memory):
                assert model_name == "glnet" and preferred_memory == (0, 0)
                self._names, self._inputs = requested_output_names, {each.name(): each.as_numpy() for each in inputs}

            def exec(self):
                utils.calls.append(len(self._inputs["crops"]))
                if utils.failure:
                    return InferenceResponse(error=TritonError(utils.failure))
                outputs = dict(backend.run(self._inputs["crops"], self._inputs["cameras"]))
                outputs["confidence"] = outputs["confidence"][:, None]
                return InferenceResponse([Tensor(name, outputs[name]) for name in self._names if name in outputs])

        self.InferenceRequest = InferenceRequest

    @staticmethod
    def PreferredMemory(kind, number):  # noqa: N802 - Triton's name
        return kind, number

    @staticmethod
    def get_input_tensor_by_name(request, name):
        return request.tensors.get(name)

    get_output_tensor_by_name = get_input_tensor_by_name
