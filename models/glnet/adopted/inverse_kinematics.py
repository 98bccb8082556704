"""Adaptive inverse kinematics of HybrIK (Li et al., CVPR 2021, section 3.2), with neither SVD nor matrix inverse.

A joint's bone points from where the chain so far ends to the predicted child, so that errors do not add up along a limb.
Where that differs much from the predicted bone itself, the predicted direction holds.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from glnet.kinematics import LEVELS, MAIN_CHILDREN, ZERO_LENGTH
from glnet.rotations import cross, length, normalize, rotation_about_axis, skew
from glnet_infer.skeleton import PARENTS

TOLERANCE = 0.015
"""Metres. HybrIK's: a child that is further off than this is not reached for, and only its bone's direction is taken."""

SQUARINGS = 14
"""How often Davenport's matrix is squared: 2^14 steps of a power iteration. For skeletons with 60 mm of noise, ten
squarings leave 3.1e-4 degrees, and more than twelve change nothing in float32."""

_ROOT_CHILDREN = [1, 2, 3]
_LEFT_HIP, _RIGHT_HIP, _SPINE1 = _ROOT_CHILDREN


def _at(points: Float[Tensor, "n j *d"], joints: Sequence[int]) -> Float[Tensor, "n k *d"]:
    """Some joints, by the operator that graphs and engines have for it."""
    return points.index_select(1, torch.tensor(joints, device=points.device))


def best_rotation(rest: Float[Tensor, "n k 3"], posed: Float[Tensor, "n k 3"]) -> Float[Tensor, "n 3 3"]:
    """The rotations that bring vectors closest to others, in the sense of least squares (Wahba's problem).

    The quaternion is the dominant eigenvector of Davenport's 4 x 4 matrix (Davenport, "A Vector Approach to the Algebra of
    Rotations with Applications", NASA TN D-4696, 1968), found by squaring the matrix until the others are gone.
    """
    sums = rest.transpose(1, 2) @ posed
    xx, xy, xz, yx, yy, yz, zx, zy, zz = sums.flatten(1).unbind(1)
    matrix = torch.stack(
        [
            *(xx + yy + zz, yz - zy, zx - xz, xy - yx),
            *(yz - zy, xx - yy - zz, xy + yx, zx + xz),
            *(zx - xz, xy + yx, yy - xx - zz, yz + zy),
            *(xy - yx, zx + xz, yz + zy, zz - xx - yy),
        ],
        dim=-1,
    ).unflatten(-1, (4, 4))
    # No eigenvalue is below -sqrt(3) times the norm: with that added, the largest one is the dominant one.
    size = sums.square().sum((1, 2)).sqrt().clamp_min(ZERO_LENGTH**2)[:, None, None]
    # A diagonal by its mask: PyTorch's own becomes operators with shapes that depend on data.
    mask = torch.eye(4, dtype=rest.dtype, device=rest.device)
    matrix = matrix / size + 3**0.5 * mask
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
        matrix = matrix / (matrix * mask).sum((1, 2), keepdim=True)
    # What is left is q qᵀ; its longest column is the most exact one.
    longest = (matrix * mask).sum(2).argmax(1)
    w, x, y, z = normalize(matrix.gather(2, longest[:, None, None].expand(-1, 4, 1)).squeeze(2), 1e-12).unbind(1)
    rotations: Tensor = torch.stack(
        [
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        ],
        dim=1,
    ).unflatten(1, (3, 3))
    return rotations


def fitted_root(joints: Float[Tensor, "n 29 3"], rest: Float[Tensor, "n 29 3"]) -> Float[Tensor, "n 3 3"]:
    """The root's rotation that fits both hips and the lowest spine joint best."""
    return best_rotation(_at(rest, _ROOT_CHILDREN) - rest[:, :1], _at(joints, _ROOT_CHILDREN) - joints[:, :1])


def plain_root(joints: Float[Tensor, "n 29 3"], rest: Float[Tensor, "n 29 3"]) -> Float[Tensor, "n 3 3"]:
    """The root's rotation by the spine's bone first, then about it by the hips' middle (HybrIK's while it trains)."""
    spine_rest, spine = rest[:, _SPINE1] - rest[:, 0], joints[:, _SPINE1] - joints[:, 0]
    first = _guarded_swing(spine_rest, spine)
    axis = spine / (length(spine) + _GUARD)

    def across(points: Tensor) -> Tensor:
        return (points[:, _LEFT_HIP] + points[:, _RIGHT_HIP]) / 2 - points[:, 0]

    def flat(vectors: Tensor) -> Tensor:
        return vectors - (vectors * axis).sum(-1, keepdim=True) * axis

    return _guarded_swing(flat((first @ across(rest).unsqueeze(-1)).squeeze(-1)), flat(across(joints))) @ first


def bend(
    joints: Float[Tensor, "n 29 3"],
    rest: Float[Tensor, "n 29 3"],
    twist: Float[Tensor, "n 23 2"],
    root: Float[Tensor, "n 3 3"],
    tolerance: float | None = TOLERANCE,
) -> Float[Tensor, "n 24 3 3"]:
    """Global rotations of a skeleton.

    Args:
        joints: Posed joints, metres, in any frame.
        rest: Joints of the same body in the rest pose, metres.
        twist: Cosine and sine of the turn about the rest bone, for joints 1 to 23; of any positive length.
        root: The root's rotation.
        tolerance: Metres up to which a bone is turned to its child's place; None: bones keep their predicted directions.

    Returns:
        Global rotations of joints 0 to 23 in the frame of ``joints``.
    """
    joints = joints - joints[:, :1] + rest[:, :1]
    cosine, sine = normalize(twist).unbind(-1)
    # By joint: what the levels above have found.
    rotations, places = {0: root}, {0: rest[:, 0]}
    for level in LEVELS:
        parents, children = [PARENTS[joint] for joint in level], [MAIN_CHILDREN[joint - 1] for joint in level]
        above = torch.stack([rotations[parent] for parent in parents], dim=1)
        start = torch.stack([places[parent] for parent in parents], dim=1)
        start = start + (above @ (_at(rest, level) - _at(rest, parents)).unsqueeze(-1)).squeeze(-1)
        bone = _at(rest, children) - _at(rest, level)
        target = _at(joints, children) - _at(joints, level)
        if tolerance is not None:
            straight = target * (length(bone) / length(target).clamp_min(ZERO_LENGTH))
            reached = _at(joints, children) - start
            target = torch.where(length(reached - straight) > tolerance, straight, reached)
        own = [joint - 1 for joint in level]
        turn = _swing(bone, (above.transpose(-2, -1) @ target.unsqueeze(-1)).squeeze(-1))
        turn = turn @ rotation_about_axis(normalize(bone), _at(cosine, own), _at(sine, own))
        turned = above @ turn
        for index, joint in enumerate(level):
            rotations[joint], places[joint] = turned[:, index], start[:, index]
    return torch.stack([rotations[joint] for joint in range(len(rotations))], dim=1)


_GUARD = 1e-8
"""What the authors add to lengths before they divide by them. The lever of the hips' middle is about a centimetre, so
products of two such lengths feel it: the scale that is found by this root would differ by up to 2.4e-3 without."""


def _guarded_swing(start: Float[Tensor, "n 3"], end: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """The smallest rotations between vectors, with the authors' guards; for short vectors not quite rotations."""
    axis = cross(start, end)
    sine, both = length(axis), length(start) * length(end) + _GUARD
    generator = skew(axis / (sine + _GUARD))
    identity = torch.eye(3, dtype=start.dtype, device=start.device)
    cosine = (start * end).sum(-1, keepdim=True) / both
    return identity + (sine / both).unsqueeze(-1) * generator + (1 - cosine).unsqueeze(-1) * (generator @ generator)


def _swing(start: Float[Tensor, "... 3"], end: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """The smallest rotations between directions; none where they are opposite or have no length."""
    start, end = normalize(start), normalize(end)
    axis = cross(start, end)
    sine, cosine = length(axis), (start * end).sum(-1, keepdim=True)
    generator = skew(axis / sine.clamp_min(1e-8))
    identity = torch.eye(3, dtype=start.dtype, device=start.device)
    return identity + sine.unsqueeze(-1) * generator + (1 - cosine).unsqueeze(-1) * (generator @ generator)
