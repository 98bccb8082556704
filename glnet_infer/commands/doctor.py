"""``glnet-doctor``: what is installed here, and what can run."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from glnet_infer.backends import kinds
from glnet_infer.bodies import body_search_path, installed_body_files
from glnet_infer.bundle import Bundle, check_all_files, unknown_entries
from glnet_infer.commands.console import Version, errors_reported, new_app, print_json, print_result, start
from glnet_infer.devices import cores, gpus, newest_cuda
from glnet_infer.version import __version__

OTHERS = ("numpy", "opencv-python-headless", "opencv-python", "torch", "onnx", "onnxscript", "smplx", "av", "pillow", "ray")
"""Distributions that matter to all backends, or to the export."""

app = new_app()


@app.command()
def doctor(
    bundle: Annotated[
        Path | None,
        typer.Argument(help="Bundle whose files are compared with its manifest.", show_default=False, readable=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    _: Version = False,
) -> None:
    """Say what is installed here and what can run: versions, backends, GPUs, body models; and whether a bundle is whole.

    Paste the output into bug reports.
    """
    with errors_reported(as_json):
        report = examine()
        if not as_json:
            _print(report)  # also where the bundle is damaged
        if bundle is not None:
            found = {"bundle": examine_bundle(bundle)}
            report |= found
            if not as_json:
                _print(found)
        if as_json:
            print_json(report)


def _print(report: dict[str, Any]) -> None:
    for title, content in report.items():
        print_result(f"{title}:")
        for line in _lines(content):
            print_result(f"  {line}")


def examine() -> dict[str, Any]:
    """Everything the doctor looks at, as plain values."""
    return {
        "system": {
            "glnet-infer": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu cores": cores(),
            "nvidia driver": f"runs CUDA up to {newest_cuda()}" if newest_cuda() else "none",
        },
        "packages": {name: _version(name) for name in _distributions()},
        "backends": _backends(),
        "gpus": [f"{gpu.name}, compute capability {gpu.compute_capability}" for gpu in gpus()],
        "bodies": _bodies(),
    }


def examine_bundle(directory: Path) -> dict[str, str]:
    """Contents of a bundle, after all its files were compared with its manifest.

    Raises:
        BundleError: One is not.
    """
    manifest = check_all_files(directory)
    bundle = Bundle.open(directory)
    graphs = [f"{graph.file.file} ({graph.precision}, for {graph.purpose})" for graph in manifest.graphs]
    engines = [
        f"{record.file.file} ({record.version}, sm {', '.join(record.compute_capabilities)}, {record.state})"
        for record in manifest.engines
    ]
    return {
        "network": f"{manifest.network.name}, weights {manifest.network.weights}, body {manifest.body.name}",
        "graphs": "; ".join(graphs),
        "engines": "; ".join(engines) or "none",
        "backends": ", ".join(kind.name for kind in kinds().values() if not kind.address and kind.serves(bundle)),
        "files": "all as the manifest records them",
        "unknown": ", ".join(unknown_entries(directory, manifest)) or "nothing: every file is the manifest's",
    }


def _distributions() -> list[str]:
    return [*OTHERS, *(package for kind in kinds().values() for package in kind.packages)]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _backends() -> dict[str, str]:
    """Each backend, and whether it can start here."""
    report = {kind.name: kind.state() for kind in kinds().values()}
    if all(_version(name) != "not installed" for name in ("onnxruntime", "onnxruntime-gpu")):
        report["warning"] = "onnxruntime and onnxruntime-gpu overwrite each other's files: uninstall both, install one"
    return report


def _bodies() -> list[str]:
    """SMPL files that an export would find."""
    return [str(path) for path in installed_body_files()] or [
        f"no SMPL file in {', '.join(str(folder) for folder in body_search_path())} (the demo body needs none)"
    ]


def _lines(content: Any) -> list[str]:
    if isinstance(content, dict):
        width = max(len(key) for key in content)
        return [f"{key:<{width}}  {value}" for key, value in content.items()]
    return list(content) or ["none"]


def main() -> None:
    """Entry point."""
    start(app)
