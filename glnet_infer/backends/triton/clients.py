"""Triton's two protocols behind one form: plain documents and arrays, and one error that says whether to try again."""

from __future__ import annotations

import importlib
import importlib.metadata
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.triton.address import Address
from glnet_infer.errors import BackendError, first_line, install_hint, one_line

_MODULES = {"triton": "tritonclient.grpc", "triton+http": "tritonclient.http"}

_TYPES = {"uint8": "UINT8", "int32": "INT32", "float32": "FP32"}
"""Triton's names of NumPy's types, those that the contract has."""

NUMPY_TYPES = {theirs: ours for ours, theirs in _TYPES.items()}
"""NumPy's names of Triton's types."""


class CallError(Exception):
    """A call that failed.

    Attributes:
        again: Whether the server did not take it, so that the same call may succeed a moment later.
    """

    def __init__(self, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.again = again


class Client(Protocol):
    """A connection to a server. May be called from several threads at once. All calls raise :class:`CallError`."""

    def metadata(self, seconds: float) -> dict[str, Any]:
        """The model's inputs and outputs, as Triton's JSON has them."""

    def config(self, seconds: float) -> dict[str, Any]:
        """The model's configuration, as Triton's JSON has it."""

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: list[str], seconds: float
    ) -> dict[str, NDArray[Any] | None]:
        """Outputs of the model; None for one that did not come."""

    def close(self) -> None:
        """Close the connection."""


def open_client(address: Address) -> Client:
    """A client of a server, which is not asked yet.

    Raises:
        BackendError: tritonclient is not installed.
    """
    return (GrpcClient if address.scheme == "triton" else HttpClient)(address, import_client(address.scheme))


def import_client(scheme: str) -> ModuleType:
    """The module of a protocol.

    Raises:
        BackendError: It is not installed.
    """
    try:
        return importlib.import_module(_MODULES[scheme])
    except Exception as error:  # tritonclient raises a RuntimeError where a part of it is missing
        raise BackendError(
            "Triton's client is not installed.", why=first_line(error), fix=install_hint("triton")
        ) from error


def describe(scheme: str, form: str) -> str:
    """Whether models of servers can be called, in words; whether a server is there shows when it is."""
    try:
        import_client(scheme)
    except BackendError as error:
        return f"{error.what} {error.fix}"
    return f"client {importlib.metadata.version('tritonclient')}; takes the address of a model, {form}"


def _inputs(module: ModuleType, arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
    made = []
    for name, array in arrays.items():
        made.append(module.InferInput(name, list(array.shape), _TYPES[array.dtype.name]))
        made[-1].set_data_from_numpy(np.ascontiguousarray(array))
    return made


def _arrays(result: Any, names: list[str]) -> dict[str, NDArray[Any] | None]:
    try:
        return {name: result.as_numpy(name) for name in names}
    except ValueError as error:  # as many bytes as the shape says are not there
        raise CallError(f"the answer is damaged: {one_line(error)}") from error


def _document(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise CallError("the answer is no description of a model")
    return found


class GrpcClient:
    """By gRPC."""

    _AGAIN = ("StatusCode.UNAVAILABLE",)

    def __init__(self, address: Address, module: ModuleType) -> None:
        self._module, self._model = module, address.model
        self._client = module.InferenceServerClient(address.place)

    def metadata(self, seconds: float) -> dict[str, Any]:
        """See :class:`Client`."""
        with self._told():
            return _document(self._client.get_model_metadata(self._model, as_json=True, client_timeout=seconds))

    def config(self, seconds: float) -> dict[str, Any]:
        """See :class:`Client`."""
        with self._told():
            found = self._client.get_model_config(self._model, as_json=True, client_timeout=seconds)
            return _document(found["config"])

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: list[str], seconds: float
    ) -> dict[str, NDArray[Any] | None]:
        """See :class:`Client`."""
        asked = [self._module.InferRequestedOutput(name) for name in outputs]
        with self._told():
            result = self._client.infer(self._model, _inputs(self._module, inputs), outputs=asked, client_timeout=seconds)
        return _arrays(result, outputs)

    def close(self) -> None:
        """See :class:`Client`."""
        self._client.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._module.InferenceServerException as error:
            status = str(error.status() or "")
            if status == "StatusCode.DEADLINE_EXCEEDED":
                raise CallError("no answer came in time") from error
            raise CallError(one_line(error), again=status in self._AGAIN) from error
        except (ValueError, KeyError, TypeError) as error:  # a closed channel, or an answer of another form
            raise CallError(one_line(error)) from error


class HttpClient:
    """By HTTP. tritonclient's own must stay in the thread that made it, so each thread has one."""

    def __init__(self, address: Address, module: ModuleType) -> None:
        self._module, self._address, self._model = module, address, address.model
        self._gevent = importlib.import_module("gevent")
        self._own, self._all, self._closed = threading.local(), weakref.WeakSet[Any](), False

    def metadata(self, seconds: float) -> dict[str, Any]:
        """See :class:`Client`."""
        with self._told(seconds):
            return _document(self._client().get_model_metadata(self._model))

    def config(self, seconds: float) -> dict[str, Any]:
        """See :class:`Client`."""
        with self._told(seconds):
            return _document(self._client().get_model_config(self._model))

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: list[str], seconds: float
    ) -> dict[str, NDArray[Any] | None]:
        """See :class:`Client`."""
        asked = [self._module.InferRequestedOutput(name) for name in outputs]
        with self._told(seconds):
            result = self._client().infer(self._model, _inputs(self._module, inputs), outputs=asked)
        return _arrays(result, outputs)

    def close(self) -> None:
        """See :class:`Client`."""
        self._closed = True
        for each in list(self._all):
            with suppress(Exception):  # one of another thread
                each.close()

    def _client(self) -> Any:
        client = getattr(self._own, "client", None)
        if self._closed:
            raise CallError("it is closed")
        if client is None:
            # Of each step; the whole is bounded by the caller.
            limit = self._address.timeout
            client = self._module.InferenceServerClient(
                self._address.place, connection_timeout=limit, network_timeout=limit
            )
            self._own.client = client
            self._all.add(client)
        return client

    @contextmanager
    def _told(self, seconds: float) -> Iterator[None]:
        late = TimeoutError("no answer came in time")
        try:
            with self._gevent.Timeout(seconds, late):
                yield
        except CallError:
            raise
        except self._module.InferenceServerException as error:
            raise CallError(one_line(error), again=str(error.status()) == "503") from error
        except TimeoutError as error:
            raise CallError("no answer came in time") from error
        except Exception as error:  # of sockets, of HTTP, of JSON: each library below has kinds of its own
            raise CallError(one_line(error), again=isinstance(error, ConnectionError)) from error
