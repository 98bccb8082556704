"""Plausible poses and shapes: a mixture of families of poses within joint limits.

Angles are those of :mod:`glnet_render.limits`. Every family draws its own means; noise of all joints is added, then come
the limits. A ``difficulty`` below 1 moves every angle towards a relaxed standing pose, for a curriculum from one pose to
all of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from glnet.estimate import BETAS
from glnet_infer.skeleton import BODY_JOINTS
from glnet_render.limits import AXES, JointAngles, axis_rotation, joints_named
from glnet_render.randomness import Draw

MAXIMUM_BETA = 2.5
"""Largest beta, standard deviations."""

_NOISE = {
    # Standard deviations in degrees about a, b, c, t.
    "hip": (5, 6, 3, 0),
    "knee": (5, 2, 1, 0),
    "ankle": (7, 4, 4, 0),
    "foot": (6, 0, 0, 0),
    "collar": (2, 3, 3, 0),
    "shoulder": (8, 8, 6, 10),
    "elbow": (0, 10, 1, 18),
    "wrist": (0, 7, 14, 6),
    "hand": (0, 2, 8, 0),
    "pelvis": (3, 0, 2, 0),
    "spine1": (3, 4, 3, 0),
    "spine2": (3, 4, 3, 0),
    "spine3": (3, 4, 2, 0),
    "neck": (7, 10, 5, 0),
    "head": (6, 10, 5, 0),
}


class _Pose:
    """Angles of N poses under construction, set by name."""

    def __init__(self, angles: Tensor) -> None:
        self.angles = angles

    def set(self, name: str, **values: Tensor | float) -> None:
        """Set angles of a joint: N x 1 or a number; for a pair N x 2 too, left and right."""
        for axis, value in values.items():
            for side, joint in enumerate(joints_named(name)):
                one = value[:, min(side, value.shape[1] - 1)] if isinstance(value, Tensor) else value
                self.angles[:, joint, "abct".index(axis)] = one

    def bend(self, degrees: Tensor) -> None:
        """Bend the spine forwards by N x 1 degrees, shared out over its three joints."""
        for name, share in (("spine1", 0.4), ("spine2", 0.35), ("spine3", 0.25)):
            self.set(name, a=degrees * share)

    def turn(self, degrees: Tensor) -> None:
        """Turn the shoulders against the hips by N x 1 degrees."""
        for name, share in (("spine1", 0.3), ("spine2", 0.3), ("spine3", 0.4)):
            self.set(name, b=degrees * share)


class PoseSampler:
    """Samples of poses and shapes on a device."""

    def __init__(self, device: torch.device) -> None:
        self.joints = JointAngles(device)
        noise = torch.zeros(BODY_JOINTS, AXES)
        for name, deviations in _NOISE.items():
            noise[joints_named(name)] = torch.tensor(deviations, dtype=torch.float32)
        self.noise = noise.to(device)
        self.families: dict[Callable[[Draw, _Pose], None], float] = {
            _standing: 0.17,
            _walking: 0.2,
            _sitting: 0.15,
            _squatting: 0.09,
            _reaching: 0.15,
            _bending: 0.08,
            _hands_at_body: 0.09,
            _free: 0.07,
        }
        self.weights = tuple(self.families.values())
        base = _Pose(torch.zeros(1, BODY_JOINTS, AXES, device=device))
        _relax(base)
        self.relaxed = base.angles

    def angles(self, draw: Draw, count: int, difficulty: float) -> Tensor:
        """Angles of N poses, N x 24 x 4 degrees, within the joints' limits. The pelvis' angles are the lean of the body."""
        families = []
        for family in self.families:
            pose = _Pose(self.relaxed.repeat(count, 1, 1))
            family(draw, pose)
            families.append(pose.angles)
        every = torch.stack(families)
        rows = torch.arange(count, device=draw.device)
        chosen = draw.choice(count, weights=self.weights)
        # One pose in five has its arms from another family: someone who sits may point at something.
        lent = torch.where(draw.chance(count, probability=0.2), draw.choice(count, weights=self.weights), chosen)
        angles = torch.where(self.joints.is_upper_limb, every[lent, rows], every[chosen, rows])
        angles = angles + draw.normal(*angles.shape) * self.noise
        angles = (
            self.relaxed
            + difficulty * (angles - self.relaxed)
            + (1 - difficulty) * 0.3 * self.noise * draw.normal(*angles.shape)
        )
        angles = self.joints.clamp(angles)
        flipped = draw.chance(count, 1, 1, probability=0.5)
        return torch.where(flipped, self.joints.mirror(angles), angles)

    def rotations(self, angles: Tensor, view: Tensor) -> Tensor:
        """Local rotations, N x 24 x 3 x 3, of angles and of views (:func:`views`): the root's is relative to the camera."""
        local = self.joints.rotations(angles)
        return torch.cat([(view @ local[:, 0]).unsqueeze(1), local[:, 1:]], dim=1)


