"""A film of rendered persons with exact truth: two walk to and fro and cross, one stands and waves.

One camera that does not move, a textured background, every frame computed from its time: the same clip comes out of the
same seed. It is what the tests of tracks and motion measure against.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glnet.body.smpl import Body
from glnet_infer.camera import Intrinsics
from glnet_infer.files import make_directory
from glnet_infer.results.formats import write_npz
from glnet_infer.skeleton import BODY_JOINTS
from glnet_infer.video.writers import VideoWriter
from glnet_render.appearance import Wardrobe
from glnet_render.backgrounds import procedural
from glnet_render.limits import AXES, INDEX, JointAngles, axis_rotation
from glnet_render.placement import project
from glnet_render.poses import shapes
from glnet_render.randomness import Draw
from glnet_render.renderer import Rasterizer

RATE = 30.0
"""Frames per second."""

_PERSONS = 3
_SPEED = 1.25
"""Metres per second; with one stride a second, legs of the demo body's length hardly slide."""

_CAMERA_HEIGHT, _PITCH = 1.5, 5.0
"""Metres above the ground, and degrees by which the camera looks down."""

_TURN = 1.0
"""Seconds that a walker takes to turn round, on a half circle."""

_STEP = 1 / 240
"""Seconds between the points of a walker's path, which is summed up from its velocity."""


class _Walk(NamedTuple):
    """A loop of two straight lines and two half circles.

    Attributes:
        straight: Seconds on each straight line.
        depth: Metres from the camera to the farther line.
        heading: 1 to begin to the right, -1 to the left.
    """

    straight: float
    depth: float
    heading: int


# Lanes are apart, so that nobody walks through anybody. Walkers pass the middle after one second.
_WALKS = (_Walk(2.0, 5.4, 1), _Walk(2.6, 7.0, -1))
_WAVER = (0.75, 8.2)
"""Metres to the right, and away."""


class ClipFrame(NamedTuple):
    """One frame and the truth about its P persons, in the order of their numbers.

    Attributes:
        image: H x W x 3 uint8, BGR.
        time: Seconds.
        boxes: P x 4, the extent of the whole body, x1, y1, x2, y2 in pixels; hidden parts count, and it may reach over
            the image's edge.
        rotations: P x 24 x 3 x 3, local rotations, the root's relative to the camera.
        translation: P x 3, metres, SMPL's convention.
        joints: P x 29 x 3, metres, camera coordinates.
        keypoints: P x 29 x 2, pixels.
        visible: P, the share of a person's pixels that no nearer person hides.
    """

    image: NDArray[np.uint8]
    time: float
    boxes: NDArray[np.float64]
    rotations: NDArray[np.float64]
    translation: NDArray[np.float64]
    joints: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    visible: NDArray[np.float64]


