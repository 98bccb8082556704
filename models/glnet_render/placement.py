"""Placement of bodies before cameras: translations, crop cameras, truncation."""

from typing import NamedTuple

import torch
from torch import Tensor

from glnet_infer.contract import CropSpec
from glnet_render.randomness import Draw

NEAREST = 0.3
"""Least distance of a vertex from the camera, metres."""

FOCAL_LENGTHS = (1.1, 7.0)
"""Shortest and longest focal length, crop sides. Perspective, box errors and truncation spread them to 0.7 and 9. So a
whole person is seen from two to some 15 metres."""

OFF_CENTRE = 0.2
"""Crop sides. A root that is seen further from the crop's centre has bystanders only on its own side."""


class Placement(NamedTuple):
    """N bodies in front of cameras.

    Attributes:
        root: N x 3, position of the root joint in camera coordinates, metres.
        cameras: N x 4, fx, fy, cx, cy in crop sides from the crop's centre.
    """

    root: Tensor
    cameras: Tensor


def place(draw: Draw, vertices: Tensor, joints: Tensor, crop: CropSpec, difficulty: float) -> Placement:
    """Place bodies before the camera of an imagined image, and cut the crop about each as a detector's box would.

    The image's camera looks along z. A person that is small in the image may stand far from its centre, so the crop's
    principal point lies up to some crop sides away. The box is that of the vertices, with errors as detectors make them.
    One crop in six shows only a part of the body.

    Args:
        draw: Random numbers.
        vertices: N x V x 3, metres from the root joint, turned as the camera sees them.
        joints: N x 29 x 3, metres from the root joint, turned as the camera sees them.
        crop: How the crop is cut about a box.
        difficulty: Spread of the placements: 0 for whole persons, centred, at a medium distance, to 1 for all.
    """
    count = len(vertices)
    low, high = vertices.amin(1), vertices.amax(1)
    counts = draw.constant(crop.counts)
    extent = ((high - low)[:, :2] * counts).amax(-1)
    near, far = (limit**difficulty * 3.0 ** (1 - difficulty) for limit in FOCAL_LENGTHS)
    focal = draw.log_uniform(count, low=near, high=far)

    cut = draw.chance(count, probability=0.17 * difficulty)
    zoom = torch.where(cut, draw.uniform(count, low=0.5, high=0.85), 1.0)
    # What is cut shows more often the upper body: a point between pelvis and head, or any joint.
    about = torch.where(
        draw.chance(count, probability=0.6), torch.full((count,), 9, device=draw.device), draw.integers(count, high=16)
    )

    distance = (focal * zoom * crop.padding * extent).maximum(NEAREST - low[:, 2])
    # A person who takes up half the image cannot stand at its edge.
    room = (draw.constant((0.45, 0.3)) - 0.25 / focal[:, None]).clamp(min=0.04)
    position = draw.uniform(count, 2, low=-1, high=1) * room * difficulty
    root = torch.cat([position, torch.ones_like(position[:, :1])], dim=-1) * distance[:, None]

    seen = vertices + root.unsqueeze(1)
    image = seen[..., :2] / seen[..., 2:]
    low, high = image.amin(1), image.amax(1)
    side = ((high - low) * counts).amax(-1) * crop.padding * zoom
    middle = (low + high) / 2
    target = joints[torch.arange(count, device=draw.device), about] + root
    middle = torch.where(cut[:, None], target[:, :2] / target[:, 2:], middle)
    side = side * (1 + 0.25 * difficulty * draw.uniform(count, low=-0.8, high=1))
    middle = middle + 0.1 * difficulty * draw.uniform(count, 2, low=-1, high=1) * side[:, None]

    focal = 1 / side[:, None]
    cameras = torch.cat([focal, focal, -middle * focal], dim=-1)
    return Placement(root, cameras)


def place_beside(draw: Draw, placement: Placement, vertices: Tensor) -> Placement:
    """Place other bodies where the cameras see them beside the first ones: three in ten nearer, the others farther away.

    The second body is seen to the left or right, by two to seven tenths of the crop's side. Where the first one is not in
    the middle, the second is on its side, so that it stays clear who is meant. Bodies overlap in a third of the crops. They
    share no ground: cameras look from all heights.

    Args:
        draw: Random numbers.
        placement: Placement of the first bodies.
        vertices: N x V x 3, the second bodies, metres from the root joint, turned as the camera sees them.
    """
    count = len(vertices)
    nearer = draw.chance(count, probability=0.3)
    ratio = torch.where(nearer, draw.uniform(count, low=0.7, high=0.95), draw.log_uniform(count, low=1.05, high=2))
    depth = (placement.root[:, 2] * ratio).maximum(NEAREST - vertices[..., 2].amin(1))
    # Who stands before the first person leaves more of him open.
    aside = draw.uniform(count, low=0.2, high=0.6) + 0.1 * nearer
    place = project(placement.root[:, None], placement.cameras)[:, 0]
    rightwards = torch.where(place[:, 0].abs() > OFF_CENTRE, place[:, 0] > 0, draw.chance(count, probability=0.5))
    shift = torch.stack([torch.where(rightwards, aside, -aside), draw.normal(count, deviation=0.06)], dim=-1)
    place = place + shift
    ray = (place - placement.cameras[:, 2:]) / placement.cameras[:, :2]
    return Placement(torch.cat([ray, torch.ones_like(ray[:, :1])], dim=-1) * depth[:, None], placement.cameras)


def project(points: Tensor, cameras: Tensor) -> Tensor:
    """Crop coordinates (crop sides from the crop's centre), N x K x 2, of camera coordinates N x K x 3."""
    return points[..., :2] / points[..., 2:] * cameras[:, None, :2] + cameras[:, None, 2:]
