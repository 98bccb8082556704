"""What half precision costs: the mixed-precision module against the float32 one, in millimetres, without a GPU.

Precision lives in the module, so PyTorch on a CPU computes what an engine with the same types computes, up to the order of
sums. Processors are slow at half-precision convolutions, so they may be emulated: :class:`EmulatedHalf` computes every
operator in float32 and rounds its result to half, which is what kernels with float32 accumulators do.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from glnet.recovery import MeshRecovery, Recovery
from glnet.rotations import rotation_angle
from glnet_infer.errors import ExportError

BATCHES = (8,)
"""Crops at a time: bounds memory."""

KEEP_IN_FLOAT32 = "keep modules in float32: --fp32 PATTERN; docs/tensorrt.md says how to find them"
"""What to do where half precision costs too much."""


@dataclass(frozen=True)
class PrecisionReport:
    """Mixed precision against float32 on the same crops.

    Distances in space are relative to the root joint; the root's own distance from the camera is given apart, as a share of
    it, for it is what the whole body's size in the image says. Distances are over crops that choose the same pixel; choices
    may differ where two pixels nearly tie, and are judged by what they change.

    Attributes:
        crops: How many.
        vertices_mean_mm: Mean over all vertices and those crops.
        vertices_p99_mm: 99th percentile over them.
        vertices_max_mm: Largest.
        joints_max_mm: Largest distance between two joints.
        keypoints_max_px: Largest distance between two regressed keypoints, crop pixels.
        rotations_max_deg: Largest angle between two rotations relative to the parent.
        distance_max_share: Largest change of the root's distance from the camera, relative to it.
        pixel_agreement: Share of crops that choose the same pixel.
        tied: For every other crop, how far its vertices move on average (mm), and by how much float32 prefers its own pixel
            (difference of the confidences' logits).
        small_effect: Share of crops without a jump: whose vertices move by less than 2 mm on average.
    """

    crops: int
    vertices_mean_mm: float
    vertices_p99_mm: float
    vertices_max_mm: float
    joints_max_mm: float
    keypoints_max_px: float
    rotations_max_deg: float
    distance_max_share: float
    pixel_agreement: float
    tied: tuple[tuple[float, float], ...]
    small_effect: float

    @property
    def not_finite(self) -> list[str]:
        """Figures that are no numbers, as where values leave the range of half precision (65,504)."""
        return [name for name, value in asdict(self).items() if not np.isfinite(value).all()]

    def __str__(self) -> str:
        mean, agreement = f"{self.vertices_mean_mm:.3f} mm", f"{self.pixel_agreement:.1%}"
        return f"{self.crops} crops: vertices {mean} on average, same pixel in {agreement}"

    def table(self, bounds: "PrecisionBounds | None" = None) -> str:
        """The figures, a line each, beside their bounds where they are judged."""
        mean = "" if bounds is None else f"at most {bounds.vertices_mean_mm:g}"
        share = "" if bounds is None else f"at least {bounds.small_effect:.0%}"
        rows = [
            ("vertices, mean", f"{self.vertices_mean_mm:.3f} mm", mean),
            ("vertices, 99th percentile", f"{self.vertices_p99_mm:.2f} mm", ""),
            ("vertices, largest", f"{self.vertices_max_mm:.2f} mm", ""),
            ("joints, largest", f"{self.joints_max_mm:.2f} mm", ""),
            ("keypoints, largest", f"{self.keypoints_max_px:.3f} px", ""),
            ("rotations, largest", f"{self.rotations_max_deg:.2f} degrees", ""),
            ("distance, largest", f"{self.distance_max_share:.3%}", ""),
            ("same pixel", f"{self.pixel_agreement:.1%}", ""),
            (f"moved by under {SMALL_EFFECT_MM:g} mm", f"{self.small_effect:.1%}", share),
        ]
        rows += [("another pixel", f"{moved:.2f} mm", f"logits {margin:.4f} apart") for moved, margin in self.tied]
        return "\n".join(f"{name:<26}{value:>16}  {bound}".rstrip() for name, value, bound in rows)

    def misses(self, bounds: "PrecisionBounds") -> list[str]:
        """The figures that are worse than their bound; NaN is worse than anything."""
        misses = []
        if not self.vertices_mean_mm <= bounds.vertices_mean_mm:
            misses.append(f"vertices are {self.vertices_mean_mm:.3g} mm off on average, bound {bounds.vertices_mean_mm:g}")
        if not self.small_effect >= bounds.small_effect:
            misses.append(
                f"{self.small_effect:.1%} of the crops move by less than {SMALL_EFFECT_MM:g} mm, "
                f"bound {bounds.small_effect:.0%}"
            )
        return misses

    def to_document(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {**asdict(self), "tied": [list(pair) for pair in self.tied]}


@dataclass(frozen=True)
class PrecisionBounds:
    """What a trained network must keep in mixed precision.

    A millimetre is a fiftieth of what the best networks miss on photographs (the poster: PVE 77.7 mm on 3DPW), so nobody
    will see it; the demo network misses a third of it. Networks whose activations overflow are off by decimetres or NaN.

    Attributes:
        vertices_mean_mm: Largest mean vertex error.
        small_effect: Least share of crops without a jump. Pixels that nearly tie choose another one in 0.4 % of the demo
            network's crops: of 32, one may, and two show that something is wrong.
    """

    vertices_mean_mm: float = 1.0
    small_effect: float = 0.95


SMALL_EFFECT_MM = 2.0
"""Mean vertex distance from which an answer counts as another one: a small part of any error on photographs.

GLNet jumps where another pixel decides, HybrIK where a bone is just reached or just not."""


def compare_precisions(
    recovery: MeshRecovery,
    mixed: Callable[[Tensor, Tensor], Recovery],
    crops: UInt8[Tensor, "n s s 3"],
    cameras: Float[Tensor, "n 4"],
    *,
    emulated: bool = False,
    batches: Sequence[int] = BATCHES,
) -> PrecisionReport:
    """Run a float32 module and its copy in mixed precision.

    Args:
        recovery: In float32.
        mixed: The copy in mixed precision, or an engine built from it (:func:`glnet_export.parity.as_module`).
        crops: RGB.
        cameras: Cameras of the crops.
        emulated: Emulate half precision (:class:`EmulatedHalf`) instead of running it.
        batches: How many crops at a time, in turn: an engine has kernels of their own for each of its sizes.
    """
    vertices, largest, tied, moved = [], [], [], []
    ends = itertools.takewhile(lambda end: end < len(crops), itertools.accumulate(itertools.cycle(batches)))
    for start, end in itertools.pairwise((0, *ends, len(crops))):
        batch = crops[start:end], cameras[start:end]
        with torch.no_grad():
            reference = recovery(*batch)
            with EmulatedHalf() if emulated else nullcontext():  # type: ignore[no-untyped-call]
                found = mixed(*batch)
        distances = _relative_distances(found.vertices, reference.vertices, found, reference)
        other = (found.reference_pixel != reference.reference_pixel).any(1)
        vertices.append(distances[~other])
        root = torch.stack([found.joints[:, 0], reference.joints[:, 0]]).double().norm(dim=-1)
        largest.append(
            torch.stack(
                [
                    _relative_distances(found.joints, reference.joints, found, reference).amax(1),
                    (found.keypoints_2d - reference.keypoints_2d).norm(dim=-1).amax(1).double(),
                    rotation_angle(found.rotations.double(), reference.rotations.double()).amax(1),
                    (root[0] - root[1]).abs() / root[1],
                ]
            )[:, ~other]
        )
        moved.append(distances.mean(1))
        if other.any():
            with torch.no_grad():
                margins = recovery.margins(batch[0][other], found.reference_pixel[other])
            tied += [(float(a), float(b)) for a, b in zip(distances.mean(1)[other], margins, strict=True)]
    every = torch.cat(vertices)
    if not every.numel():
        raise ExportError(
            "Half precision was not compared with float32.",
            why=f"on none of {len(crops)} crops do both choose the same pixel",
            fix=KEEP_IN_FLOAT32,
        )
    joints, keypoints, rotations, distance = torch.cat(largest, dim=1).amax(1).tolist()
    return PrecisionReport(
        crops=len(crops),
        vertices_mean_mm=every.mean().item(),
        vertices_p99_mm=every.flatten().kthvalue(max(1, round(0.99 * every.numel()))).values.item(),
        vertices_max_mm=every.max().item(),
        joints_max_mm=joints,
        keypoints_max_px=keypoints,
        rotations_max_deg=rotations,
        distance_max_share=distance,
        pixel_agreement=1 - len(tied) / len(crops),
        tied=tuple(tied),
        small_effect=(torch.cat(moved) < SMALL_EFFECT_MM).double().mean().item(),
    )


def _relative_distances(found: Tensor, reference: Tensor, first: Recovery, second: Recovery) -> Tensor:
    """Distances of points relative to the roots, millimetres, float64."""
    found, reference = found.double() - first.joints[:, :1], reference.double() - second.joints[:, :1]
    distances: Tensor = 1000 * torch.linalg.vector_norm(found - reference, dim=-1)
    return distances


class EmulatedHalf(TorchDispatchMode):
    """Half-precision operators computed in float32, weights and results rounded to half."""

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = operator(*pytree.tree_map(_widened, arguments), **pytree.tree_map(_widened, keywords or {}))
        asked = (keywords or {}).get("dtype")
        if asked is not None or not _has_half(arguments):
            return result
        return pytree.tree_map(lambda part: part.half() if _is(part, torch.float32) else part, result)


def _is(value: Any, kind: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dtype == kind


def _widened(value: Any) -> Any:
    return value.float() if _is(value, torch.float16) else value


def _has_half(arguments: Any) -> bool:
    return any(_is(part, torch.float16) for part in pytree.tree_leaves(arguments))
