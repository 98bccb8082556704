"""Cheap changes of crops and their labels, for rendered and real ones."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from glnet.estimate import viewing_rotations
from glnet.rotations import rotation_to_6d
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS, mirror_order
from glnet_render.targets import HIDDEN_WEIGHT, UNKNOWN, Batch, Targets

MIRRORED = 0.5
"""Share of crops that are mirrored."""

TURN = 0.35
"""Largest turn of a crop, radians: 20 degrees."""

SQUARE = 0.005
"""Crops are turned only where fx and fy differ by less than this share."""

SCALE = 1.2
"""Largest scaling of a rendered crop, up or down."""

SHIFT, SIZE = 0.1, 1.25
"""Largest errors of a real person's box, as detectors make them: a shift in shares of its sides, and a factor of size."""

BRIGHTNESS = 0.2
"""Largest change of a crop's brightness, as a share."""

GAIN = 0.15
"""Largest further change of each colour channel, as a share."""


def mirror(batch: Batch) -> Batch:
    """The batch as a mirror shows it: left and right change places.

    Shape parameters stay: the demo body is symmetric, and the field takes SMPL to be.
    """
    crops, targets = batch
    estimate = targets.estimate
    keypoints = estimate.keypoints
    places = mirror_order(SKELETON_JOINTS) + list(range(SKELETON_JOINTS, keypoints.shape[1]))
    joints = mirror_order(BODY_JOINTS)
    twists = [joint - 1 for joint in joints[1:]]
    flip = keypoints.new_tensor([-1.0, 1.0, 1.0])
    rotations = targets.rotations[:, joints] * flip * flip[:, None]
    if estimate.rotation.shape[1] == BODY_JOINTS:  # 6D: the first two columns, one after the other
        turned = joints
        rotation = estimate.rotation[:, joints] * flip.repeat(2) * keypoints.new_tensor([-1, -1, -1, 1, 1, 1])
    else:  # cosines and sines of the twists
        turned = twists
        rotation = estimate.rotation[:, twists] * keypoints.new_tensor([1.0, -1.0])
    return Batch(
        crops.flip(2),
        targets._replace(
            estimate=estimate._replace(
                keypoints=keypoints[:, places] * flip[:2], depths=estimate.depths[:, places], rotation=rotation
            ),
            keypoint_weights=targets.keypoint_weights[:, places],
            depth_weights=targets.depth_weights[:, places],
            rotation_weights=targets.rotation_weights[:, turned],
            rotations=rotations,
            pose_weights=targets.pose_weights[:, joints],
            cameras=targets.cameras * keypoints.new_tensor([1.0, 1.0, -1.0, 1.0]),
            segments=keypoints.new_tensor(_mirrored_segments(), dtype=torch.uint8)[targets.segments.flip(2).long()],
            places=targets.places.flip(2) * keypoints.new_tensor([-1.0, 1.0, 1.0, 1.0]),
        ),
    )


def _mirrored_segments() -> list[int]:
    """The mirrored value of every value of a segment."""
    return [*mirror_order(BODY_JOINTS), *range(BODY_JOINTS, 256)]


def turn(batch: Batch, angles: Float[Tensor, " n"], scales: Float[Tensor, " n"]) -> Batch:
    """Turn and scale crops about their middles, as a camera that is rolled and a box of another size would have them.

    The camera stays at its place, so depths along the ray through the crop's centre stay, and the labels are exact. What
    comes in from beyond the crop is black. Keypoints that leave the crop count as hidden ones.

    Args:
        batch: Crops of square pixels (fx = fy).
        angles: Radians, clockwise in the picture.
        scales: Factors by which what is shown grows.
    """
    crops, targets = batch
    estimate = targets.estimate
    cosines, sines = angles.cos(), angles.sin()
    turned = torch.stack([torch.stack([cosines, -sines], -1), torch.stack([sines, cosines], -1)], 1)  # N x 2 x 2
    change = turned * scales[:, None, None]

    keypoints = estimate.keypoints @ change.transpose(1, 2)
    outside = (keypoints.abs() > 0.5).any(-1)
    weights = targets.keypoint_weights
    cameras = torch.cat(
        [targets.cameras[:, :2] * scales[:, None], (change @ targets.cameras[:, 2:, None]).squeeze(-1)], dim=-1
    )
    roll = functional.pad(turned, (0, 1, 0, 1))
    roll[:, 2, 2] = 1
    root = roll @ targets.rotations[:, 0]
    rotation = estimate.rotation
    if rotation.shape[1] == BODY_JOINTS:  # 6D, the root's relative to the ray through the crop's centre
        relative = rotation_to_6d(viewing_rotations(cameras).transpose(1, 2) @ root)
        rotation = torch.cat([relative[:, None], rotation[:, 1:]], dim=1)

    pictures, segments, places = _warp(crops, targets, change)
    return Batch(
        pictures,
        targets._replace(
            estimate=estimate._replace(keypoints=keypoints, rotation=rotation, scale=estimate.scale * scales[:, None]),
            keypoint_weights=weights.where(~outside, weights.clamp(max=HIDDEN_WEIGHT)),
            rotations=torch.cat([root[:, None], targets.rotations[:, 1:]], dim=1),
            cameras=cameras,
            segments=segments,
            places=places,
        ),
    )