def views(draw: Draw, count: int, difficulty: float) -> Tensor:
    """Rotations from a standing, upright person's frame (y up, facing +z) to the camera's, N x 3 x 3.

    Any direction around the person is as likely. The camera mostly looks a little down at the person and is held almost
    level; one in ten views is from high above or below, one in twenty held askew.
    """
    yaw = draw.uniform(count, low=-180, high=180)
    pitch = draw.normal(count, mean=7, deviation=12)
    steep = draw.uniform(count, low=-45, high=80)
    pitch = torch.where(draw.chance(count, probability=0.12), steep, pitch)
    roll = draw.normal(count, deviation=4)
    roll = torch.where(draw.chance(count, probability=0.05), draw.normal(count, deviation=40), roll)
    ease = max(1 - difficulty, 0.0)
    yaw = difficulty * yaw + ease * draw.normal(count, deviation=8)
    # Half a turn about x takes y up, z towards the camera to y down, z away. A camera above sees the head tilt towards it.
    upright = axis_rotation(0, 180 + difficulty * pitch)
    return axis_rotation(2, difficulty * roll) @ upright @ axis_rotation(1, yaw)


def shapes(draw: Draw, count: int) -> Tensor:
    """Betas, N x 10: standard normal, the first two (size and build) with heavier tails, all within 2.5."""
    betas = draw.normal(count, BETAS)
    spread = 1 + 0.5 * draw.uniform(count, 2)
    return torch.cat([betas[:, :2] * spread, betas[:, 2:]], dim=1).clamp(-MAXIMUM_BETA, MAXIMUM_BETA)


def _relax(pose: _Pose) -> None:
    """Upright, arms hanging a little away from the body."""
    pose.set("hip", a=-3.0, b=6.0, c=3.0)
    pose.set("knee", a=5.0)
    pose.set("shoulder", c=-66.0, t=5.0)
    pose.set("collar", c=-2.0)
    pose.set("elbow", b=-14.0)
    pose.set("hand", c=-6.0)


def _standing(draw: Draw, pose: _Pose) -> None:
    """Weight on one leg or both, arms hanging or slightly out."""
    count = len(pose.angles)
    shift = draw.uniform(count, 1)
    bent = torch.cat([draw.uniform(count, 1, low=0, high=35) * shift, torch.zeros_like(shift)], dim=1)
    pose.set(
        "hip", a=-3 - 0.6 * bent, c=draw.normal(count, 2, mean=5, deviation=5), b=draw.normal(count, 2, mean=8, deviation=8)
    )
    pose.set("knee", a=5 + bent)
    pose.set("ankle", a=-0.4 * bent)
    pose.set("shoulder", a=draw.normal(count, 2, mean=-4, deviation=14), c=draw.normal(count, 2, mean=-68, deviation=9))
    pose.set("elbow", b=-draw.uniform(count, 2, low=2, high=50))
    pose.turn(draw.normal(count, 1, deviation=10))
    pose.set("neck", b=draw.normal(count, 1, deviation=16))


def _walking(draw: Draw, pose: _Pose) -> None:
    """One phase of a stride, from strolling to running; arms swing against the legs."""
    count = len(pose.angles)
    speed = draw.uniform(count, 1)
    phase = draw.uniform(count, 1, low=0, high=2 * torch.pi)
    both = torch.cat([phase, phase + torch.pi], dim=1)
    swing = (14 + 38 * speed) * both.sin()
    lifted = both.cos().clamp(min=0) * (35 + 75 * speed)
    pose.set("hip", a=-5 - 12 * speed - swing - 0.15 * lifted, c=draw.normal(count, 2, mean=1, deviation=3))
    pose.set("knee", a=6 + 14 * speed + lifted)
    pose.set("ankle", a=0.25 * lifted - 0.25 * swing.clamp(min=0) - 4)
    pose.set("shoulder", a=0.9 * swing - 6 * speed, c=draw.normal(count, 1, mean=-70, deviation=6))
    pose.set("elbow", b=-(12 + 85 * speed.square() + draw.normal(count, 2, deviation=8)).abs())
    pose.set("pelvis", a=12 * speed * draw.uniform(count, 1), b=-0.1 * swing[:, :1])
    pose.bend(8 * speed)
    pose.turn(0.25 * swing[:, :1])


