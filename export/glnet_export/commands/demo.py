"""``glnet-export demo``: the demonstration network that is shipped with this library."""

from pathlib import Path
from typing import Annotated

import typer

from glnet_export.commands.checkpoint import export_to
from glnet_infer.commands.console import errors_reported, talk
from glnet_infer.errors import ExportError, first_line, install_hint


def demo_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's directory.", readable=False)] = Path(
        "demo-bundle"
    ),
    mixed: Annotated[
        bool, typer.Option(help="Add the graphs that engines are built from, for glnet-export engine.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")] = False,
) -> None:
    """Export the demonstration network: for trying, not for use (its model card says what to expect)."""
    with errors_reported(as_json):
        with talk.status("starting"):
            try:
                import torch  # noqa: F401
            except (ImportError, OSError) as error:  # a broken torch raises OSError
                raise ExportError(
                    "The export is not installed.", why=first_line(error), fix=install_hint("export")
                ) from error
            from glnet.body.files import demo_directory
            from glnet_export.engines.options import HalfOptions
            from glnet_export.pipeline import Source
        export_to(
            Source(demo_directory() / "checkpoint.pth"), output, half=HalfOptions() if mixed else None, as_json=as_json
        )
