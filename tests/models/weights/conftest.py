"""What the tests of checkpoints share: a small network's weights, files of them, what is said where they are refused."""

import pytest
import torch

from glnet.checkpoint import Checkpoint
from glnet_infer.errors import CheckpointError


@pytest.fixture
def checkpoint(recovery):
    return Checkpoint.of(recovery.network)


@pytest.fixture
def state(checkpoint):
    return dict(checkpoint.state)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.pth"


@pytest.fixture
def read(checkpoint, path):
    """Saves a document by ``torch.save`` and reads it with the small network's configuration."""

    def read(document=None, key=None, **options):
        if document is not None:
            torch.save(document, path, **options)
        return Checkpoint.load(path, checkpoint.config, key)

    return read


@pytest.fixture
def assert_loads(state):
    """Checks that a checkpoint holds the small network's weights, and gives what it says of them."""

    def check(found: Checkpoint, expected=state) -> str:
        network = found.network()
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, expected[name].to(value.dtype), rtol=0, atol=0)
        return "; ".join(found.notes)

    return check


@pytest.fixture
def refused(checkpoint, path):
    """Reads the file and its network, and gives the error's text, which must have all three parts."""

    def refused(key=None) -> str:
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.load(path, checkpoint.config, key).network()
        assert caught.value.what
        assert caught.value.why
        assert caught.value.fix
        return str(caught.value)

    return refused
