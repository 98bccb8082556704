"""Options that several commands share, and what they say."""

import math
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from glnet_export.bf16.options import Bf16Options
from glnet_export.engines.options import (
    EngineOptions,
    HalfOptions,
    parse_compute_capabilities,
    parse_frame,
    parse_profile,
)
from glnet_export.int8.options import Int8Options
from glnet_infer.backends.tensorrt.products import RTX, TENSORRT
from glnet_infer.errors import InputError
from glnet_infer.files import is_directory

_Value = TypeVar("_Value")


class Precision(str, Enum):
    """Precisions that engines are built in."""

    MIXED = "mixed"
    INT8 = "int8"


class Flavor(str, Enum):
    """Products that build engines."""

    CLASSIC = TENSORRT.name
    RTX = RTX.name


def a_bound(value: float | None) -> float | None:
    """Refuse a bound that nothing keeps, or that is no number, before minutes of work."""
    if value is not None and not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value} is not allowed: give a number of at least 0")
    return value


FlavorOption = Annotated[
    Flavor | None,
    typer.Option(
        "--flavor",
        help="Product that builds the engine: TensorRT on the GPU that will run it, TensorRT for RTX ahead of time.",
        show_default="tensorrt where it is installed and has a GPU",
    ),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Graph of the bundle that the engine is built from: half precision, or int8 from an export with --int8.",
        show_default=EngineOptions.precision,
    ),
]
SmOption = Annotated[
    str | None,
    typer.Option(
        "--sm",
        metavar="SM,...",
        help="Compute capabilities to compile for, such as 86,89,120; tensorrt-rtx only.",
        show_default="this machine's GPU, or 86,89,120",
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="MIN:OPT:MAX",
        help="Fewest, most usual and most crops in a run of the engine.",
        show_default="1:4:16",
    ),
]
FrameOption = Annotated[
    str | None,
    typer.Option(
        "--frame",
        metavar="WIDTHxHEIGHT",
        help="Largest frame that crops are cut from on the GPU; scratch memory there grows with it. Larger frames are "
        "cut on the CPU.",
        show_default="3840x2160",
    ),
]
LevelOption = Annotated[
    int | None,
    typer.Option("--level", min=0, max=5, help="Effort of the engine's builder.", show_default="the builder's own"),
]
WorkspaceOption = Annotated[
    int | None,
    typer.Option("--workspace", min=1, help="Scratch memory of the engine's layers, MiB.", show_default="all of the GPU's"),
]
LeanOption = Annotated[
    bool, typer.Option("--lean", help="Build for TensorRT's lean runtime, which is small to install; tensorrt only.")
]
TimingCacheOption = Annotated[
    Path | None,
    typer.Option("--timing-cache", help="File that speeds up the next build; tensorrt only.", show_default=False),
]
Fp32Option = Annotated[
    list[str] | None,
    typer.Option(
        "--fp32",
        metavar="PATTERN",
        help="Modules that stay in float32 in mixed precision, such as 'backbone.stage4'; repeatable.",
    ),
]
PrecisionCropsOption = Annotated[
    int | None,
    typer.Option(
        "--precision-crops",
        min=1,
        help="Rendered crops to compare half precision with float32 on.",
        show_default=str(HalfOptions.crops),
    ),
]
MaxHalfErrorOption = Annotated[
    float | None,
    typer.Option(
        "--max-half-error",
        callback=a_bound,
        help="Fail when half precision moves vertices by more, in millimetres on average.",
        show_default=str(HalfOptions.max_error_mm),
    ),
]
MinHalfAgreementOption = Annotated[
    float | None,
    typer.Option(
        "--min-half-agreement",
        callback=a_bound,
        min=0,
        max=1,
        help="Fail when half precision moves a smaller share of crops by less than 2 mm on average.",
        show_default=str(HalfOptions.min_agreement),
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FOLDER",
        help="Photographs of persons that the ranges of int8 are taken from.",
        show_default="rendered persons",
        readable=False,
    ),
]


