"""What the engine runtime's tests share: a machine of stand-ins, TensorRTs for it, bundles with an engine."""

import sys

import pytest
from tensorrt_stand_in import bundle_of, install_machine, install_tensorrt


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with an L4 and cuda-core."""
    return install_machine(monkeypatch, tmp_path / "user-cache")


@pytest.fixture
def install(machine, monkeypatch):
    """Puts a TensorRT on the machine; its module."""

    def install(name="tensorrt", version=None):
        return install_tensorrt(monkeypatch, machine, name, version)

    return install


@pytest.fixture
def classic(install, tmp_path):
    """A bundle with an engine of 1 to 6 crops, and TensorRT to run it."""
    install()
    return bundle_of(tmp_path / "bundle", crop=False)


@pytest.fixture
def rtx(install, tmp_path):
    """The same for TensorRT for RTX."""
    install("tensorrt_rtx")
    return bundle_of(tmp_path / "bundle", "tensorrt-rtx", crop=False)


@pytest.fixture(params=["classic", "rtx"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def real_rtx(machine, monkeypatch):
    """TensorRT for RTX itself, where it is installed."""
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    return pytest.importorskip("tensorrt_rtx")
