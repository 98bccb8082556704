"""BVH, which animation programs read: a skeleton, and a line of positions and angles for every frame.

Meredith and Maddock, "Motion Capture File Formats Explained", 2001, section 2.3. Lengths are centimetres; y is up and
z towards the viewer, as in glTF. Angles are degrees, R = Rz Rx Ry. The rest pose is SMPL's T-pose.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import NDArray

from glnet_infer.files import replace_file
from glnet_infer.results.gltf import TO_GLTF
from glnet_infer.results.resampling import SteadyTrack
from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, PARENTS

_UNIT = 100.0
"""Centimetres of a metre."""


def write_bvh(path: str | PathLike[str], person: SteadyTrack) -> None:
    """Write one person's track.

    Raises:
        OutputError: The file cannot be written.
    """
    lines: list[str] = ["HIERARCHY"]
    order: list[int] = []
    _describe(0, "", person.rest * _UNIT, lines, order)
    rotations = person.rotations.copy()
    rotations[:, 0] = TO_GLTF[:, None] * rotations[:, 0]
    angles = _zxy(rotations[:, order])
    rows = np.concatenate([person.roots * TO_GLTF * _UNIT, angles.reshape(len(angles), -1)], axis=1)
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / person.rate:.9g}"]
    pattern = " ".join(["%.6f"] * rows.shape[1])
    # Adding zero turns -0 into 0.
    lines += [pattern % tuple(row) for row in (rows.round(6) + 0.0).tolist()]
    replace_file(path, ("\n".join(lines) + "\n").encode("ascii"))


def _describe(joint: int, indent: str, rest: NDArray[np.float64], lines: list[str], order: list[int]) -> None:
    """Add a joint, and those below it."""
    parent = PARENTS[joint]
    offset = np.zeros(3) if parent < 0 else rest[joint] - rest[parent]
    numbers = " ".join(f"{value:.6f}" for value in (offset.round(6) + 0.0).tolist())
    if joint >= BODY_JOINTS:  # the ends of the skeleton do not turn
        lines += [f"{indent}End Site", f"{indent}{{", f"{indent}  OFFSET {numbers}", f"{indent}}}"]
        return
    order.append(joint)
    position = "" if joint else "Xposition Yposition Zposition "
    lines += [
        f"{indent}{'JOINT' if joint else 'ROOT'} {JOINT_NAMES[joint]}",
        f"{indent}{{",
        f"{indent}  OFFSET {numbers}",
        f"{indent}  CHANNELS {3 if joint else 6} {position}Zrotation Xrotation Yrotation",
    ]
    for child, above in enumerate(PARENTS):
        if above == joint:
            _describe(child, f"{indent}  ", rest, lines, order)
    lines.append(f"{indent}}}")


def _zxy(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles about z, x and y in degrees, T x J x 3, of R = Rz Rx Ry; without jumps from frame to frame."""
    sine = rotations[..., 2, 1]
    # At a right angle about x, the other two axes are one; all of the turn is then given to z.
    locked = np.abs(sine) > 1 - 1e-9
    z = np.where(
        locked,
        np.arctan2(rotations[..., 1, 0], rotations[..., 0, 0]),
        np.arctan2(-rotations[..., 0, 1], rotations[..., 1, 1]),
    )
    y = np.where(locked, 0.0, np.arctan2(-rotations[..., 2, 0], rotations[..., 2, 2]))
    x = np.arctan2(sine, np.hypot(rotations[..., 0, 1], rotations[..., 1, 1]))
    return np.asarray(np.degrees(np.unwrap(np.stack([z, x, y], axis=-1), axis=0)))
