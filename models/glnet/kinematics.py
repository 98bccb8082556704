"""Kinematics of the 29-joint skeleton: joint positions to rotations and back, by tree level.

Frames: a joint's *global* rotation maps rest-pose directions to the posed frame; its *local* rotation is relative to its
parent. SMPL numbers its joints by depth in the tree, so the levels, put one after the other, are in joint order.

Swing-twist inverse kinematics follows HybrIK (Li et al., CVPR 2021, section 3.2, "naive" variant): every joint's local
rotation is ``swing @ twist``. The swing is the smallest rotation that turns the joint's rest bone into the predicted bone
direction; the twist turns about the rest bone by a predicted angle.

Degenerate skeletons have a fixed answer, never NaN:

- a predicted bone of zero length (less than a micrometre): the joint does not swing;
- a predicted bone opposite to the rest bone: half a turn about :func:`perpendicular` of the rest bone, taken along by the
  parent (within ``sqrt(machine epsilon)`` of opposite);
- a rest bone of zero length counts as pointing along +y;
- a root whose spine or hips give no direction: +y counts as the spine's, and ``perpendicular`` of the spine as the hips'.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glnet.rotations import Constant, cross, length, normalize, outer, rotation_about_axis
from glnet_infer.skeleton import BODY_JOINTS, PARENTS, SKELETON_JOINTS

ZERO_LENGTH = 1e-6
"""Metres. Bones shorter than this have no direction."""

LEFT_HIP, SPINE1, NECK = 1, 3, 12


def _main_child(joint: int) -> int:
    """The child whose bone orients a joint; of spine3's three that is the neck (HybrIK)."""
    children = [child for child, parent in enumerate(PARENTS) if parent == joint]
    return NECK if NECK in children else children[0]


def _levels() -> list[list[int]]:
    """Joints with a rotation, root excluded, grouped by depth."""
    depth = {0: 0}
    for joint in range(1, BODY_JOINTS):
        depth[joint] = depth[PARENTS[joint]] + 1
    return [[j for j in range(1, BODY_JOINTS) if depth[j] == d] for d in range(1, max(depth.values()) + 1)]


MAIN_CHILDREN = tuple(_main_child(joint) for joint in range(1, BODY_JOINTS))
"""For joints 1 to 23, the joint at the far end of the bone that orients it."""

LEVELS = _levels()


