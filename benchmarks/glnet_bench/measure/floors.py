"""The floor of a run: ceilings of this machine, costs of the bundle's graphs, and what follows for every batch."""

from __future__ import annotations

from collections.abc import Callable

from glnet_bench.floor import ceilings, operations
from glnet_bench.measure.failures import reason
from glnet_bench.record.names import FloorCase
from glnet_bench.record.results import Ceilings, Floor
from glnet_bench.runners.base import TORCH
from glnet_bench.settings import Settings
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.records import ENGINES, FileRecord
from glnet_infer.devices import cores
from glnet_infer.errors import BackendError, GlnetError
from glnet_infer.files import is_file


def measure_floor(bundle: Bundle, settings: Settings) -> Floor:
    """Measure the ceilings, count the graphs, and divide."""
    found = Floor(ceilings={}, no_ceilings={}, costs={}, no_costs={}, times={})
    ways: dict[str, Callable[[], Ceilings]] = {
        "cpu": lambda: ceilings.measure_cpu(settings.threads or cores()),
        "cuda": lambda: ceilings.measure_gpu(with_torch=not set(TORCH).isdisjoint(settings.backends)),
    }
    for device, way in ways.items():
        try:
            found.ceilings[device] = way()
        except Exception as error:  # no GPU, no memory, no library: then there is no floor
            found.no_ceilings[device] = reason(error)
    for precision, record in graphs(bundle).items():
        for crops in (1, *(count for count in settings.batches if count != 1)):
            try:
                cost = operations.count(bundle.read(record), crops)
            except (GlnetError, ImportError) as error:
                found.costs.pop(precision, None)
                found.no_costs[precision] = reason(error)
                break
            found.costs.setdefault(precision, cost.total())
            for device, ceiling in found.ceilings.items():
                try:
                    found.times[FloorCase(device, precision, crops)] = ceilings.floor(cost, ceiling)
                except BackendError:  # it computes in what was not measured
                    continue
    return found


def graphs(bundle: Bundle) -> dict[str, FileRecord]:
    """The bundle's ONNX files by precision."""
    manifest = bundle.manifest
    found: dict[str, FileRecord] = {}
    for record in (manifest.graph, manifest.graph_for(ENGINES)):
        if record is not None and is_file(bundle.directory / record.file.file):
            found.setdefault(record.precision, record.file)
    return found
