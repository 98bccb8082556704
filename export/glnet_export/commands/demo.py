"""``glnet-export demo``: the demonstration network that is shipped with this library."""

from pathlib import Path
from typing import Annotated

import typer

from glnet_export.bf16.options import Bf16Options
from glnet_export.commands.checkpoint import export_to
from glnet_export.int8.options import Int8Options
from glnet_infer.commands.console import errors_reported, talk
from glnet_infer.errors import ExportError, first_line, install_hint

_HELD_OUT = 1024
"""Crops of the model card's figures."""


def demo_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's directory.", readable=False)] = Path(
        "demo-bundle"
    ),
    mixed: Annotated[
        bool, typer.Option(help="Add the graphs that engines are built from, for glnet-export engine.")
    ] = True,
    int8: Annotated[
        bool, typer.Option("--int8", help=f"Add int8 graphs; their cost is measured on {_HELD_OUT:,} rendered crops.")
    ] = False,
    bf16: Annotated[
        bool,
        typer.Option("--bf16", help=f"Add bfloat16 for CPUs; its cost is measured on {_HELD_OUT:,} rendered crops."),
    ] = False,
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
            from glnet_export.sources import Source
        export_to(
            Source(demo_directory() / "checkpoint.pth"),
            output,
            int8=Int8Options(crops=_HELD_OUT) if int8 else None,
            bf16=Bf16Options(crops=_HELD_OUT) if bf16 else None,
            half=HalfOptions() if mixed else None,
            as_json=as_json,
        )
