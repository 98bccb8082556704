"""What targets are made of: valid files and a reader become one, bundles are changed copies of one.

GLNET_SMALL_BUNDLE names the bundle.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from harness import Target
from mutations import (
    Mutation,
    Rng,
    pick,
)

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "stand_ins"))

IMAGE = np.random.default_rng(7).integers(0, 255, (48, 64, 3), np.uint8)


def file_target(
    name: str, seeds: Callable[[], Sequence[bytes]], change: Mutation, suffix: str, read: Callable[[Path], object]
) -> Target:
    """A target whose files are made from valid ones and read from the disk."""
    valid = cache(seeds)

    def make(rng: Rng) -> bytes:
        contents = valid()
        return change(rng, pick(rng, contents), contents)

    def run(content: bytes, folder: Path) -> object:
        path = folder / f"case{suffix}"
        path.write_bytes(content)
        return read(path)

    return Target(name, valid, make, run)


def saved_npz(arrays: dict[str, Any]) -> bytes:
    output = io.BytesIO()
    np.savez_compressed(output, **arrays)
    return output.getvalue()


@cache
def small_bundle() -> Path:
    """A copy of the bundle that cases may change."""
    return Path(shutil.copytree(os.environ["GLNET_SMALL_BUNDLE"], Path(tempfile.mkdtemp()) / "bundle"))


@cache
def manifest_text() -> bytes:
    return (small_bundle() / "manifest.json").read_bytes()


def with_file(name: str, content: bytes) -> Path:
    """The bundle with another file, which the manifest records as it is."""
    document = json.loads(manifest_text())
    waiting: list[Any] = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict) and each.get("file") == name:
            each.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        waiting += each.values() if isinstance(each, dict) else each if isinstance(each, list) else []
    (small_bundle() / name).write_bytes(content)
    (small_bundle() / "manifest.json").write_text(json.dumps(document))
    return small_bundle()
