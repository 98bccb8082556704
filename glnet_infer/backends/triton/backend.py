"""The client of a model that Triton serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.base import Outputs
from glnet_infer.backends.promise import Offered, Promise
from glnet_infer.backends.triton.address import Address
from glnet_infer.backends.triton.clients import NUMPY_TYPES, CallError, open_client
from glnet_infer.backends.triton.outputs import as_promised
from glnet_infer.bundle import Bundle
from glnet_infer.contract import GRAPH_INPUTS
from glnet_infer.errors import BackendError
from glnet_infer.fields import quote
from glnet_infer.forks import HomeProcess, OfThisProcess

GRAPH_PARAMETER = "glnet_graph_sha256"
"""Parameter of a model's configuration: SHA-256 of the bundle's graph that the model runs, or was built from."""

PAUSES = (0.1, 0.4)
"""Seconds before a call is repeated that the server did not take: as often as there are numbers."""

_Answer = TypeVar("_Answer")


class TritonBackend(OfThisProcess):
    """A model on a Triton server. May be called from several threads at once.

    Args:
        bundle: The opened bundle. The server's model has to be of the same graph.
        address: Address of the model: ``triton://HOST:8001/MODEL`` for gRPC, ``triton+http://HOST:8000/MODEL`` for
            HTTP. ``?timeout=SECONDS`` may follow: most seconds of a call with its repetitions; 10 where it is not said.

    Raises:
        BackendError: tritonclient is not installed, no server answers in time, or its model is another one.

    Attributes:
        name: The address.
        batch_size: Most crops that the model takes in one call.
    """

    def __init__(self, bundle: Bundle, address: Address) -> None:
        self._address = address
        self.name = str(self._address)
        self._specs = bundle.manifest.outputs
        self._home, self._closed = HomeProcess(), False
        self._client = open_client(self._address)
        try:
            self.batch_size = self._check(bundle)
        except BaseException:
            self._client.close()
            raise

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`glnet_infer.backends.base.Backend`."""
        if self._closed:
            raise BackendError(f"The backend {self.name} is closed.", fix="make a new MeshRecoverer")
        self._home.check(f"backend {self.name}", "make the MeshRecoverer after the fork")
        inputs: dict[str, NDArray[Any]] = {GRAPH_INPUTS[0].name: crops, GRAPH_INPUTS[1].name: cameras}
        names = [spec.name for spec in self._specs]

        def infer(seconds: float) -> dict[str, NDArray[Any] | None]:
            return self._client.infer(inputs, names, seconds)

        fix = "see the server's log; a longer time is given by ?timeout=SECONDS"
        found = self._called(infer, f"{self.name} failed on {len(crops)} crops.", fix)
        return as_promised(found, self._specs, self.name)

    def close(self) -> None:
        """Close the connection."""
        if not self._closed and self._home.is_here:
            self._closed = True
            self._client.close()

    def _check(self, bundle: Bundle) -> int:
        """Most crops of a call, after the model was found to be the bundle's.

        Raises:
            BackendError: It is another one, or the server does not answer.
        """
        what = f"{self.name} cannot be used."
        fix = "check the address, and that the server is ready: /v2/health/ready on its HTTP port (docs/serving.md)"
        metadata, config = (self._called(ask, what, fix) for ask in (self._client.metadata, self._client.config))
        wanted = bundle.manifest.graph.file.sha256
        parameter = _mapping(_mapping(config.get("parameters")).get(GRAPH_PARAMETER))
        served = parameter.get("string_value")
        most = config.get("max_batch_size")
        problems = []
        if served != wanted:
            problems.append(
                f"its graph has the SHA-256 {quote(served)[:18]}..., the bundle's has {wanted[:12]}..."
                if served
                else f"its configuration has no parameter {GRAPH_PARAMETER}"
            )
        if type(most) is not int or most < 1:
            problems.append(f"its max_batch_size is {quote(most)}")
        problems += Promise(bundle).problems(*(self._offered(metadata.get(key)) for key in ("inputs", "outputs")))
        if problems:
            raise BackendError(
                f"{self.name} is not the model of {bundle.directory}.",
                why="; ".join(problems),
                fix="serve the repository that glnet-export triton makes of this bundle, or use the served one's bundle",
            )
        assert isinstance(most, int)
        return most

    def _offered(self, tensors: Any) -> list[Offered]:
        """Inputs or outputs of Triton's metadata. A row of one number is the number itself, see :meth:`run`."""
        single = {spec.name for spec in self._specs if len(spec.shape) == 1}
        found = []
        for tensor in map(_mapping, tensors if isinstance(tensors, list) else []):
            name, dtype, sides = str(tensor.get("name")), str(tensor.get("datatype")), tensor.get("shape")
            shape = tuple(map(_side, sides)) if isinstance(sides, list) else ()
            if name in single and shape[1:] == (1,):
                shape = shape[:1]
            found.append(Offered(name, NUMPY_TYPES.get(dtype, dtype), shape))
        return found

    def _called(self, ask: Callable[[float], _Answer], what: str, fix: str) -> _Answer:
        """The answer to a call, which is repeated where the server did not take it, all within the time limit.

        A call changes nothing on the server, so that repeating it is safe. One that ran out of time is not repeated.

        Raises:
            BackendError: It failed, each time, or took too long.
        """
        end = time.monotonic() + self._address.timeout
        for pause in (*PAUSES, None):
            try:
                return ask(max(end - time.monotonic(), 0.001))
            except CallError as error:
                left = end - time.monotonic()
                if not error.again or pause is None or pause >= left:
                    why = f"{error} (limit {self._address.timeout:g} s)" if left <= 0 else str(error)
                    raise BackendError(what, why=why, fix=fix) from error
            time.sleep(pause)
        raise AssertionError("the last call returns or raises")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _side(side: Any) -> int | None:
    """A side of a shape; gRPC's JSON has numbers of 64 bits as texts. None: the side is left open."""
    try:
        number = int(side)
    except (TypeError, ValueError):
        return None
    return number if number >= 0 else None