def _warp(crops: Tensor, targets: Targets, change: Float[Tensor, "n 2 2"]) -> tuple[Tensor, Tensor, Tensor]:
    """Crops (bilinear) and segments and places (nearest) after a linear change about the middle."""
    inverse = functional.pad(torch.linalg.inv(change), (0, 1))
    where = functional.affine_grid(inverse, [len(crops), 3, *crops.shape[1:3]], align_corners=False)
    images = functional.grid_sample(crops.permute(0, 3, 1, 2).float(), where, align_corners=False)
    grid = targets.segments.shape[1]
    cells = functional.affine_grid(inverse, [len(crops), 1, grid, grid], align_corners=False)
    # One is added to segments, so that beyond the crop is nothing.
    surface = torch.cat([targets.segments.unsqueeze(-1).float() + 1, targets.places], dim=-1).permute(0, 3, 1, 2)
    surface = functional.grid_sample(surface, cells, mode="nearest", align_corners=False).permute(0, 2, 3, 1)
    segments = surface[..., 0].round() - 1
    return (
        images.permute(0, 2, 3, 1).round().to(torch.uint8),
        segments.where(segments >= 0, UNKNOWN).to(torch.uint8),
        surface[..., 1:],
    )


def jittered(box: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    """A box x1, y1, x2, y2 as a detector might have given it."""
    sides = box[2:] - box[:2]
    middle = (box[:2] + box[2:]) / 2 + sides * draw.uniform(-SHIFT, SHIFT, 2)
    half = sides / 2 * SIZE ** draw.uniform(-1, 1)
    return np.concatenate([middle - half, middle + half])


def augment(batch: Batch, generator: torch.Generator, strength: float = 1.0, rendered: int | None = None) -> Batch:
    """Mirror half of the crops, turn and scale them, and change the colours of all.

    Args:
        batch: The crops.
        generator: Generator of all random numbers.
        strength: Share of the full turning and scaling.
        rendered: Number of rendered crops, which come first; only these are scaled, all by default. Photographs were cut by
            boxes of another size (:func:`jittered`), and show more than black around a smaller person.
    """
    count, device = len(batch.crops), batch.crops.device

    def spread(*shape: int) -> Tensor:
        """Evenly from -1 to 1."""
        return (2 * torch.rand(count, *shape, generator=generator) - 1).to(device)

    chosen = spread() < 2 * MIRRORED - 1
    mirrored = mirror(batch)
    rows = torch.arange(count, device=device) + torch.where(chosen, 0, count)
    targets = Targets.concatenate([mirrored.targets, batch.targets]).map(lambda part: part[rows])
    crops = torch.where(chosen[:, None, None, None], mirrored.crops, batch.crops)
    # Turned pixels must be square, or the labels would be those of a sheared body: 1 % would move joints by millimetres.
    square = (targets.cameras[:, 0] / targets.cameras[:, 1] - 1).abs() < SQUARE
    scaled = torch.arange(count, device=device) < (count if rendered is None else rendered)
    scales = SCALE ** (strength * spread() * scaled)
    crops, targets = turn(Batch(crops, targets), strength * TURN * spread() * square, scales)
    gain = 1 + BRIGHTNESS * spread(1, 1, 1) + GAIN * spread(1, 1, 3)
    return Batch((crops * gain).clamp_(max=255).to(torch.uint8), targets)
