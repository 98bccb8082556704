"""Checkpoints that are known and cannot be exported, so that they are refused by their names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Foreign:
    """A network whose checkpoints are refused.

    Attributes:
        title: Its name.
        matches: Whether a state dict is its.
        why: Why it cannot be exported, in lower case.
        fix: What the user can do.
    """

    title: str
    matches: Callable[[Shapes], bool]
    why: str
    fix: str


_INSTEAD = "export one that docs/public-checkpoints.md lists"


def _begins(shapes: Shapes, *beginnings: str) -> bool:
    """Whether names begin in each of these ways."""
    return all(any(name.startswith(beginning) for name in shapes) for beginning in beginnings)


def _holds(shapes: Shapes, *pieces: str) -> bool:
    """Whether any name holds one of these pieces."""
    return any(piece in name for name in shapes for piece in pieces)


FOREIGN = (
    Foreign(
        "HybrIK-X",
        lambda shapes: shapes.get("decphi.weight", ())[:1] == (108,) or _begins(shapes, "preact.", "smplx_layer."),
        "it recovers SMPL-X with hands and face, and graphs here hold SMPL",
        "export hybrik_hrnet.pth, HybrIK for SMPL",
    ),
    Foreign(
        "NIKI",
        lambda shapes: (
            _begins(shapes, "preact.")
            and any("inn." in name or "invertible" in name or ".flow." in name for name in shapes)
        ),
        "it looks at sixteen frames at a time, and graphs here at one crop",
        "export HybrIK, which it is built on",
    ),
    Foreign(
        "HybrIK of before August 2022",
        lambda shapes: shapes.get("decphi.weight", ())[:1] == (46,) and "decsigma.weight" not in shapes,
        "it has no decsigma, the layer that says how sure each joint is",
        "take a later file of HybrIK's README",
    ),
    Foreign(
        "CLIFF with ResNet-50",
        lambda shapes: "decpose.weight" in shapes and "encoder.layer4.0.conv1.weight" in shapes,
        "only its form with HRNet-W48 is known here, which is the more accurate one",
        "export CLIFF's hr48 file",
    ),
    Foreign(
        "BEDLAM-CLIFF",
        lambda shapes: shapes.get("head.decpose.weight", shapes.get("model.head.decpose.weight", ()))[:1] == (132,),
        "it recovers SMPL-X (22 joints, 11 shape components), and graphs here hold SMPL",
        _INSTEAD,
    ),
    Foreign(
        "TokenHMR",
        lambda shapes: _begins(shapes, "backbone.blocks.", "smpl_head.") and _holds(shapes, "tokenizer"),
        "its backbone (ViT-H) and its pose tokenizer are not known here",
        _INSTEAD,
    ),
    Foreign(
        "HMR2.0 (4D-Humans), or a network built on it such as CameraHMR",
        lambda shapes: _begins(shapes, "backbone.blocks.", "smpl_head."),
        "its backbone, ViT-H, is not known here",
        _INSTEAD,
    ),
    Foreign(
        "SPIN or another network with its regressor on ResNet-50",
        lambda shapes: "decpose.weight" in shapes and "layer4.0.conv1.weight" in shapes,
        "its backbone, ResNet-50, is not known here",
        _INSTEAD,
    ),
)
"""The first one that matches is meant."""
