"""The bundle's graph in OpenVINO, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.base import USUAL_BATCH_SIZE, Outputs
from glnet_infer.backends.cache_files import CacheFile
from glnet_infer.backends.openvino.graphs import BFLOAT16, FLOAT32, CompiledGraph, processor
from glnet_infer.backends.openvino.models import GraphModel, Part
from glnet_infer.backends.promise import Promise
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.checked_file import CheckedFile
from glnet_infer.bundle.records import BF16, RUNTIME
from glnet_infer.devices import physical_cores
from glnet_infer.errors import BackendError, GlnetError, one_line
from glnet_infer.forks import HomeProcess, OfThisProcess


class OpenVinoBackend(OfThisProcess):
    """The bundle's graph in float32, or its first part in bfloat16. May be called from several threads at once.

    N threads run N crops side by side, one thread each; what is left over is run by all of them together, crop by crop.

    Args:
        bundle: The opened bundle.
        threads: Threads that compute; one for each physical core that this process may use where None, which is the most.
        purpose: The graph's, ``RUNTIME`` or ``BF16`` of :mod:`glnet_infer.bundle.records`.
        keep: Whether the compiled graph is kept for the next start.
        cache_directory: Folder to keep it in. None: the bundle's own ``cache`` folder, or ``~/.cache/glnet-infer`` where
            that cannot be written.

    Raises:
        BundleError: The graph is not what the manifest describes.
        BackendError: OpenVINO is not installed, refuses the graph, or would compute in another precision; the bundle has
            none for the purpose.

    Attributes:
        batch_size: Number of crops that suit it in one call.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        *,
        purpose: str = RUNTIME,
        keep: bool = True,
        cache_directory: Path | None = None,
    ) -> None:
        record = bundle.manifest.graph_for(purpose)
        if record is None:
            raise BackendError(f"The bundle {bundle.directory} has no bf16 graph.", fix="export it again with --bf16")
        self.name = "openvino" if purpose == RUNTIME else f"openvino-{record.precision}"
        self._home = HomeProcess()
        self._names = [output.name for output in bundle.manifest.outputs]
        file = (
            bundle.graph_file if record.file == bundle.manifest.graph.file else CheckedFile(bundle.directory, record.file)
        )
        source = GraphModel(file, Promise(bundle, file.path).check)

        def compiled(part: Part | None, gives: Sequence[str], precision: str) -> CompiledGraph:
            step = "" if part is None else f".{precision}-{1 if part.first else 2}"
            name = f"{file.record.sha256[:16]}.{processor()}{step}.openvino.cache"
            cache = CacheFile(bundle, name, "compiled graphs", cache_directory) if keep else None
            return CompiledGraph(source, part, gives, precision, threads or physical_cores(), cache)

        self._graphs: tuple[CompiledGraph, ...]
        if purpose == BF16:
            first, second = (Part(record.cut, is_first) for is_first in (True, False))
            self._graphs = (compiled(first, record.cut, BFLOAT16), compiled(second, self._names, FLOAT32))
        else:
            self._graphs = (compiled(None, self._names, FLOAT32),)
        members = self._graphs[0].members
        precisions = " and ".join(graph.precision for graph in self._graphs)
        self._shown = f"{type(self).__name__}({file.path.name} in {precisions}, {members} crops side by side)"
        self.batch_size = USUAL_BATCH_SIZE // members * members

    def __repr__(self) -> str:
        return self._shown

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`glnet_infer.backends.base.Backend`."""
        graphs = self._graphs
        if not graphs:
            raise BackendError(f"The {self.name} backend is closed.", fix="make a new MeshRecoverer")
        self._home.check(f"{self.name} backend", "make the MeshRecoverer after the fork")
        rows = [slice(index, index + 1) for index in range(len(crops))]
        feeds: list[dict[str, NDArray[Any]]] = [{"crops": crops[row], "cameras": cameras[row]} for row in rows]
        # What two parts pass on is as large as all the rest: no more crops wait between them than run side by side.
        step = len(feeds) if len(graphs) == 1 else graphs[0].members
        found: list[Outputs] = []
        try:
            for start in range(0, len(feeds), step):
                passed: list[Outputs] = [{}] * len(feeds[start : start + step])
                for graph in graphs:
                    given = zip(feeds[start : start + step], passed, strict=True)
                    passed = graph.run([{**feed, **each} for feed, each in given])
                found += passed
        except GlnetError:  # of the graph for several crops, which is compiled when it is first needed
            raise
        except Exception as error:  # OpenVINO's exceptions share no base class but this
            raise BackendError(
                f"{self.name} failed on {len(crops)} crops.",
                why=one_line(error),
                fix="free memory if it ran out; else check the bundle with glnet-doctor",
            ) from error
        return {name: np.concatenate([each[name] for each in found]) for name in self._names}

    def close(self) -> None:
        """Drop the graphs."""
        self._graphs = ()
