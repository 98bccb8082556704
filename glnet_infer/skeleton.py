"""The 29-joint skeleton: SMPL's 24 joints and HybrIK's five leaf joints.

Joints 0 to 23 are SMPL's kinematic tree (Loper et al., "SMPL: A Skinned Multi-Person Linear Model", 2015). Joints 24 to
28 close its open ends, so that every joint has a bone to be oriented by (Li et al., "HybrIK", CVPR 2021).
Left and right are the person's own.
"""

JOINT_NAMES: tuple[str, ...] = (
    "pelvis",
    "left_hip",
    "right_hip",
    "spine1",
    "left_knee",
    "right_knee",
    "spine2",
    "left_ankle",
    "right_ankle",
    "spine3",
    "left_foot",
    "right_foot",
    "neck",
    "left_collar",
    "right_collar",
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hand",
    "right_hand",
    "head_top",
    "left_middle_finger",
    "right_middle_finger",
    "left_big_toe",
    "right_big_toe",
)

PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
    15, 22, 23, 10, 11,
)  # fmt: skip

SKELETON_JOINTS = 29
"""SMPL's joints and the leaves."""

BODY_JOINTS = 24
"""Joints that carry a rotation (SMPL's)."""

MIRROR_PAIRS: tuple[tuple[int, int], ...] = (
    (1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23), (25, 26), (27, 28),
)  # fmt: skip
"""Left and right joints that change places when the image is mirrored."""


def mirror_order(joints: int) -> list[int]:
    """For each of the first joints, the one on the other side (itself, where there is none)."""
    order = list(range(joints))
    for left, right in MIRROR_PAIRS:
        if right < joints:
            order[left], order[right] = right, left
    return order


SMPL_LEAF_VERTICES: tuple[int, ...] = (411, 2445, 5905, 3216, 6617)
"""Vertices of SMPL's 6,890-vertex mesh at head top, left and right middle finger, left and right big toe (HybrIK)."""