class Clip:
    """A film.

    Args:
        body: Body of all persons, who differ in shape and clothes.
        seconds: Length.
        width: Width of the images in pixels.
        height: Height of the images in pixels; at most the width.
        seed: Seed of shapes, clothes, light and background.

    Attributes:
        size: Width and height in pixels.
        times: Seconds, of the frames.
        intrinsics: The camera: what :meth:`Intrinsics.guess` says of such an image.
    """

    def __init__(self, body: Body, *, seconds: float = 2.0, width: int = 640, height: int = 360, seed: int = 7) -> None:
        self._body, self._seed = body, seed
        self.size = self._width, self._height = width, height
        self.times = np.arange(round(seconds * RATE)) / RATE
        self.intrinsics = Intrinsics.guess(width, height)
        self._draw = Draw(torch.Generator())
        self._draw.generator.manual_seed(seed)
        self._betas = shapes(self._draw, _PERSONS)
        self._background = self._middle(procedural(self._draw, 1, width))[0]
        self._angles = JointAngles(torch.device("cpu"))
        # The renderer's images are square; the film is their middle.
        self._rasterizer = Rasterizer(torch.tensor(body.data.faces), width)
        self._wardrobe = Wardrobe(body, torch.device("cpu"))
        focal = self.intrinsics.fx / width
        self._cameras = torch.tensor([[focal, focal, 0.0, 0.0]]).repeat(_PERSONS, 1)
        self._paths = [_path(walk, seconds) for walk in _WALKS]

    @property
    def betas(self) -> NDArray[np.float64]:
        """P x 10, the persons' shapes, standard deviations."""
        return self._betas.double().numpy()

    def frames(self) -> Iterator[ClipFrame]:
        """The frames in order."""
        for time in self.times.tolist():
            yield self._frame(time)

    @torch.no_grad()
    def _frame(self, time: float) -> ClipFrame:
        rotations, root = self._poses(time)
        rest = self._body.rest_joints(self._betas)
        posed = self._body.pose(rotations, self._betas)
        # On the ground with the lowest point of the soles.
        up = _camera_axes()[:, 1]
        lowest = ((posed.vertices - rest[:, :1]) @ up).amin(1)
        root = root - lowest[:, None] * up
        translation = root - rest[:, 0]
        vertices, joints = (points + translation[:, None] for points in posed)
        image, visible = self._picture(rotations, vertices)
        corners, keypoints = (self._pixels(points) for points in (vertices, joints))
        return ClipFrame(
            image=image,
            time=time,
            boxes=np.concatenate([corners.min(1), corners.max(1)], axis=1),
            rotations=rotations.double().numpy(),
            translation=translation.double().numpy(),
            joints=joints.double().numpy(),
            keypoints=keypoints,
            visible=visible,
        )

    def _pixels(self, points: Tensor) -> NDArray[np.float64]:
        return self.intrinsics.project(points.double().numpy())

    def _poses(self, time: float) -> tuple[Tensor, Tensor]:
        """Local rotations, P x 24 x 3 x 3, and where on the ground the persons are, P x 3 in camera coordinates."""
        angles = torch.zeros(_PERSONS, BODY_JOINTS, AXES)
        yaws, places = [], []
        for person, path in enumerate(self._paths):
            x, z, yaw = (float(np.interp(time, path[:, 0], path[:, column])) for column in (1, 2, 3))
            _walk(angles[person], time + 0.3 * person)
            yaws.append(yaw)
            places.append((x, -_CAMERA_HEIGHT, -z))
        _wave(angles[-1], time)
        yaws.append(-8.0)
        places.append((_WAVER[0], -_CAMERA_HEIGHT, -_WAVER[1]))
        local = self._angles.rotations(self._angles.clamp(angles))
        axes = _camera_axes()
        local[:, 0] = axes @ axis_rotation(1, torch.tensor(yaws)) @ local[:, 0]
        return local, torch.tensor(places) @ axes.T

    def _picture(self, rotations: Tensor, vertices: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        # The same numbers for every frame: clothes and lamps stay, and only what moves changes its light.
        self._draw.generator.manual_seed(self._seed)
        look = self._wardrobe.dress(self._draw, self._body.kinematics.chain(rotations), self._betas)
        fragments = self._rasterizer(project(vertices, self._cameras), vertices[..., 2])
        size = self._width
        colors, coverage = fragments.resolve(self._wardrobe.shade(look, fragments, size**2), _PERSONS, size)
        colors, coverage = self._middle(colors.clamp(max=1)), self._middle(coverage)
        image, hidden = self._background, torch.zeros_like(coverage[0])
        visible = np.zeros(_PERSONS)
        nearest_first = vertices[..., 2].mean(1).argsort().tolist()
        for person in nearest_first:
            share = (coverage[person] * (1 - hidden)).sum() / coverage[person].sum().clamp(min=1)
            visible[person] = float(share)
            hidden = torch.maximum(hidden, coverage[person])
        for person in reversed(nearest_first):
            image = colors[person] + image * (1 - coverage[person])
        pixels = (image * 255).round().to(torch.uint8).numpy()
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8), visible

    def _middle(self, images: Tensor) -> Tensor:
        """The film's part of square images, N x W x W x C."""
        top = (self._width - self._height) // 2
        return images[:, top : top + self._height]


