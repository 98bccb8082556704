"""Bundles with engines that were never built: what is written of them depends on the manifest alone."""

import dataclasses

import pytest

from glnet_infer.bundle import record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import EngineRecord


@pytest.fixture
def with_engines(bundle):
    """Adds engines to the bundle, each by what differs from a usual one of TensorRT."""

    def add(*changes):
        manifest = Manifest.read(bundle)
        records = []
        for number, change in enumerate(changes):
            path = bundle / f"model.trt{number}.engine"
            path.write_bytes(b"engine %d" % number)
            engine = EngineRecord(
                file=record_file(path),
                flavor="tensorrt",
                version="10.13.2",
                compute_capabilities=("8.9",),
                built_on="a GPU",
                precision="mixed",
                profile=(1, 4, 12),
                tensors={},
                layers={},
                state="run",
                parity={},
                seconds=1.0,
            )
            records.append(dataclasses.replace(engine, **change))
        dataclasses.replace(manifest, engines=tuple(records)).write(bundle)
        return bundle

    return add
