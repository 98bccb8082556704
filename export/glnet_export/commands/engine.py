"""``glnet-export engine``: an engine for a bundle, without torch, checkpoint or body."""

from pathlib import Path
from typing import Annotated

import typer

from glnet_export.commands import options
from glnet_export.commands.stages import ShownStages
from glnet_infer.commands.console import errors_reported, print_json, print_result, talk
from glnet_infer.errors import ExportError, first_line


def engine_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle from glnet-export.", show_default=False, readable=False)],
    precision: options.PrecisionOption = None,
    flavor: options.FlavorOption = None,
    sm: options.SmOption = None,
    batch: options.BatchOption = None,
    frame: options.FrameOption = None,
    level: options.LevelOption = None,
    workspace: options.WorkspaceOption = None,
    lean: options.LeanOption = False,
    timing_cache: options.TimingCacheOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")] = False,
) -> None:
    """Build a TensorRT engine for a bundle from the bundle's own graphs, on the machine that will run it.

    Needs TensorRT or TensorRT for RTX; no torch, no checkpoint, no body. An engine of the same name is replaced.
    """
    asked = options.given(
        precision=precision,
        flavor=flavor,
        sm=sm,
        batch=batch,
        frame=frame,
        level=level,
        workspace=workspace,
        lean=lean,
        timing_cache=timing_cache,
    )
    engine = options.engine_options(asked)
    with errors_reported(as_json):
        with talk.status("starting"):
            try:
                from glnet_export.engines.add import STAGES, add_to_bundle
            except ImportError as error:
                raise ExportError(
                    "What builds engines is not installed.", why=first_line(error), fix="install the extra trt or rtx"
                ) from error
        stages = ShownStages(len(STAGES))
        manifest = add_to_bundle(bundle, engine, stage=stages.show, progress=stages.advance)
        if as_json:
            print_json(manifest.to_document())
        else:
            print_result(str(bundle))
