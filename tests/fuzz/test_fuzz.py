"""Some hundred cases of each reader; ``make fuzz`` runs as many as one likes."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEEDS = {
    "glnet": ("config", "checkpoint", "safetensors", "body-pickle", "body-npz", "coco", "hybrik", "3dpw", "table"),
    "onnx": ("detector",),
    "av": ("video",),
    "glnet_bench": ("bench",),
}
"""Packages that readers, or what makes their valid files, need beside the runtime."""

CASES = {"graph": 30, "bench": 40, "checkpoint": 100, "3dpw": 100, "hybrik": 100}
"""Fewer, where a case takes long."""

NAMES = (
    "manifest", "topology", "skin", "graph", "config", "checkpoint", "body-pickle", "body-npz", "boxes", "arguments",
    "image", "detector", "video", "meshes", "motion-npz", "motion-json", "bench", "coco", "hybrik", "3dpw",
    "safetensors", "table",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_is_read_or_refused(name, shared_bundle):
    for package, needing in NEEDS.items():
        if name in needing and importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    arguments = [name, "--cases", str(CASES.get(name, 300)), "--seed", "1"]
    ended = run(*arguments, GLNET_SMALL_BUNDLE=str(shared_bundle))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def run(*arguments, **environment):
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment})


def test_every_target_is_run():
    command = [sys.executable, "-c", "import targets; print(*targets.TARGETS)"]
    listed = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    assert sorted(listed.stdout.split()) == sorted(NAMES)


@pytest.mark.parametrize(
    "reader, said",
    [
        ("raise KeyError('x')", "KeyError"),
        ("raise InputError('x' * 5, why='y')", ""),
        ("while True: pass", "is stopped for its time"),
        ("bytearray(700_000_000)", "takes too much memory"),
        ("os.kill(os.getpid(), 11)", "ends the process by -11"),
        ("warnings.warn('overflow')", "UserWarning"),
        ("os.write(2, b'a line of a library')", "prints lines"),
    ],
)
def test_what_no_case_may_do_is_found(reader, said, tmp_path):
    shutil.copy(HERE / "harness.py", tmp_path)  # it takes the targets beside it
    (tmp_path / "targets.py").write_text(
        "import os, warnings\nfrom harness import Target\nfrom glnet_infer.errors import InputError\n"
        f"def read(case, folder):\n    if case == 0: return\n    {reader}\n"
        "def target(name): return Target(name, lambda: [0], lambda rng: 1, read)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", "import harness; print(harness.run_watched('made', 1, range(2)))"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert ended.returncode == 0, ended.stderr
    assert said in ended.stdout and ("faults={}" in ended.stdout) == (said == ""), ended.stdout
    assert "[0, 1]" in ended.stdout or said == "", ended.stdout
