"""Configuration of the network: the poster's switches, and every choice that the poster leaves open."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glnet_infer.contract import GRID_STRIDE, CropSpec
from glnet_infer.errors import CheckpointError, first_line
from glnet_infer.fields import LARGEST_NUMBER, quote
from glnet_infer.files import read_json
from glnet_infer.skeleton import SKELETON_JOINTS

MOST_CHANNELS, MOST_FEATURES, MOST_BLOCKS, MOST_KEYPOINTS = 4096, 16_384, 64, 1024
"""Largest counts of a configuration; W48, the largest preset, has 384, 2,048, 4 and 29."""

SMALLEST = 1e-6
"""What numbers that something is divided by are at least: their reciprocals are far from float32's end."""

MOST_BLOCKS_IN_ALL = 512
"""Blocks of a backbone's branch; W48 has 36. Building a network takes a millisecond for each."""


@dataclass(frozen=True)
class HRNetConfig:
    """A High-Resolution Network (Wang et al., "Deep High-Resolution Representation Learning", TPAMI 2020).

    Attributes:
        stem_blocks: Bottleneck blocks of stage 1.
        stem_channels: Width of these blocks; the stage gives four times as many channels.
        channels: Channels of the four branches, at strides 4, 8, 16, 32.
        modules: High-resolution modules of stages 2, 3 and 4.
        blocks: Basic blocks per branch and module.
        head_channels: Bottleneck widths of the classification head, whose pooled output is the global feature.
        feature_channels: Size of the global feature.
    """

    stem_blocks: int = 4
    stem_channels: int = 64
    channels: tuple[int, int, int, int] = (32, 64, 128, 256)
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    head_channels: tuple[int, int, int, int] = (32, 64, 128, 256)
    feature_channels: int = 2048

    def problems(self) -> list[str]:
        """Sentences about values that are not valid."""
        limits = {"stem_blocks": MOST_BLOCKS, "stem_channels": MOST_CHANNELS, "blocks": MOST_BLOCKS}
        limits["feature_channels"] = MOST_FEATURES
        problems = [
            f"backbone.{name} is {quote(getattr(self, name))}, not a whole number from 1 to {most}"
            for name, most in limits.items()
            if not _is_count(getattr(self, name), most)
        ]
        for name, size, most in (
            ("channels", 4, MOST_CHANNELS),
            ("modules", 3, MOST_BLOCKS),
            ("head_channels", 4, MOST_CHANNELS),
        ):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) != size or not all(_is_count(value, most) for value in values):
                problems.append(f"backbone.{name} is {quote(values)}, not {size} whole numbers from 1 to {most}")
        if not problems and sum(self.modules) * self.blocks > MOST_BLOCKS_IN_ALL:
            problems.append(f"the backbone has {sum(self.modules) * self.blocks} blocks, more than {MOST_BLOCKS_IN_ALL}")
        return problems


