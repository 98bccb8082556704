"""What the tests of frames share: both TensorRTs on the machine, and bundles whose engines come with a crop engine."""

import pytest
from tensorrt_stand_in import bundle_of

from glnet_infer import MeshRecoverer


@pytest.fixture(autouse=True)
def both_tensorrts(install):
    """The machine has TensorRT and TensorRT for RTX."""
    install()
    install("tensorrt_rtx")


@pytest.fixture
def classic(machine, tmp_path):
    return bundle_of(tmp_path / "bundle")


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def either(request, machine, tmp_path):
    return bundle_of(tmp_path / "bundle", request.param)


@pytest.fixture
def recoverer(classic):
    with MeshRecoverer(classic.directory, "tensorrt") as recoverer:
        yield recoverer