def _crops_of(flag: str, precision: str, default: int) -> Any:
    """The option of how many crops a narrow precision is judged on."""
    return typer.Option(
        f"--{flag}-crops",
        min=32,
        help=f"Rendered crops to compare {precision} with float32 and the truth on.",
        show_default=str(default),
    )


def _max_growth_of(flag: str, precision: str, default: float) -> Any:
    """The option of how much a narrow precision may cost."""
    return typer.Option(
        f"--max-{flag}-growth",
        callback=a_bound,
        help=f"Fail when {precision} makes MPJPE, PA-MPJPE or PVE grow by a larger share.",
        show_default=str(default),
    )


Int8CropsOption = Annotated[int | None, _crops_of("int8", "int8", Int8Options.crops)]
MaxInt8GrowthOption = Annotated[float | None, _max_growth_of("int8", "int8", Int8Options.max_growth)]
Bf16CropsOption = Annotated[int | None, _crops_of("bf16", "bfloat16", Bf16Options.crops)]
MaxBf16GrowthOption = Annotated[float | None, _max_growth_of("bf16", "bfloat16", Bf16Options.max_growth)]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, by the names that users type; ``timing_cache`` is ``--timing-cache``."""
    names = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    return {name: value for name, value in names.items() if value is not None and value is not False}


def int8_options(asked: dict[str, Any]) -> Int8Options:
    """What the options of int8 say, of those that were given (:func:`given`).

    Raises:
        InputError: There is no such folder.
    """
    folder = asked.get("--calibration")
    if folder is not None and not is_directory(folder):
        raise InputError(
            f"There is no folder {folder}.", why="--calibration takes photographs from it", fix="check the path"
        )
    names = {"--calibration": "calibration", "--int8-crops": "crops", "--max-int8-growth": "max_growth"}
    return Int8Options(**{names[name]: value for name, value in asked.items()})


def bf16_options(asked: dict[str, Any]) -> Bf16Options:
    """What the options of bfloat16 say, of those that were given (:func:`given`)."""
    names = {"--bf16-crops": "crops", "--max-bf16-growth": "max_growth"}
    return Bf16Options(**{names[name]: value for name, value in asked.items()})


def engine_options(asked: dict[str, Any]) -> EngineOptions:
    """What the options of an engine say.

    Args:
        asked: Options that were given (:func:`given`); others are left aside.

    Raises:
        typer.BadParameter: They make no sense.
    """
    flavor, precision = asked.get("--flavor"), asked.get("--precision", Precision.MIXED)
    if flavor is Flavor.CLASSIC and "--sm" in asked:
        raise typer.BadParameter("TensorRT compiles for the GPU that it builds on: --sm needs --flavor tensorrt-rtx")
    if "--lean" in asked and (flavor is Flavor.RTX or "--sm" in asked):
        raise typer.BadParameter("only TensorRT itself has a lean runtime: leave --lean out, or use --flavor tensorrt")
    return EngineOptions(
        flavor=None if flavor is None else flavor.value,
        compute_capabilities=_parsed("--sm", parse_compute_capabilities, asked, ()),
        profile=_parsed("--batch", parse_profile, asked, EngineOptions.profile),
        largest_frame=_parsed("--frame", parse_frame, asked, EngineOptions.largest_frame),
        level=asked.get("--level"),
        workspace=asked.get("--workspace"),
        lean=asked.get("--lean", False),
        timing_cache=asked.get("--timing-cache"),
        precision=precision.value,
    )


def half_options(asked: dict[str, Any]) -> HalfOptions:
    """What the options of mixed precision say."""
    return HalfOptions(
        float32_modules=tuple(asked.get("--fp32", ())),
        crops=asked.get("--precision-crops", HalfOptions.crops),
        max_error_mm=asked.get("--max-half-error", HalfOptions.max_error_mm),
        min_agreement=asked.get("--min-half-agreement", HalfOptions.min_agreement),
    )


def _parsed(option: str, parse: Callable[[str], _Value], asked: dict[str, Any], default: _Value) -> _Value:
    if option not in asked:
        return default
    try:
        return parse(asked[option])
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from None