def _sitting(draw: Draw, pose: _Pose) -> None:
    """Sitting on a chair, a stool or the ground; hands on the lap, the knees or beside the body, or one hand raised."""
    count = len(pose.angles)
    lean = draw.normal(count, 1, mean=2, deviation=10)
    hip = draw.uniform(count, 1, low=62, high=112)
    pose.set("pelvis", a=lean)
    spread = draw.uniform(count, 1, low=-2, high=28) + draw.normal(count, 2, deviation=5)
    pose.set("hip", a=-hip - lean + draw.normal(count, 2, deviation=7), c=spread, b=0.4 * spread)
    pose.set("knee", a=draw.uniform(count, 1, low=45, high=120) + draw.normal(count, 2, deviation=14))
    pose.set("ankle", a=draw.normal(count, 2, mean=3, deviation=12))
    pose.bend(draw.uniform(count, 1, low=-8, high=45))
    forward = draw.uniform(count, 1, low=5, high=55) + draw.normal(count, 2, deviation=10)
    pose.set(
        "shoulder",
        a=-forward,
        c=draw.normal(count, 2, mean=-68, deviation=8),
        t=draw.normal(count, 2, mean=25, deviation=22),
    )
    pose.set("elbow", b=-draw.uniform(count, 2, low=15, high=115))


def _squatting(draw: Draw, pose: _Pose) -> None:
    """From a slight to a deep squat, a lunge, or kneeling; arms forwards, on the knees or down."""
    count = len(pose.angles)
    depth = draw.uniform(count, 1, low=0.3, high=1)
    # A lunge: one leg keeps far less bend at the hip than the other.
    lunge = draw.chance(count, 1, probability=0.4) * draw.uniform(count, 1, low=0.5, high=1.15)
    depths = torch.cat([depth, depth * (1 - lunge)], dim=1)
    lean = 35 * depth * draw.uniform(count, 1, low=0.2, high=1) * (1 - 0.7 * lunge)
    pose.set("pelvis", a=lean)
    pose.set(
        "hip",
        a=-110 * depths - 0.4 * lean,
        c=draw.uniform(count, 2, low=2, high=32),
        b=draw.uniform(count, 2, low=0, high=25),
    )
    pose.set("knee", a=130 * depth * (1 - 0.25 * lunge) + draw.normal(count, 2, deviation=6))
    pose.set("ankle", a=-18 * depth)
    pose.bend(draw.uniform(count, 1, low=0, high=40))
    forward = lean + draw.uniform(count, 1, low=-10, high=90) + draw.normal(count, 2, deviation=12)
    pose.set(
        "shoulder",
        a=-forward,
        c=draw.normal(count, 2, mean=-66, deviation=9),
        t=draw.normal(count, 2, mean=15, deviation=20),
    )
    pose.set("elbow", b=-draw.uniform(count, 2, low=5, high=100))


def _reaching(draw: Draw, pose: _Pose) -> None:
    """Arms raised to the side, forwards or overhead, both alike, each on its own, or one alone; legs stand or stride."""
    count = len(pose.angles)
    _standing(draw, pose)
    alike = draw.chance(count, 1, probability=0.4)
    raised = torch.where(alike, draw.uniform(count, 1, low=-45, high=80), draw.uniform(count, 2, low=-60, high=80))
    forwards = torch.where(alike, draw.uniform(count, 1, low=-100, high=20), draw.uniform(count, 2, low=-100, high=20))
    bent = torch.where(alike, draw.uniform(count, 1), draw.uniform(count, 2)).square() * 125
    single = draw.chance(count, 1, probability=0.3)
    down = torch.cat([torch.zeros_like(single), single], dim=1)
    pose.set(
        "shoulder",
        a=draw.normal(count, 2, deviation=10),
        b=torch.where(down, 0.0, forwards),
        c=torch.where(down, -68.0, raised),
        t=draw.normal(count, 2, mean=-10, deviation=25),
    )
    pose.set("collar", c=torch.where(down, -2.0, 4 + 0.25 * raised.clamp(min=0)), b=torch.where(down, 0.0, 0.08 * forwards))
    pose.set("elbow", b=-bent)
    stride = draw.normal(count, 1, deviation=14)
    pose.set("hip", a=torch.cat([-4 - stride, -4 + stride], dim=1), c=draw.uniform(count, 1, low=0, high=24).expand(-1, 2))
    pose.bend(draw.normal(count, 1, deviation=9))
    pose.set("neck", a=draw.normal(count, 1, mean=-5, deviation=10))