@dataclass(frozen=True)
class GLNetConfig:
    """Configuration of a GLNet.

    Attributes:
        name: Name of the network in manifests and messages.
        backbone: Configuration of the HRNet.
        crop: Size and padding of crops. The poster does not say; the default is HybrIK's.
        mean: Channel means of the normalisation, in RGB order, of intensities from 0 to 1. The default is HybrIK's: the
            usual ImageNet constants in the opposite order, which weights derived from HybrIK expect.
        std: Channel deviations of the normalisation, in the same order.
        keypoints: Number of regressed 2D keypoints. The first 29 are the skeleton's; more may follow (COCO's face, say).
        swing_twist: Whether rotations come from keypoints, depths and twists by swing-twist inverse kinematics (the
            poster's "Decomposed"); otherwise 6D rotations are regressed.
        local_encoding: Whether the Local Encoding Module enriches the pixel features (the poster's "LEM").
        pixel_source: Maps that pixel features are made of: the backbone's ``highest`` resolution alone, or ``all`` four
            (HRNetV2, Wang et al., TPAMI 2020). With one alone, a narrow highest branch is a bottleneck.
        point_origin: Place where a pixel's part points start: the ``pixel``, or the ``coarse`` keypoints of the part.
        keypoint_origin: Places to which a pixel adds its residuals of keypoints. ``coarse``: the coarse keypoints.
            ``pixel``: its own place, which a convolution finds more easily and small networks need. ``part``: its point on
            the keypoint's part, which splits the way to a joint in two (AdaptivePose) and needs local encoding.
            ``coarse+part``: the middle between the two, since their errors differ.
        pixel_channels: Channels of the pixel features.
        part_channels: Channels of each part's features.
        depth_range: Metres that a depth of 1 stands for (HybrIK).
        confidence_prior: Confidence of every pixel before training (Lin et al., "Focal Loss", 2017).
        body: The body that the weights were trained with: ``demo`` or ``smpl``.
    """

    name: str = "w32"
    backbone: HRNetConfig = field(default_factory=HRNetConfig)
    crop: CropSpec = field(default_factory=CropSpec)
    mean: tuple[float, float, float] = (0.406, 0.457, 0.480)
    std: tuple[float, float, float] = (0.225, 0.224, 0.229)
    keypoints: int = SKELETON_JOINTS
    swing_twist: bool = True
    local_encoding: bool = True
    pixel_source: str = "highest"
    point_origin: str = "pixel"
    keypoint_origin: str = "coarse"
    pixel_channels: int = 256
    part_channels: int = 64
    depth_range: float = 2.2
    confidence_prior: float = 0.01
    body: str = "demo"

    def __post_init__(self) -> None:
        problems = [*self.crop.problems(), *self.backbone.problems()]
        for name, most in (
            ("keypoints", MOST_KEYPOINTS),
            ("pixel_channels", MOST_CHANNELS),
            ("part_channels", MOST_CHANNELS),
        ):
            if not _is_count(getattr(self, name), most):
                problems.append(f"{name} is {quote(getattr(self, name))}, not a whole number from 1 to {most}")
            elif name == "keypoints" and self.keypoints < SKELETON_JOINTS:
                problems.append(f"keypoints is {self.keypoints}; the skeleton alone has {SKELETON_JOINTS}")
        for name in ("swing_twist", "local_encoding"):
            if not isinstance(getattr(self, name), bool):
                problems.append(f"{name} is {quote(getattr(self, name))}, not true or false")
        for name in ("name", "body"):
            if not isinstance(getattr(self, name), str):
                problems.append(f"{name} is {quote(getattr(self, name))}, not a text")
        for name, choices in (
            ("pixel_source", ("highest", "all")),
            ("point_origin", ("pixel", "coarse")),
            ("keypoint_origin", ("pixel", "coarse", "part", "coarse+part")),
        ):
            if getattr(self, name) not in choices:
                problems.append(f"{name} is {quote(getattr(self, name))}, not one of {', '.join(choices)}")
        if self.starts_at_points and not self.local_encoding:
            problems.append(
                f"keypoint_origin is {self.keypoint_origin!r}, and without local_encoding there are no part points"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) != 3 or not all(_is_finite(value) for value in values):
                problems.append(f"{name} is {quote(values)}, not three numbers")
            elif name == "std" and min(values) < SMALLEST:
                problems.append(f"std must be at least {SMALLEST}")
        if not _is_finite(self.depth_range) or self.depth_range < SMALLEST:
            problems.append(f"depth_range is {quote(self.depth_range)}, not a positive number of metres")
        if not _is_finite(self.confidence_prior) or not SMALLEST <= self.confidence_prior <= 1 - SMALLEST:
            problems.append(f"confidence_prior is {quote(self.confidence_prior)}, not between 0 and 1")
        if problems:
            raise CheckpointError(
                "The network configuration is not valid.",
                why="; ".join(problems),
                fix="docs/checkpoints.md describes every field",
            )

    @property
    def grid(self) -> int:
        """Side of the pixel grid: the backbone's highest resolution, a quarter of the crop's."""
        return self.crop.size // GRID_STRIDE

    @property
    def starts_at_points(self) -> bool:
        """Whether keypoints start at part points, alone or half-way."""
        return self.keypoint_origin in ("part", "coarse+part")

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for checkpoints and manifests."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> GLNetConfig:
        """A configuration from :meth:`to_dict`'s form; fields left out keep their defaults.

        Raises:
            CheckpointError: A field is unknown or has a value of the wrong kind.
        """
        try:
            values = _as_tuples(document)
            if "backbone" in values:
                values["backbone"] = HRNetConfig(**_as_tuples(values["backbone"]))
            if "crop" in values:
                values["crop"] = CropSpec(**values["crop"])
            return cls(**values)
        except (TypeError, AttributeError, ValueError, RecursionError) as error:
            raise CheckpointError(
                "The network configuration is not valid.",
                why=first_line(error).replace("GLNetConfig.__init__() got an unexpected keyword argument", "unknown field"),
                fix=f"known presets: {', '.join(PRESETS)}; fields: {', '.join(f.name for f in dataclasses.fields(cls))}",
            ) from error


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 0 < value <= most


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER  # false for NaN


def _as_tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


_W18_SMALL = HRNetConfig(
    stem_blocks=1, stem_channels=32, channels=(16, 32, 64, 128), modules=(1, 1, 1), blocks=2
)  # HRNet-W18-C-Small-v1 of the authors' image classification models
_DEMO = HRNetConfig(
    stem_blocks=1,
    stem_channels=32,
    channels=(16, 32, 96, 192),
    modules=(1, 2, 1),
    blocks=2,
    head_channels=(16, 32, 48, 64),
    feature_channels=512,
)  # W18-small with wider coarse branches and a second module in stage 3, which cost little time, and a small head
_W48 = HRNetConfig(channels=(48, 96, 192, 384))

PRESETS: dict[str, GLNetConfig] = {
    "demo": GLNetConfig(
        name="demo",
        backbone=_DEMO,
        crop=CropSpec(size=160),
        pixel_source="all",
        keypoint_origin="coarse+part",
        pixel_channels=128,
        part_channels=16,
    ),
    "w18-small": GLNetConfig(name="w18-small", backbone=_W18_SMALL, pixel_channels=128, part_channels=32),
    "w32": GLNetConfig(name="w32"),
    "w48": GLNetConfig(name="w48", backbone=_W48),
}
"""The poster's W32 and W48, and two small networks: ``demo`` can be trained on two CPU cores."""


def load_config(name: str, *, others: Sequence[str] = ()) -> GLNetConfig:
    """A preset by its name, or a configuration from a ``.json`` file.

    Args:
        name: The preset or the file.
        others: Names that the caller knows beside, for the message.

    Raises:
        CheckpointError: Neither a preset nor a readable file.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix != ".json" or not os.path.isfile(path):  # noqa: PTH113 - Path.is_file may raise
        raise CheckpointError(
            f"There is no network configuration {name!r}.",
            why="it is neither a preset nor a .json file",
            fix=f"presets: {', '.join((*PRESETS, *others))}",
        )
    fix = "write it as docs/checkpoints.md shows"
    document = read_json(path, CheckpointError, fix=fix)
    if not isinstance(document, dict):
        raise CheckpointError(f"The configuration {path} was not read.", why="it is not a JSON object", fix=fix)
    return GLNetConfig.from_dict(document)
