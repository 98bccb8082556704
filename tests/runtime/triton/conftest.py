"""A server that speaks Triton's protocols, in this process."""

import pytest

from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle


@pytest.fixture(scope="session")
def opened(shared_bundle):
    return Bundle.open(shared_bundle)


@pytest.fixture(scope="session")
def local(opened):
    """What runs the bundle's graph here."""
    backend = open_backend("onnxruntime-cpu", opened, 1)
    yield backend
    backend.close()


@pytest.fixture(params=["triton", "triton+http"])
def kind(request):
    pytest.importorskip("tritonclient", reason="install the extra triton")
    import triton_stand_in

    return next(kind for kind in triton_stand_in.SERVERS if kind.scheme == request.param)


@pytest.fixture
def server(kind, local, opened):
    from triton_stand_in import Model

    server = kind(Model(local, opened))
    yield server
    server.stop()


@pytest.fixture
def address(server):
    return f"{server.scheme}://127.0.0.1:{server.port}/glnet"