def _bending(draw: Draw, pose: _Pose) -> None:
    """Bending over, with straight or slightly bent legs, arms hanging or reaching down, or hands on the thighs."""
    count = len(pose.angles)
    lean = draw.uniform(count, 1, low=15, high=85)
    spine = draw.uniform(count, 1, low=0, high=55)
    knee = draw.uniform(count, 1, low=0, high=45)
    pose.set("pelvis", a=lean, c=draw.normal(count, 1, deviation=6))
    pose.set("hip", a=-lean - 0.5 * knee + draw.normal(count, 2, deviation=8), c=draw.uniform(count, 2, low=0, high=18))
    pose.set("knee", a=knee.expand(-1, 2) + draw.uniform(count, 2, low=0, high=12))
    pose.set("ankle", a=-0.4 * knee)
    pose.bend(spine)
    hang = lean + 0.8 * spine + draw.normal(count, 1, deviation=15) + draw.normal(count, 2, deviation=12)
    pose.set("shoulder", a=-hang, c=draw.normal(count, 2, mean=-70, deviation=8))
    pose.set("elbow", b=-draw.uniform(count, 2, low=2, high=60))
    pose.set("neck", a=draw.normal(count, 1, mean=-8, deviation=12))


def _hands_at_body(draw: Draw, pose: _Pose) -> None:
    """Standing with hands on the hips, crossed before the chest or the lap, or at the face; either arm its own."""
    count = len(pose.angles)
    _standing(draw, pose)
    # Columns: hips, chest, lap, face. Rows: a, c, t of the shoulder, bend of the elbow.
    means = draw.constant(((14, -28, -4, -50), (-48, -62, -70, -58), (62, 40, 42, 22), (82, 98, 52, 132)))
    kind = draw.integers(count, 1, high=4)
    kind = torch.where(draw.chance(count, 2, probability=0.75), kind, draw.integers(count, 2, high=4))
    a, c, t, bend = (means[:, kind] + draw.normal(4, count, 2, deviation=6)).unbind(0)
    pose.set("shoulder", a=a, c=c, t=t)
    pose.set("elbow", b=-bend)


def _free(draw: Draw, pose: _Pose) -> None:
    """Lying, jumping, exercising: any orientation in space, all joints anywhere in the inner part of their range."""
    count = len(pose.angles)
    # Three tilts: on the back or the front, on a side, or any.
    kind = draw.integers(count, 1, high=3)
    back = torch.where(draw.chance(count, 1, probability=0.5), -90.0, 90.0)
    pose.set("pelvis", a=torch.where(kind == 0, back, draw.normal(count, 1, deviation=40)))
    side = torch.where(kind == 1, 90.0, draw.normal(count, 1, deviation=30))
    pose.set("pelvis", c=side, b=draw.uniform(count, 1, low=-180, high=180))
    alike = draw.chance(count, 1, probability=0.4)

    def pair(low: float, high: float) -> Tensor:
        return torch.where(alike, draw.uniform(count, 1, low=low, high=high), draw.uniform(count, 2, low=low, high=high))

    pose.set("hip", a=pair(-110, 15), b=pair(-20, 30), c=pair(-8, 45))
    pose.set("knee", a=pair(0, 1).square() * 135)
    pose.set("ankle", a=pair(-10, 40))
    pose.set("shoulder", a=pair(-40, 20), b=pair(-80, 20), c=pair(-75, 75), t=pair(-40, 40))
    pose.set("elbow", b=-pair(0, 1).square() * 130)
    pose.bend(draw.uniform(count, 1, low=-20, high=50))
    pose.turn(draw.normal(count, 1, deviation=15))
