"""A real Triton server, where tests/serving/make_triton.sh has made one: ``make test-triton``."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # modules beside the tests

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def triton() -> Path:
    """The directory that make_triton.sh made."""
    directory = Path(os.environ.get("GLNET_TRITON", ROOT / ".venv" / "triton")).absolute()
    if not (directory / "ready").is_file():
        pytest.skip("no Triton server: make test-triton")
    pytest.importorskip("tritonclient", reason="install the extra triton")
    return directory
