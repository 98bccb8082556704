"""``glnet-doctor``: what is installed here, and what can run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from typing import Annotated, Any

import typer

from glnet_infer.console import errors_reported, print_json
from glnet_infer.devices import gpus
from glnet_infer.version import __version__

DISTRIBUTIONS = (
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "onnx",
    "onnxscript",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-core",
    "smplx",
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what is installed here and what can run: versions, backends, GPUs, body models.

    Paste the output into bug reports.
    """
    with errors_reported(as_json):
        report = examine()
        if as_json:
            print_json(report)
            return
        for title, content in report.items():
            typer.echo(f"{title}:")
            for line in _lines(content):
                typer.echo(f"  {line}")


def examine() -> dict[str, Any]:
    """Everything the doctor looks at, as plain values."""
    return {
        "system": {
            "glnet-infer": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        },
        "packages": {name: _version(name) for name in DISTRIBUTIONS},
        "backends": _backends(),
        "gpus": [f"{gpu.name}, compute capability {gpu.compute_capability}" for gpu in gpus()],
        "bodies": _bodies(),
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _backends() -> dict[str, str]:
    """Each backend, and whether it can start here."""
    try:
        import onnxruntime
    except ImportError as error:
        reason = f"not installed ({error})"
        return {"onnxruntime-cpu": reason, "onnxruntime-cuda": reason}
    providers = onnxruntime.get_available_providers()
    cuda = "this ONNX Runtime is built without CUDA"
    if "CUDAExecutionProvider" in providers:
        cuda = "available" if gpus() else "no GPU"
    return {"onnxruntime-cpu": "available", "onnxruntime-cuda": cuda}


def _bodies() -> list[str]:
    """Body files that an export would find; looking needs the export's package, so it is asked for by name."""
    if importlib.util.find_spec("glnet") is None or importlib.util.find_spec("torch") is None:
        return ["needed for export only, which is not installed: pip install 'glnet-infer[export]'"]
    files = importlib.import_module("glnet.body.files")
    found = [str(path) for path in (files.find_body("demo"), *files.installed_body_files()) if path.is_file()]
    return found or ["none"]


def _lines(content: Any) -> list[str]:
    if isinstance(content, dict):
        width = max(len(key) for key in content)
        return [f"{key:<{width}}  {value}" for key, value in content.items()]
    return list(content) or ["none"]


def main() -> None:
    """Entry point."""
    app()
