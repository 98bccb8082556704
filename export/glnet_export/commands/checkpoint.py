"""``glnet-export CHECKPOINT``: from a checkpoint to a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glnet_export.bf16.options import Bf16Options
from glnet_export.commands import options
from glnet_export.commands.stages import ShownStages
from glnet_export.engines.options import EngineOptions, HalfOptions
from glnet_export.int8.options import Int8Options
from glnet_infer.commands.console import Version, errors_reported, print_json, print_result, talk
from glnet_infer.errors import ExportError, first_line, install_hint

if TYPE_CHECKING:
    from glnet_export.sources import Source


def checkpoint_command(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint, or other weights (.pth, .safetensors) together with --config.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The bundle's directory.", show_default="./NAME of the checkpoint", readable=False
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Preset (demo, w18-small, w32, w48) or .json file, for a bare state dict.")
    ] = None,
    weights_key: Annotated[
        str | None,
        typer.Option(
            "--weights-key", help="Weights to take where a file holds several, such as state_dict_ema.", show_default=False
        ),
    ] = None,
    flip_test: Annotated[
        bool,
        typer.Option("--flip-test", help="Look at the mirrored crop as well, as HybrIK's authors do; twice the time."),
    ] = False,
    random_init: Annotated[
        str | None,
        typer.Option(help="Export random weights of this preset, .json file or public network: speed without training."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 31) - 1, help="Seed of the random weights.")] = 0,
    body: Annotated[
        str | None,
        typer.Option(help="Body model: demo, smpl, or a .pkl or .npz file.", show_default="the checkpoint's own"),
    ] = None,
    parity_crops: Annotated[int, typer.Option(min=16, help="Crops to compare the graph with PyTorch on.")] = 16,
    max_vertex_error: Annotated[
        float | None,
        typer.Option(
            callback=options.a_bound,
            help="Fail when a vertex or joint is further off, in millimetres.",
            show_default="0.05; 0.5 for HybrIK",
        ),
    ] = None,
    min_pixel_agreement: Annotated[
        float,
        typer.Option(
            callback=options.a_bound, min=0, max=1, help="Fail when a smaller share of crops chooses the same pixel."
        ),
    ] = 1.0,
    no_skin: Annotated[
        bool,
        typer.Option("--no-skin", help="Leave out the body's skin, which animated files need; its terms are the body's."),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Add a graph whose convolutions compute in int8, for CPUs; what it costs is measured."),
    ] = False,
    calibration: options.CalibrationOption = None,
    int8_crops: options.Int8CropsOption = None,
    max_int8_growth: options.MaxInt8GrowthOption = None,
    bf16: Annotated[
        bool,
        typer.Option("--bf16", help="Have OpenVINO compute most of the graph in bfloat16; what it costs is measured."),
    ] = False,
    bf16_crops: options.Bf16CropsOption = None,
    max_bf16_growth: options.MaxBf16GrowthOption = None,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="Add the graphs that glnet-export engine builds from, in mixed precision."),
    ] = False,
    fp32: options.Fp32Option = None,
    precision_crops: options.PrecisionCropsOption = None,
    max_half_error: options.MaxHalfErrorOption = None,
    min_half_agreement: options.MinHalfAgreementOption = None,
    trt: Annotated[bool, typer.Option("--trt", help="Build a TensorRT engine too; includes --mixed.")] = False,
    flavor: options.FlavorOption = None,
    sm: options.SmOption = None,
    batch: options.BatchOption = None,
    frame: options.FrameOption = None,
    level: options.LevelOption = None,
    workspace: options.WorkspaceOption = None,
    lean: options.LeanOption = False,
    timing_cache: options.TimingCacheOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")] = False,
    _: Version = False,
) -> None:
    """Export a checkpoint to a bundle: one ONNX graph, its manifest, and a parity report in millimetres.

    With --trt, a TensorRT engine too. Checkpoints are GLNet's, or CLIFF's and HybrIK's (docs/public-checkpoints.md).
    """
    if (checkpoint is None) == (random_init is None):
        raise typer.BadParameter("give either a checkpoint or --random-init")
    if random_init is not None and config is not None:
        raise typer.BadParameter("--random-init names the configuration already; leave --config out")
    if random_init is not None and weights_key is not None:
        raise typer.BadParameter("--weights-key chooses among a checkpoint's weights; --random-init has none")
    about_halves = options.given(
        fp32=fp32,
        precision_crops=precision_crops,
        max_half_error=max_half_error,
        min_half_agreement=min_half_agreement,
    )
    about_engine = options.given(
        flavor=flavor,
        sm=sm,
        batch=batch,
        frame=frame,
        level=level,
        workspace=workspace,
        lean=lean,
        timing_cache=timing_cache,
    )
    about_int8 = options.given(calibration=calibration, int8_crops=int8_crops, max_int8_growth=max_int8_growth)
    if about_int8 and not int8:
        raise typer.BadParameter(f"{', '.join(about_int8)} is about the int8 graph: add --int8")
    about_bf16 = options.given(bf16_crops=bf16_crops, max_bf16_growth=max_bf16_growth)
    if about_bf16 and not bf16:
        raise typer.BadParameter(f"{', '.join(about_bf16)} is about bfloat16: add --bf16")
    if about_engine and not trt:
        raise typer.BadParameter(f"{', '.join(about_engine)} is about the engine: add --trt")
    if about_halves and not (trt or mixed):
        raise typer.BadParameter(f"{', '.join(about_halves)} is about mixed precision: add --mixed or --trt")
    engine = options.engine_options(about_engine) if trt else None
    half = options.half_options(about_halves) if trt or mixed else None
    with errors_reported(as_json):
        with talk.status("starting"):
            try:
                import glnet_export.pipeline  # noqa: F401 - what it needs is missed here
                from glnet_export.sources import Source
            except (ImportError, OSError) as error:  # a broken torch raises OSError
                raise ExportError(
                    "The export is not installed.", why=first_line(error), fix=install_hint("export")
                ) from error
        name = checkpoint.stem if checkpoint is not None else f"{Path(str(random_init)).stem}-random"
        export_to(
            Source(checkpoint, random_init or config, seed, body, weights_key, flip_test),
            output or Path(name),
            parity_crops=parity_crops,
            max_vertex_error=max_vertex_error,
            min_pixel_agreement=min_pixel_agreement,
            skin=not no_skin,
            int8=options.int8_options(about_int8) if int8 else None,
            bf16=options.bf16_options(about_bf16) if bf16 else None,
            half=half,
            engine=engine,
            as_json=as_json,
        )


def export_to(
    source: "Source",
    output: Path,
    *,
    parity_crops: int = 16,
    max_vertex_error: float | None = None,
    min_pixel_agreement: float = 1.0,
    skin: bool = True,
    int8: Int8Options | None = None,
    bf16: Bf16Options | None = None,
    half: HalfOptions | None = None,
    engine: EngineOptions | None = None,
    as_json: bool = False,
) -> None:
    """Export, show the stages, and print the bundle's directory, or its manifest as JSON."""
    from glnet_export.pipeline import export, stages_of

    asked = {"int8": int8, "bf16": bf16, "mixed": half, "engine": engine}
    stages = ShownStages(len(stages_of(**{name: each is not None for name, each in asked.items()})))
    manifest = export(
        source,
        output,
        parity_crops=parity_crops,
        max_vertex_error=max_vertex_error,
        min_pixel_agreement=min_pixel_agreement,
        skin=skin,
        int8=int8,
        bf16=bf16,
        half=half,
        engine=engine,
        stage=stages.show,
        progress=stages.advance,
    )
    if as_json:
        print_json(manifest.to_document())
    else:
        print_result(str(output))
