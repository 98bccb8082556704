"""What int8 or bfloat16 costs: distances from float32, and errors of both on rendered persons, whose truth is known."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glnet.body.smpl import Body
from glnet.position_errors import mpjpe, pa_mpjpe, pve
from glnet_infer.backends import Backend, Outputs
from glnet_infer.skeleton import BODY_JOINTS
from glnet_render import SyntheticSample

_BATCH = 16


@dataclass(frozen=True)
class NarrowCost:
    """A narrow graph beside float32 on the same rendered crops.

    Attributes:
        crops: How many.
        vertices_mean_mm: Mean distance of vertices from float32's, both relative to their root joint, over all crops.
        pixel_agreement: Share of crops that choose the same pixel.
        mpjpe_mm: Mean error of float32 and of the narrow graph: SMPL's 24 joints, rooted at the pelvis.
        pa_mpjpe_mm: The same after Procrustes alignment.
        pve_mm: Mean error of vertices, rooted at the pelvis.
    """

    crops: int
    vertices_mean_mm: float
    pixel_agreement: float
    mpjpe_mm: tuple[float, float]
    pa_mpjpe_mm: tuple[float, float]
    pve_mm: tuple[float, float]

    def __str__(self) -> str:
        errors = ", ".join(
            f"{title} {before:.2f} to {after:.2f} mm"
            for title, (before, after) in (("MPJPE", self.mpjpe_mm), ("PA", self.pa_mpjpe_mm), ("PVE", self.pve_mm))
        )
        return (
            f"{self.crops} crops: {errors}; vertices move by {self.vertices_mean_mm:.2f} mm on average, "
            f"same pixel in {self.pixel_agreement:.1%}"
        )

    def misses(self, max_growth: float) -> list[str]:
        """Errors that grow by more than a share of float32's; NaN is more than anything."""
        return [
            f"{name.removesuffix('_mm')} grows from {before:.2f} to {after:.2f} mm, bound {max_growth:.1%}"
            for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm")
            for before, after in [getattr(self, name)]
            if not after <= before * (1 + max_growth)
        ]

    def to_document(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def answers(backend: Backend, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
    """Vertices, joints and pixels that a backend gives for N crops, a few at a time."""
    parts = [
        backend.run(crops[start : start + _BATCH], cameras[start : start + _BATCH])
        for start in range(0, len(crops), _BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("vertices", "joints", "reference_pixel")}


def vertex_shift(found: Outputs, reference: Outputs) -> float:
    """Mean distance of vertices, both relative to their root joint; millimetres."""
    relative = [each["vertices"] - each["joints"][:, :1] for each in (found, reference)]
    return 1000 * float(np.linalg.norm(relative[0] - relative[1], axis=-1).mean())


def cost(found: Outputs, reference: Outputs, persons: SyntheticSample, body: Body) -> NarrowCost:
    """Compare the answers of a narrow graph with those of float32 and with the truth."""
    with torch.no_grad():
        true_vertices, true_joints = body.pose(persons.rotations, persons.betas)
    true_joints = true_joints[:, :BODY_JOINTS]
    errors: dict[str, list[float]] = {"mpjpe_mm": [], "pa_mpjpe_mm": [], "pve_mm": []}
    for each in (reference, found):
        joints, vertices = torch.from_numpy(each["joints"][:, :BODY_JOINTS]), torch.from_numpy(each["vertices"])
        errors["mpjpe_mm"].append(mpjpe(joints, true_joints).mean().item())
        errors["pa_mpjpe_mm"].append(pa_mpjpe(joints, true_joints).mean().item())
        errors["pve_mm"].append(pve(vertices, true_vertices, joints[:, 0], true_joints[:, 0]).mean().item())
    same = (found["reference_pixel"] == reference["reference_pixel"]).all(1)
    return NarrowCost(
        crops=len(same),
        vertices_mean_mm=vertex_shift(found, reference),
        pixel_agreement=float(same.mean()),
        mpjpe_mm=(errors["mpjpe_mm"][0], errors["mpjpe_mm"][1]),
        pa_mpjpe_mm=(errors["pa_mpjpe_mm"][0], errors["pa_mpjpe_mm"][1]),
        pve_mm=(errors["pve_mm"][0], errors["pve_mm"][1]),
    )
