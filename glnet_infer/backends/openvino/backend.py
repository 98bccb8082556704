"""The bundle's graph in OpenVINO, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.base import USUAL_BATCH_SIZE, Outputs
from glnet_infer.backends.cache_files import CacheFile
from glnet_infer.backends.openvino.graphs import FLOAT32, CompiledGraph, processor
from glnet_infer.backends.promise import Promise
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.records import FileRecord
from glnet_infer.devices import physical_cores
from glnet_infer.errors import BackendError, GlnetError, one_line
from glnet_infer.forks import HomeProcess, OfThisProcess


class OpenVinoBackend(OfThisProcess):
    """The bundle's graph in float32. May be called from several threads at once.

    N threads run N crops side by side, one thread each; what is left over is run by all of them together, crop by crop.

    Args:
        bundle: The opened bundle.
        threads: Threads that compute; one for each physical core that this process may use where None, which is the most.
        keep: Whether the compiled graph is kept for the next start.
        cache_directory: Folder to keep it in. None: the bundle's own ``cache`` folder, or ``~/.cache/glnet-infer`` where
            that cannot be written.

    Raises:
        BundleError: The graph is not what the manifest describes.
        BackendError: OpenVINO is not installed, refuses the graph, or would compute in another precision.

    Attributes:
        batch_size: Number of crops that suit it in one call.
    """

    name = "openvino"

    def __init__(
        self, bundle: Bundle, threads: int | None = None, *, keep: bool = True, cache_directory: Path | None = None
    ) -> None:
        self._home = HomeProcess()
        self._names = [output.name for output in bundle.manifest.outputs]
        file = bundle.graph_file
        graph = CompiledGraph(
            file,
            self._names,
            Promise(bundle, file.path).check,
            FLOAT32,
            threads or physical_cores(),
            _cache(bundle, file.record, cache_directory) if keep else None,
        )
        self._graph: CompiledGraph | None = graph
        self._shown = f"{type(self).__name__}({file.path.name} in {graph.precision}, {graph.members} crops side by side)"
        self.batch_size = USUAL_BATCH_SIZE // graph.members * graph.members

    def __repr__(self) -> str:
        return self._shown

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`glnet_infer.backends.base.Backend`."""
        graph = self._graph
        if graph is None:
            raise BackendError(f"The {self.name} backend is closed.", fix="make a new MeshRecoverer")
        self._home.check(f"{self.name} backend", "make the MeshRecoverer after the fork")
        rows = [slice(index, index + 1) for index in range(len(crops))]
        feeds: list[dict[str, NDArray[Any]]] = [{"crops": crops[row], "cameras": cameras[row]} for row in rows]
        try:
            found = graph.run(feeds)
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
        """Drop the graph."""
        self._graph = None


def _cache(bundle: Bundle, file: FileRecord, directory: Path | None) -> CacheFile:
    return CacheFile(bundle, f"{file.sha256[:16]}.{processor()}.openvino.cache", "compiled graphs", directory)