def save_clip(clip: Clip, folder: Path) -> None:
    """Write ``clip.mp4`` and ``truth.npz``: the fields of :class:`ClipFrame` but the image, stacked, and the clip's own.

    Raises:
        OutputError: The folder cannot be written.
    """
    make_directory(folder)
    frames = []
    width, height = clip.size
    with VideoWriter(folder / "clip.mp4", width=width, height=height, rate=RATE) as writer:
        for frame in clip.frames():
            writer.write(frame.image, frame.time)
            frames.append(frame[1:])
    truth = dict(zip(ClipFrame._fields[1:], map(np.stack, zip(*frames, strict=True)), strict=True))
    truth |= {"betas": clip.betas, "intrinsics": clip.intrinsics.matrix}
    write_npz(folder / "truth.npz", truth)


def _camera_axes() -> Tensor:
    """From a world with x right, y up and z towards the camera to the camera's frame, 3 x 3."""
    return axis_rotation(0, torch.tensor(_PITCH)) @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))


def _path(walk: _Walk, seconds: float) -> NDArray[np.float64]:
    """Points of a walk: time, metres to the right, metres away, and yaw in degrees; in the middle after one second."""
    times = np.arange(-1, seconds + 2 * _STEP, _STEP)
    half = walk.straight + _TURN
    # So that the middle of the first straight line is passed at one second.
    phase = times - 1 + walk.straight / 2
    rounds, rest = np.divmod(phase, half)
    turned = rounds + np.clip((rest - walk.straight) / _TURN, 0, 1)
    yaw = walk.heading * (90 - 180 * turned)
    velocity = _SPEED * np.stack([np.sin(np.radians(yaw)), -np.cos(np.radians(yaw))], axis=1)
    places = np.cumsum(velocity, axis=0) * _STEP
    middle = np.array([np.interp(1.0, times, column) for column in places.T])
    places += np.array([0, walk.depth]) - middle
    return np.column_stack([times, places, yaw])


def _walk(angles: Tensor, time: float) -> None:
    """Set the angles of a person, 24 x 4, to those of a walk with one stride a second."""
    for side, name in enumerate(("left", "right")):
        phase = 2 * np.pi * (time + side / 2)
        swing, forward = np.sin(phase), np.cos(phase)
        _set(angles, f"{name}_hip", a=-22 * swing - 4, c=2)
        _set(angles, f"{name}_knee", a=8 + 42 * max(forward, 0.0) ** 2)
        _set(angles, f"{name}_ankle", a=-4 + 8 * max(-forward, 0.0))
        _set(angles, f"{name}_shoulder", a=20 * swing, c=-68)
        _set(angles, f"{name}_elbow", b=-18 + 8 * swing)
    sway = float(np.sin(2 * np.pi * time))
    _set(angles, "spine1", b=-3 * sway)
    _set(angles, "spine3", b=5 * sway)


def _wave(angles: Tensor, time: float) -> None:
    """Set the angles of a person, 24 x 4, who stands and waves the left hand."""
    swing = float(np.sin(2 * np.pi * 1.4 * time))
    _set(angles, "left_collar", c=12)
    _set(angles, "left_shoulder", b=-20, c=25 + 6 * swing, t=-65)
    _set(angles, "left_elbow", b=-75 + 28 * swing)
    _set(angles, "right_shoulder", a=4, c=-72)
    _set(angles, "right_elbow", b=-14)
    for name in ("left", "right"):
        _set(angles, f"{name}_hip", c=6)
    _set(angles, "pelvis", c=1.5 * float(np.sin(2 * np.pi * 0.5 * time)))


def _set(angles: Tensor, name: str, **degrees: float) -> None:
    for axis, value in degrees.items():
        angles[INDEX[name], "abct".index(axis)] = value
