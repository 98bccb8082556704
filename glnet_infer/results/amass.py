"""AMASS's ``.npz``, which tools around SMPL read: axis-angle poses at a constant rate, z up.

Mahmood et al., "AMASS: Archive of Motion Capture as Surface Shapes", ICCV 2019. Poses are SMPL-H's: 22 body joints, then 30
of the fingers, which are zero here. SMPL's own two hand joints have no place among them.
"""

from __future__ import annotations

from os import PathLike

import numpy as np

from glnet_infer.results.formats import write_npz
from glnet_infer.results.resampling import SteadyTrack
from glnet_infer.rotations import logarithm

_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From the camera's axes (x right, y down, z forward) to x right, y forward, z up."""

_BODY, _ALL = 22, 52
_SHAPES, _SOFT = 16, 8


def write_amass(path: str | PathLike[str], person: SteadyTrack) -> None:
    """Write one person's track.

    Raises:
        OutputError: The file cannot be written.
    """
    frames = len(person.times)
    rotations = person.rotations.copy()
    rotations[:, 0] = _UP @ rotations[:, 0]
    poses = np.zeros((frames, _ALL, 3))
    poses[:, :_BODY] = logarithm(rotations[:, :_BODY])
    betas = np.zeros(_SHAPES)
    betas[: len(person.betas)] = person.betas
    # Joint 0 does not lie at the origin of the rest pose, and SMPL turns about the joint: the joint is turned, not the
    # translation.
    translation = person.roots @ _UP.T - person.rest[0]
    write_npz(
        path,
        {
            "poses": poses.reshape(frames, -1),
            "trans": translation,
            "betas": betas,
            "dmpls": np.zeros((frames, _SOFT)),
            "gender": np.asarray("neutral"),
            # Both names are in use.
            "mocap_framerate": np.asarray(person.rate),
            "mocap_frame_rate": np.asarray(person.rate),
        },
    )
