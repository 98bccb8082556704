"""``make gpu``: everything that a GPU has to show, in one call of at most eight minutes, into one folder.

It runs from the checkout with nothing installed: Python, PyTorch, CUDA, cuda-core, onnx, OpenCV and pytest are enough. Each
step is a process of its own with a time limit, so that one that hangs or dies takes nothing along. What it wrote until then
stays.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glnet_infer.devices import gpus, newest_cuda
from glnet_infer.errors import BackendError
from glnet_infer.files import replace_file

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

BUDGET = 480.0
"""Seconds for all steps together."""

TESTS = ("tests/runtime/tensorrt", "tests/models/render")
"""Folders with tests that are marked ``gpu``."""

TORCH_ROWS = "torch-fp32,torch-mixed,torch-compile,torch-cuda-graph"
PERSONS = "1,2,4,8,16"


@dataclass(frozen=True)
class Step:
    """A program to run.

    Attributes:
        name: The step's name; its output goes to ``NAME.txt``.
        command: The program and its arguments.
        limit: Most seconds for it.
        shows: A file that it writes, whose text goes into the page; its output where empty.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    shows: str = ""


@dataclass(frozen=True)
class Outcome:
    """A step that was run.

    Attributes:
        step: The step.
        seconds: How long it took.
        status: ``done``, or why not.
        text: What it has to show.
    """

    step: Step
    seconds: float
    status: str
    text: str


def program(module: str, *arguments: str) -> tuple[str, ...]:
    """A command of this project, run by this Python from the checkout."""
    return (sys.executable, "-c", f"from {module} import main; main()", *arguments)


def steps(folder: Path) -> list[Step]:
    """All steps, in order of what would be missed most."""
    demo, w32 = folder / "demo", folder / "w32"
    bench = ("--backend", TORCH_ROWS, "--batch", PERSONS, "--persons", PERSONS, "--frame", "1080p", "--samples", "40")
    export, measure = "glnet_export.commands.main", "glnet_bench.cli"
    return [
        Step("tests", (sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-rfEs", "-p", "no:cacheprovider", *TESTS), 90),
        Step("export-w32", program(export, "--random-init", "w32", "-o", str(w32)), 90),
        Step(
            "bench-w32",
            program(measure, str(w32), *bench, "--seconds", "1", "-o", str(folder / "bench-w32.json"), "--fresh"),
            150,
            "bench-w32.md",
        ),
        Step("speed", program("glnet_train.commands.main", "speed", "--seconds", "5"), 60),
        Step("export-demo", program(export, "demo", "-o", str(demo), "--no-mixed"), 60),
        Step(
            "bench-demo",
            program(measure, str(demo), *bench, "--seconds", "1", "-o", str(folder / "bench-demo.json"), "--fresh"),
            90,
            "bench-demo.md",
        ),
        Step("doctor", program("glnet_infer.commands.doctor"), 20),
    ]


def run(step: Step, folder: Path, left: float) -> Outcome:
    """Run a step within its limit and what is left of the budget; its output stands in the folder, whatever ends it."""
    limit = min(step.limit, left)
    if limit < 5:
        return Outcome(step, 0.0, "left out: no time was left", "")
    parts = [str(ROOT / part) for part in (".", "models", "export", "benchmarks")]
    path = os.pathsep.join([*parts, *filter(None, [os.environ.get("PYTHONPATH")])])
    log = folder / f"{step.name}.txt"
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        try:
            status = subprocess.run(
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
                timeout=limit,
                check=False,
            ).returncode
            said = "done" if status == 0 else f"exit code {status}"
        except subprocess.TimeoutExpired:
            said = f"stopped after {limit:.0f} s"
        except OSError as error:
            said = str(error.strerror)
    shown = folder / step.shows if step.shows else log
    text = (shown if shown.is_file() else log).read_text(encoding="utf-8", errors="replace")
    return Outcome(step, time.monotonic() - start, said, text)


def page(outcomes: Sequence[Outcome], command: str) -> str:
    """The page that reads well: the machine, what was run, then what each step has to show."""
    (gpu, *_) = gpus()
    lines = [
        f"# {gpu.name}",
        "",
        f"- compute capability {gpu.compute_capability}; the driver runs CUDA up to {newest_cuda()}",
        f"- {_versions()}",
        f"- {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}: `{command}`, commit {_commit()}",
        "",
        "| step | seconds | |",
        "| --- | ---: | --- |",
        *(f"| {each.step.name} | {each.seconds:.0f} | {each.status} |" for each in outcomes),
    ]
    for each in outcomes:
        if not each.text.strip():
            continue
        lines += ["", f"## {each.step.name}", ""]
        if each.step.shows and each.status == "done":
            lines.append(each.text.replace("\n# ", "\n### ").replace("\n## ", "\n### ").lstrip("# "))
        else:
            tail = each.text.strip().splitlines()[-60:]
            lines += ["```text", *tail, "```"]
    return "\n".join(lines) + "\n"


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", "numpy", "cv2", "onnx", "onnxruntime", "cuda.core"):
        code = f"import {name} as module; print(module.__version__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
        found.append(f"{name} {done.stdout.strip() if done.returncode == 0 else 'not installed'}")
    return ", ".join(found)


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(
        [git, "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("gpu-results"), help="Folder for everything.")
    parser.add_argument("--only", help="Names of steps with commas between them; all by default.")
    arguments = parser.parse_args()
    if not gpus():
        error = BackendError(
            "There is no NVIDIA GPU here.",
            why="the NVIDIA driver offers no GPU to this process",
            fix="run this on a machine with a GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code)
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = None if arguments.only is None else set(arguments.only.split(","))
    outcomes: list[Outcome] = []
    end = time.monotonic() + BUDGET
    for step in steps(folder):
        if chosen is not None and step.name not in chosen:
            continue
        print(f"{step.name} ...", flush=True)
        outcomes.append(run(step, folder, end - time.monotonic()))
        print(f"{step.name}: {outcomes[-1].status}, {outcomes[-1].seconds:.0f} s", flush=True)
        text = page(outcomes, " ".join(["make gpu", *sys.argv[1:]]))
        replace_file(folder / "README.md", text.encode())
        found = {each.step.name: {"seconds": round(each.seconds, 1), "status": each.status} for each in outcomes}
        replace_file(folder / "steps.json", (json.dumps(found, indent=1) + "\n").encode())
    for name in ("demo", "w32"):  # bundles that anybody can make again
        shutil.rmtree(folder / name, ignore_errors=True)
    print(folder / "README.md")
    if any(each.status != "done" for each in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
