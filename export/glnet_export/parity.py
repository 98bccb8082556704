"""How far an exported graph is from the PyTorch module, in millimetres, pixels and degrees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glnet.recovery import MeshRecovery, Recovery
from glnet.rotations import rotation_angle
from glnet_infer.backends import Backend
from glnet_infer.contract import DEFAULT_CAMERA
from glnet_infer.errors import ExportError

BATCH = 5
"""Crops at a time: bounds memory. 16 crops make three batches and a single one, so both are compared."""


@dataclass(frozen=True)
class ParityBounds:
    """What a float32 export must keep.

    Two float32 implementations sum the same convolutions in another order; depth amplifies that to about 1e-5 of the
    features, which moves a body that stands metres away by some thousandths of a millimetre (w32 with random weights).
    The bounds leave a trained network, whose residuals are larger, room for ten times as much. A mistake in a graph is
    larger by orders of magnitude.

    Attributes:
        vertices_mm: Largest distance between two vertices.
        joints_mm: Largest distance between two joints.
        keypoints_px: Largest distance between two keypoints, crop pixels.
        rotations_deg: Largest angle between two rotations.
        betas: Largest difference between two shape values, standard deviations.
        translation_mm: Largest distance between two translations.
        confidence: Largest difference between two confidences.
        pixel_agreement: Least share of crops whose chosen pixel is the same.
        jump_mm: Largest distance between two vertices in crops that are left out. HybrIK's rule moves a joint by up to
            15 mm, and some joints follow one another.
    """

    vertices_mm: float = 0.05
    joints_mm: float = 0.05
    keypoints_px: float = 0.01
    rotations_deg: float = 0.05
    betas: float = 1e-3
    translation_mm: float = 0.05
    confidence: float = 1e-4
    pixel_agreement: float = 1.0
    jump_mm: float = 50.0

    @classmethod
    def of(cls, recovery: MeshRecovery, millimetres: float | None = None, agreement: float = 1.0) -> ParityBounds:
        """What the export of a network must keep.

        Args:
            recovery: The network.
            millimetres: Largest distance in space; None: the default, as far as the network amplifies rounding.
            agreement: Least share of crops whose chosen pixel is the same.
        """
        factor = recovery.amplification
        distance = cls.vertices_mm * factor if millimetres is None else millimetres
        return cls(
            vertices_mm=distance,
            joints_mm=distance,
            keypoints_px=cls.keypoints_px * factor,
            rotations_deg=cls.rotations_deg * factor,
            betas=cls.betas * factor,
            translation_mm=distance,
            pixel_agreement=agreement,
        )


@dataclass(frozen=True)
class ParityReport:
    """The comparison's figures. Distances over crops that chose the same pixel, worst case unless named otherwise.

    Of a network whose answers may jump, the quarter of the crops whose vertices are furthest off is left out.

    Attributes:
        left_out: How many of the crops that chose the same pixel are left out.
        jump_mm: Largest distance between two vertices in those; 0 where there are none.
    """

    crops: int
    pixel_agreement: float
    vertices_mm: float
    vertices_mean_mm: float
    joints_mm: float
    keypoints_px: float
    rotations_deg: float
    betas: float
    translation_mm: float
    confidence: float
    left_out: int = 0
    jump_mm: float = 0.0

    def __str__(self) -> str:
        jumps = f"; {self.left_out} crops left out, up to {self.jump_mm:.2f} mm" if self.left_out else ""
        return (
            f"{self.crops} crops: vertices {self.vertices_mm:.4f} mm, joints {self.joints_mm:.4f} mm, "
            f"keypoints {self.keypoints_px:.4f} px, rotations {self.rotations_deg:.4f} degrees (largest), "
            f"same pixel in {self.pixel_agreement:.0%}{jumps}"
        )

    def to_document(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)

    def misses(self, bounds: ParityBounds) -> list[str]:
        """The figures that are worse than their bound; NaN is worse than anything."""
        figures = self.to_document()
        misses = []
        for name, bound in asdict(bounds).items():
            value = figures[name]
            within = value >= bound if name == "pixel_agreement" else value <= bound
            if not within:
                misses.append(f"{name} is {value:.4g}, bound {bound:g}")
        return misses


def as_module(backend: Backend) -> Callable[[Tensor, Tensor], Recovery]:
    """A backend in the place of a module."""

    def run(crops: Tensor, cameras: Tensor) -> Recovery:
        outputs = backend.run(crops.numpy(), cameras.numpy())
        return Recovery(*(torch.from_numpy(outputs[name]) for name in Recovery._fields))

    return run


def compare(
    recovery: MeshRecovery, backend: Backend, crops: NDArray[np.uint8], seed: int = 0, *, jumps: bool = False
) -> ParityReport:
    """Run both on the same crops and measure.

    Cameras vary from crop to crop, so that the whole range of the second input is compared too.

    Args:
        recovery: The reference.
        backend: Runs the export.
        crops: N x C x C x 3.
        seed: Seed of the cameras.
        jumps: Whether its answers may jump (``MeshRecovery.jumps``).
    """
    generator = np.random.default_rng(seed)
    cameras = np.tile(np.array(DEFAULT_CAMERA, dtype=np.float32), (len(crops), 1))
    cameras[:, :2] *= generator.uniform(0.25, 1, (len(crops), 1))
    cameras[:, 2:] += generator.uniform(-1, 1, (len(crops), 2))
    same, differences = [], defaultdict(list)
    exported = as_module(backend)
    for start in range(0, len(crops), BATCH):
        batch = [torch.from_numpy(array[start : start + BATCH]) for array in (crops, cameras)]
        with torch.inference_mode():
            reference = recovery(*batch)
        found = exported(*batch)
        agree = (found.reference_pixel == reference.reference_pixel).all(1)
        same.append(agree)
        for name, difference in _differences(found, reference).items():
            differences[name].append(difference[agree].flatten(1) if difference.ndim > 1 else difference[agree, None])
    if not torch.cat(same).any():
        raise ExportError(
            "The exported graph was not compared with PyTorch.",
            why=f"on none of {len(crops)} crops do both choose the same pixel",
            fix="the graph computes something else; report it together with the checkpoint's configuration",
        )
    by_crop = {name: torch.cat(parts) for name, parts in differences.items()}
    furthest = by_crop["vertices_mm"].amax(1)
    order = furthest.argsort()  # NaN comes last
    steady = order[: -(len(order) // 4)] if jumps and len(order) >= 4 else order
    largest = {name: float(each[steady].max()) for name, each in by_crop.items()}
    return ParityReport(
        crops=len(crops),
        pixel_agreement=float(torch.cat(same).double().mean()),
        vertices_mean_mm=float(by_crop["vertices_mm"][steady].mean()),
        left_out=len(order) - len(steady),
        jump_mm=float(furthest.max()) if len(steady) < len(order) else 0.0,
        **largest,
    )


def _differences(found: Recovery, reference: Recovery) -> dict[str, torch.Tensor]:
    """By the names of :class:`ParityReport`, crop by crop."""
    return {
        "vertices_mm": _distances(found.vertices, reference.vertices) * 1000,
        "joints_mm": _distances(found.joints, reference.joints) * 1000,
        "keypoints_px": _distances(found.keypoints_2d, reference.keypoints_2d),
        "rotations_deg": rotation_angle(found.rotations.double(), reference.rotations.double()),
        "betas": (found.betas.double() - reference.betas.double()).abs(),
        "translation_mm": _distances(found.translation, reference.translation) * 1000,
        "confidence": (found.confidence.double() - reference.confidence.double()).abs(),
    }


def _distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    distances: torch.Tensor = torch.linalg.vector_norm(first.double() - second.double(), dim=-1)
    return distances