_UP = Constant([0.0, 1.0, 0.0])
_TURN_XY = Constant([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
_TURN_YZ = Constant([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
_TORSO = Constant([[-0.5, -0.5, 1.0], [1.0, -1.0, 0.0]])
"""Hips' middle to the lowest spine joint, and right to left hip, from left hip, right hip and that spine joint."""


def perpendicular(directions: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """A unit vector perpendicular to each unit vector: in the xy plane, or in the yz plane for those close to z."""
    close_to_z = directions[..., 2:].abs() > 0.8
    return normalize(
        torch.where(close_to_z, directions @ _TURN_YZ.like(directions), directions @ _TURN_XY.like(directions))
    )


def _direction(vectors: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Unit directions; +y for vectors of zero length."""
    size = length(vectors)
    return torch.where(size > ZERO_LENGTH, vectors / size.clamp_min(ZERO_LENGTH), _UP.like(vectors))


def _torso_frames(joints: Float[Tensor, "n f 29 3"]) -> Float[Tensor, "n f 3 3"]:
    """Orthonormal frames of the pelvis: y from the hips' middle to the lowest spine joint, x towards the left hip."""
    up, across = (_TORSO.like(joints) @ joints[:, :, LEFT_HIP : SPINE1 + 1]).unbind(2)
    y = _direction(up)
    across = across - (across * y).sum(-1, keepdim=True) * y
    size = length(across)
    x = torch.where(size > ZERO_LENGTH, across / size.clamp_min(ZERO_LENGTH), perpendicular(y))
    return torch.stack([x, y, cross(x, y)], dim=-1)


class Kinematics(nn.Module):
    """The skeleton's tree as constant tensors, and the kinematics that use it. Has no parameters."""

    ancestors: Tensor
    main_children: Tensor
    bone_parents: Tensor

    def __init__(self) -> None:
        super().__init__()
        ancestors = torch.zeros(SKELETON_JOINTS, SKELETON_JOINTS - 1)
        for joint in range(1, SKELETON_JOINTS):
            bone = joint
            while bone > 0:
                ancestors[joint, bone - 1] = 1
                bone = PARENTS[bone]
        # Not persistent: the tree is code, not something a checkpoint may change.
        self.register_buffer("ancestors", ancestors, persistent=False)
        self.register_buffer("main_children", torch.tensor(MAIN_CHILDREN), persistent=False)
        self.register_buffer("bone_parents", torch.tensor(PARENTS[1:]), persistent=False)
        for depth, level in enumerate(LEVELS):
            previous = LEVELS[depth - 1] if depth else [0]
            index = [previous.index(PARENTS[joint]) for joint in level]
            # One parent for all broadcasts, and parents in order are taken as they are: no gather needed.
            trivial = len(previous) == 1 or index == list(range(len(previous)))
            self.register_buffer(f"parents_{depth}", None if trivial else torch.tensor(index), persistent=False)

    def _parents(self, depth: int, previous: Float[Tensor, "n p 3 3"]) -> Float[Tensor, "n q 3 3"]:
        """For each joint of a level, its parent's rotation."""
        index = self.get_buffer(f"parents_{depth}")
        return previous if index is None else previous.index_select(1, index)

    def _bones(self, joints: Float[Tensor, "n 29 3"]) -> Float[Tensor, "n 23 3"]:
        """For joints 1 to 23, the bone to the main child."""
        return joints.index_select(1, self.main_children) - joints[:, 1:BODY_JOINTS]

    def inverse(
        self,
        joints: Float[Tensor, "n 29 3"],
        rest_joints: Float[Tensor, "n 29 3"],
        twist: Float[Tensor, "n 23 2"],
    ) -> Float[Tensor, "n 24 3 3"]:
        """Global rotations that turn the rest skeleton's bones into the directions of the posed one's.

        Args:
            joints: Posed joints in metres, in any frame.
            rest_joints: Joints of the same body in the rest pose, metres.
            twist: Cosine and sine of the turn about the rest bone, for joints 1 to 23; of any positive length.

        Returns:
            Global rotations of joints 0 to 23 in the frame of ``joints``.
        """
        rest = _direction(self._bones(rest_joints))
        # Column vectors from here on. A bone without direction becomes zero: then half-way is the moved rest bone itself,
        # and the joint does not swing.
        bones = self._bones(joints)
        size = length(bones)
        targets = torch.where(size > ZERO_LENGTH, bones / size.clamp_min(ZERO_LENGTH), torch.zeros_like(bones)).unsqueeze(
            -1
        )

        # The swing from a to b is a product of two reflections, (I - 2 m mᵀ)(I - 2 a aᵀ) with m the unit half-way vector
        # of a and b. The second one and the twist do not depend on the parent: all joints at once, outside the chain.
        cosine, sine = normalize(twist).unbind(-1)
        reflected = rotation_about_axis(rest, cosine, sine)
        reflected = reflected - 2 * outer(rest, (rest.unsqueeze(-1) * reflected).sum(-2))
        across = cross(rest, perpendicular(rest))
        columns = torch.cat([rest.unsqueeze(-1), across.unsqueeze(-1), reflected], dim=-1)

        opposite = torch.finfo(joints.dtype).eps ** 0.5
        posed_frame, rest_frame = _torso_frames(torch.stack([joints, rest_joints], dim=1)).unbind(1)
        rotations = [(posed_frame @ rest_frame.transpose(-2, -1)).unsqueeze(1)]
        sizes = [len(level) for level in LEVELS]
        for depth, (own, target) in enumerate(zip(columns.split(sizes, 1), targets.split(sizes, 1), strict=True)):
            moved = self._parents(depth, rotations[-1]) @ own
            bone, across, turned = moved.split([1, 1, 3], dim=-1)
            halfway = bone + target
            size = length(halfway, dim=-2)
            mirror = torch.where(size > opposite, halfway / size.clamp_min(opposite), across / length(across, dim=-2))
            rotations.append(turned - 2 * mirror * (mirror * turned).sum(-2, keepdim=True))
        return torch.cat(rotations, dim=1)

    def chain(self, local: Float[Tensor, "n 24 3 3"]) -> Float[Tensor, "n 24 3 3"]:
        """Global rotations from local ones."""
        rotations = [local[:, :1]]
        for depth, level in enumerate(LEVELS):
            rotations.append(self._parents(depth, rotations[-1]) @ local[:, level[0] : level[-1] + 1])
        return torch.cat(rotations, dim=1)

    def unchain(self, rotations: Float[Tensor, "n 24 3 3"]) -> Float[Tensor, "n 24 3 3"]:
        """Local rotations from global ones; the inverse of :meth:`chain`."""
        parents = rotations.index_select(1, self.bone_parents[: BODY_JOINTS - 1])
        return torch.cat([rotations[:, :1], parents.transpose(-2, -1) @ rotations[:, 1:]], dim=1)

    def forward(
        self, rotations: Float[Tensor, "n 24 3 3"], rest_joints: Float[Tensor, "n 29 3"]
    ) -> Float[Tensor, "n 29 3"]:
        """Rigid forward kinematics: posed joints from global rotations, with the root where it rests (metres).

        A joint is the sum of the turned bones above it: one product with the tree's constant ancestor matrix.
        """
        bones = rest_joints[:, 1:] - rest_joints.index_select(1, self.bone_parents)
        turned = (rotations.index_select(1, self.bone_parents) @ bones.unsqueeze(-1)).squeeze(-1)
        return rest_joints[:, :1] + self.ancestors @ turned

    def twist(self, rotations: Float[Tensor, "n 24 3 3"], rest_joints: Float[Tensor, "n 29 3"]) -> Float[Tensor, "n 23 2"]:
        """Cosine and sine of each local rotation's turn about its rest bone: what :meth:`inverse` needs to return it."""
        rest = _direction(self._bones(rest_joints))
        local = self.unchain(rotations)[:, 1:]
        bone = (local @ rest.unsqueeze(-1)).squeeze(-1)
        halfway = rest + bone
        size = length(halfway)
        opposite = torch.finfo(rest.dtype).eps ** 0.5
        across = cross(rest, perpendicular(rest))
        mirror = torch.where(size > opposite, halfway / size.clamp_min(opposite), across)
        # The twist is swingᵀ @ local, and reflections are their own inverse. Seen from the rest bone, it turns `across`.
        turned = (local @ across.unsqueeze(-1)).squeeze(-1)
        turned = turned - 2 * mirror * (mirror * turned).sum(-1, keepdim=True)
        turned = turned - 2 * rest * (rest * turned).sum(-1, keepdim=True)
        cosine = (across * turned).sum(-1)
        sine = (cross(rest, across) * turned).sum(-1)
        return torch.stack([cosine, sine], dim=-1)
