"""Joint angles with anatomical limits, and their rotation matrices.

A pose is N x 24 x 4 angles in degrees about the axes of the rest pose (T-pose, y up, facing +z, the person's left at +x),
written for the *left* side: equal angles on both sides make a symmetric pose, and the right side's turns about y and z are
reversed when rotations are made. For each joint ``a, b, c, t``:

- trunk and legs: ``Rx(a) Rz(c) Ry(b)``: bend, lean or abduct, then turn about the bone; t is not used;
- arms, whose rest bones lie along x: ``Rx(a) Ry(b) Rz(c) Rx(t)``: t turns about the bone, b and c move it, a swings the
  hanging arm.

Signs (left side). Hip: -a flexion (thigh forwards), +c abduction, +b outward rotation. Knee: +a flexion. Ankle: +a
plantar flexion. Spine, neck and head: +a forwards. Shoulder: +c raises and -c lowers the arm, -b forwards, -a swings the
hanging arm forwards, +t inward rotation. Elbow: -b flexion, t pronation and supination. Wrist: c extension and flexion,
b deviation.

The ranges are of the order that textbooks give for healthy adults (Boone and Azen, "Normal range of motion of joints in
male subjects", J. Bone Joint Surg. 61-A, 1979, is the usual reference for the limbs), rounded and set by eye where the
mesh folds; the levels of the spine share out the range of the whole. Flexion of elbows and knees starts at 0.
"""

import torch
from torch import Tensor

from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, mirror_order

AXES = 4
INDEX = {name: joint for joint, name in enumerate(JOINT_NAMES[:BODY_JOINTS])}
ARM_JOINTS = tuple(INDEX[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "hand") for side in ("left", "right"))

_SIDED = {
    "hip": ((-125, 25), (-35, 45), (-20, 60), (0, 0)),
    "knee": ((0, 150), (-8, 8), (-3, 3), (0, 0)),
    "ankle": ((-22, 50), (-12, 12), (-15, 15), (0, 0)),
    "foot": ((-35, 15), (0, 0), (0, 0), (0, 0)),
    "collar": ((-4, 4), (-15, 10), (-8, 28), (0, 0)),
    "shoulder": ((-150, 50), (-110, 35), (-84, 82), (-70, 80)),
    "elbow": ((0, 0), (-145, 0), (-2, 2), (-70, 70)),
    "wrist": ((0, 0), (-25, 20), (-70, 65), (-15, 15)),
    "hand": ((0, 0), (-5, 5), (-25, 12), (0, 0)),
}
_CENTRAL = {
    "pelvis": ((-180, 180), (-180, 180), (-180, 180), (0, 0)),
    "spine1": ((-10, 28), (-12, 12), (-12, 12), (0, 0)),
    "spine2": ((-10, 25), (-12, 12), (-10, 10), (0, 0)),
    "spine3": ((-8, 16), (-15, 15), (-9, 9), (0, 0)),
    "neck": ((-25, 25), (-35, 35), (-18, 18), (0, 0)),
    "head": ((-22, 22), (-35, 35), (-15, 15), (0, 0)),
}


def joints_named(name: str) -> list[int]:
    """Indices of a central joint, or of the left and right one of a pair."""
    return [INDEX[name]] if name in INDEX else [INDEX[f"left_{name}"], INDEX[f"right_{name}"]]


def joint_limits() -> Tensor:
    """Least and largest angles in degrees, 24 x 4 x 2. The pelvis is the body's orientation and has no limit."""
    limits = torch.zeros(BODY_JOINTS, AXES, 2)
    for name, ranges in {**_SIDED, **_CENTRAL}.items():
        limits[joints_named(name)] = torch.tensor(ranges, dtype=torch.float32)
    return limits


def mirror_signs() -> Tensor:
    """Signs, 24 x 4, that mirror the angles of a pose after its sides have changed places."""
    signs = torch.ones(BODY_JOINTS, AXES)
    central = [joint for joint, other in enumerate(mirror_order(BODY_JOINTS)) if joint == other]
    signs[central, 1:3] = -1
    return signs


def axis_rotation(axis: int, degrees: Tensor) -> Tensor:
    """Rotations about the x (0), y (1) or z (2) axis, ... x 3 x 3."""
    angle = torch.deg2rad(degrees)
    cosine, sine = angle.cos(), angle.sin()
    one, zero = torch.ones_like(cosine), torch.zeros_like(cosine)
    rows = {
        0: (one, zero, zero, zero, cosine, -sine, zero, sine, cosine),
        1: (cosine, zero, sine, zero, one, zero, -sine, zero, cosine),
        2: (cosine, -sine, zero, sine, cosine, zero, zero, zero, one),
    }[axis]
    rotations: Tensor = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    return rotations


class JointAngles:
    """The constants above on a device: limits, mirroring, rotations."""

    def __init__(self, device: torch.device) -> None:
        self.low, self.high = joint_limits().to(device).unbind(-1)
        self.order = torch.tensor(mirror_order(BODY_JOINTS), device=device)
        self.signs = mirror_signs().to(device)
        sided = torch.ones(BODY_JOINTS, AXES)
        right = [INDEX[name] for name in INDEX if name.startswith("right_")]
        sided[right, 1:3] = -1
        self.sides = sided.to(device)
        is_arm = torch.zeros(BODY_JOINTS, dtype=torch.bool)
        is_arm[list(ARM_JOINTS)] = True
        self.is_arm = is_arm.to(device)[:, None, None]
        is_arm[joints_named("collar")] = True
        self.is_upper_limb = is_arm.to(device)[:, None]

    def clamp(self, angles: Tensor) -> Tensor:
        """Angles within the limits."""
        return torch.minimum(torch.maximum(angles, self.low), self.high)

    def mirror(self, angles: Tensor) -> Tensor:
        """The mirrored pose."""
        return angles[:, self.order] * self.signs

    def rotations(self, angles: Tensor) -> Tensor:
        """Local rotations, N x 24 x 3 x 3, of angles N x 24 x 4."""
        a, b, c, t = (angles * self.sides).unbind(-1)
        x, y, z = axis_rotation(0, a), axis_rotation(1, b), axis_rotation(2, c)
        return torch.where(self.is_arm, x @ y @ z @ axis_rotation(0, t), x @ z @ y)
