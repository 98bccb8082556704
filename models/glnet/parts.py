"""The body parts of the Local Encoding Module, and the joints that each is responsible for.

The poster divides the body into parts but does not list them; the seven are those of the authors' sister works
AdaptivePose (arXiv 2112.13635) and QueryPose (arXiv 2212.07855), spread here over the 29-joint skeleton. Every joint
belongs to exactly one part, and mirroring a body maps parts to parts.
"""

PARTS: dict[str, tuple[int, ...]] = {
    "head": (12, 15, 24),
    "shoulders": (9, 13, 14, 16, 17),
    "left_arm": (18, 20, 22, 25),
    "right_arm": (19, 21, 23, 26),
    "hips": (0, 1, 2, 3, 6),
    "left_leg": (4, 7, 10, 27),
    "right_leg": (5, 8, 11, 28),
}
