"""SMPL decoding: blend shapes and linear blend skinning, in float32 and without data-dependent control flow.

Loper et al., "SMPL: A Skinned Multi-Person Linear Model", 2015, section 3.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from glnet.body.data import BodyData
from glnet.kinematics import Kinematics
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS


class PosedBody(NamedTuple):
    """A body in pose.

    Attributes:
        vertices: N x V x 3, metres.
        joints: N x 29 x 3, metres: SMPL's 24 joints and the five leaves, which follow their parents rigidly.
    """

    vertices: Tensor
    joints: Tensor


class Body(nn.Module):
    """An SMPL-format body on the model's device. Has no parameters."""

    template: Tensor
    shapes: Tensor
    poses: Tensor | None
    joint_template: Tensor
    joint_shapes: Tensor
    weights: Tensor

    def __init__(self, data: BodyData) -> None:
        super().__init__()
        self.data = data
        self.kinematics = Kinematics()
        # Joints are linear in the betas, so the regressor is applied to template and blend shapes once.
        rest = np.concatenate([data.joint_regressor @ data.v_template, data.v_template[data.leaf_vertices]])
        directions = np.concatenate(
            [np.einsum("jv,vcb->jcb", data.joint_regressor, data.shapedirs), data.shapedirs[data.leaf_vertices]]
        )
        self._constant("template", data.v_template.reshape(1, -1))
        self._constant("shapes", data.shapedirs.reshape(-1, data.shapedirs.shape[-1]).T)
        self._constant("poses", None if data.posedirs is None else data.posedirs.reshape(-1, data.posedirs.shape[-1]).T)
        self._constant("joint_template", rest.reshape(1, -1))
        self._constant("joint_shapes", directions.reshape(-1, directions.shape[-1]).T)
        self._constant("weights", data.weights)

    def _constant(self, name: str, values: NDArray[np.float64] | None) -> None:
        # Not persistent: the body belongs to its licensor's file, never to a checkpoint.
        tensor = None if values is None else torch.tensor(np.ascontiguousarray(values), dtype=torch.float32)
        self.register_buffer(name, tensor, persistent=False)

    def rest_joints(self, betas: Float[Tensor, "n 10"]) -> Float[Tensor, "n 29 3"]:
        """Joints of the rest pose, metres."""
        joints: Tensor = (self.joint_template + betas @ self.joint_shapes).unflatten(-1, (SKELETON_JOINTS, 3))
        return joints

    def forward(
        self,
        rotations: Float[Tensor, "n 24 3 3"],
        local_rotations: Float[Tensor, "n 24 3 3"],
        betas: Float[Tensor, "n 10"],
        rest_joints: Float[Tensor, "n 29 3"],
    ) -> PosedBody:
        """Pose the body about its root joint.

        Args:
            rotations: Global rotations (:meth:`glnet.kinematics.Kinematics.chain` of the local ones).
            local_rotations: Rotations relative to the parent, SMPL's pose; pose blend shapes use them.
            betas: Shape, in standard deviations.
            rest_joints: ``self.rest_joints(betas)``, which the caller has at hand.

        Returns:
            Vertices and joints in the frame of ``rotations``, with joint 0 where it rests, as SMPL has it.
        """
        shaped = self.template + betas @ self.shapes
        if self.poses is not None:
            identity = torch.eye(3, dtype=betas.dtype, device=betas.device)
            shaped = shaped + (local_rotations[:, 1:] - identity).flatten(1) @ self.poses
        joints = self.kinematics(rotations, rest_joints)
        rest, posed = rest_joints[:, :BODY_JOINTS], joints[:, :BODY_JOINTS]
        shift = posed - (rotations @ rest.unsqueeze(-1)).squeeze(-1)
        transforms = torch.cat([rotations, shift.unsqueeze(-1)], dim=-1)
        blended = (self.weights @ transforms.flatten(2)).unflatten(-1, (3, 4))
        vertices = (blended[..., :3] * shaped.unflatten(-1, (-1, 1, 3))).sum(-1) + blended[..., 3]
        return PosedBody(vertices, joints)

    def pose(self, local_rotations: Float[Tensor, "n 24 3 3"], betas: Float[Tensor, "n 10"]) -> PosedBody:
        """Pose the body from SMPL's own parameters."""
        rotations = self.kinematics.chain(local_rotations)
        posed: PosedBody = self(rotations, local_rotations, betas, self.rest_joints(betas))
        return posed
