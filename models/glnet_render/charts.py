"""IUV maps of rendered persons: which part of the surface a cell sees (I), and where on that part it is (U, V).

Part segmentation and IUV maps are the dense annotations of Güler et al., "DensePose" (CVPR 2018). Its charts were drawn by
hand for SMPL's mesh and have a licence of their own. These here follow from any body in the SMPL format: U runs along a
part's bone and V around it. Both are exact, because they are computed from the surface point that was rendered.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from glnet.body.smpl import Body
from glnet.kinematics import MAIN_CHILDREN
from glnet_infer.skeleton import BODY_JOINTS

SPINE1 = 3
"""Joint that the pelvis's bone leads to."""

STEEP = 0.8
"""Cosine from which a bone counts as pointing forwards, like those of the feet; its V is then counted from the top."""


def vertex_segments(body: Body) -> UInt8[Tensor, " v"]:
    """The part of every vertex: the joint that it follows most."""
    return body.weights.argmax(-1).to(torch.uint8)


class Charts(nn.Module):
    """U and V on the 24 parts of a body.

    U is the way along the part's bone, from 0 at its first vertex to 1 at its last. V is the angle around the bone as a
    share of a turn: 0.5 at the front, or at the top of feet. 0 and 1 are the same line, at the back or at the sole.

    Args:
        body: The body whose mean shape, in its rest pose, is charted.
    """

    origins: Tensor
    axes: Tensor
    first: Tensor
    extent: Tensor

    def __init__(self, body: Body) -> None:
        super().__init__()
        template = body.template.view(-1, 3)
        joints = body.rest_joints(template.new_zeros(1, body.shapes.shape[0]))[0]
        bones = nn.functional.normalize(joints[[SPINE1, *MAIN_CHILDREN]] - joints[:BODY_JOINTS], dim=-1)
        forwards, upwards = bones.new_tensor([0.0, 0.0, 1.0]), bones.new_tensor([0.0, 1.0, 0.0])
        zero = torch.where(bones[:, 2:].abs() > STEEP, upwards, forwards)
        zero = nn.functional.normalize(zero - (zero * bones).sum(-1, keepdim=True) * bones, dim=-1)
        axes = torch.stack([bones, zero, torch.linalg.cross(bones, zero)], dim=1)
        member = nn.functional.one_hot(vertex_segments(body).long(), BODY_JOINTS).T.bool()  # 24 x V
        count = member.sum(1, keepdim=True)
        # Bones run near the surface in places, such as the back; the middle of the part's vertices lies inside.
        origins = torch.where(count > 0, member.to(template) @ template / count.clamp_min(1), joints[:BODY_JOINTS])
        along = ((template - origins[:, None]) * bones[:, None]).sum(-1)
        first, last = along.where(member, torch.inf).amin(1), along.where(member, -torch.inf).amax(1)
        self.register_buffer("origins", origins, persistent=False)
        self.register_buffer("axes", axes, persistent=False)
        self.register_buffer("first", first.where(count[:, 0] > 0, 0), persistent=False)
        self.register_buffer("extent", (last - first).where(count[:, 0] > 0, 1).clamp_min(1e-6), persistent=False)

    def forward(self, segments: UInt8[Tensor, "*cells"], places: Float[Tensor, "*cells 3"]) -> Float[Tensor, "*cells 2"]:
        """U and V, both from 0 to 1.

        Args:
            segments: Parts, 0 to 23; cells of other values get numbers that mean nothing.
            places: Points of the surface on the mean body in its rest pose, metres.
        """
        part = segments.clamp(max=BODY_JOINTS - 1).long()
        along, up, across = (self.axes[part] @ (places - self.origins[part]).unsqueeze(-1)).squeeze(-1).unbind(-1)
        u = ((along - self.first[part]) / self.extent[part]).clamp(0, 1)
        return torch.stack([u, torch.atan2(across, up) / (2 * torch.pi) + 0.5], dim=-1)
