"""GLNet's answer as a posed mesh: the decoder, and the module that is exported."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet.estimate import Estimate, default_cameras, estimate_from_joints, lift, viewing_rotations
from glnet.network import GLNet
from glnet.recovery import MeshRecovery, Recovery
from glnet.rotations import rotation_from_6d, rotation_from_vector, rotation_to_6d
from glnet.sampling import Sampler


class DecodedBody(NamedTuple):
    """An estimate as a body in camera coordinates, metres."""

    vertices: Tensor
    joints: Tensor
    rotations: Tensor
    translation: Tensor


class Decoder(nn.Module):
    """From an estimate to a posed body in front of the camera. All float32, no control flow, no SVD."""

    def __init__(self, config: GLNetConfig, body: Body) -> None:
        super().__init__()
        self.depth_range = config.depth_range
        self.swing_twist = config.swing_twist
        self.body = body

    def forward(self, estimate: Estimate, cameras: Float[Tensor, "n 4"]) -> DecodedBody:
        """Decode an estimate; the root joint lies where its root keypoint and scale put it."""
        rest = self.body.rest_joints(estimate.betas)
        lifted = lift(estimate, cameras, self.depth_range)[:, : rest.shape[1]]
        rotations, local = self._rotations(estimate, lifted, rest, cameras)
        posed = self.body(rotations, local, estimate.betas, rest)
        translation = lifted[:, 0] - rest[:, 0]
        offset = translation.unsqueeze(1)
        return DecodedBody(posed.vertices + offset, posed.joints + offset, local, translation)

    def pose(self, estimate: Estimate, cameras: Float[Tensor, "n 4"]) -> Float[Tensor, "n 24 3 3"]:
        """The local rotations alone, which need no mesh."""
        rest = self.body.rest_joints(estimate.betas)
        lifted = lift(estimate, cameras, self.depth_range)[:, : rest.shape[1]]
        return self._rotations(estimate, lifted, rest, cameras)[1]

    def _rotations(self, estimate: Estimate, lifted: Tensor, rest: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor]:
        """Global and local rotations."""
        kinematics = self.body.kinematics
        if self.swing_twist:
            rotations = kinematics.inverse(lifted, rest, estimate.rotation)
            return rotations, kinematics.unchain(rotations)
        local = rotation_from_6d(estimate.rotation)
        local = torch.cat([viewing_rotations(cameras).unsqueeze(1) @ local[:, :1], local[:, 1:]], dim=1)
        return kinematics.chain(local), local

    def encode(
        self,
        local_rotations: Float[Tensor, "n 24 3 3"],
        betas: Float[Tensor, "n 10"],
        translation: Float[Tensor, "n 3"],
        cameras: Float[Tensor, "n 4"],
    ) -> Estimate:
        """The estimate that decodes to a given posed body, for labels and for the mean that networks start from."""
        kinematics = self.body.kinematics
        rest = self.body.rest_joints(betas)
        rotations = kinematics.chain(local_rotations)
        joints = kinematics(rotations, rest) + translation.unsqueeze(1)
        if self.swing_twist:
            rotation = kinematics.twist(rotations, rest)
        else:
            root = viewing_rotations(cameras).transpose(-2, -1).unsqueeze(1) @ local_rotations[:, :1]
            rotation = rotation_to_6d(torch.cat([root, local_rotations[:, 1:]], dim=1))
        return estimate_from_joints(joints, rotation, betas, cameras, self.depth_range)


class GLNetRecovery(MeshRecovery):
    """GLNet and its decoder."""

    network: GLNet

    def __init__(self, network: GLNet, body: Body) -> None:
        super().__init__()
        self.network = network
        self.decoder = Decoder(network.config, body)
        self.name, self.crop = network.config.name, network.config.crop
        self.keypoints, self.trained_with = network.config.keypoints, network.config.body

    @property
    def body(self) -> Body:
        """See :class:`glnet.recovery.MeshRecovery`; so for all that follows."""
        return self.decoder.body

    def to_document(self) -> dict[str, Any]:
        """Its configuration."""
        return self.network.config.to_dict()

    def use_mixed_precision(self, keep: Sequence[str] = ()) -> None:
        """Put backbone and Local Encoding Module into half precision."""
        self.network.use_mixed_precision(keep)

    @contextmanager
    def sampled_by(self, sampler: Sampler) -> Iterator[None]:
        """Sample part features in another form."""
        encoding = self.network.local_encoding
        before, encoding.sample = encoding.sample, sampler
        try:
            yield
        finally:
            encoding.sample = before

    def margins(self, crops: UInt8[Tensor, "n s s 3"], pixels: Int[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """By how much the most confident pixel's logit exceeds that of another one."""
        logits = self.network(crops).logits.flatten(1)
        chosen = (pixels[:, 1] * self.network.config.grid + pixels[:, 0]).long()
        return torch.sub(logits.amax(1), logits.gather(1, chosen[:, None]).squeeze(1))

    def forward(self, crops: UInt8[Tensor, "n s s 3"], cameras: Float[Tensor, "n 4"]) -> Recovery:
        """Recover one mesh per crop."""
        selection = self.network.select(crops)
        estimate = self.network.layout.split(selection.estimate)
        decoded = self.decoder(estimate, cameras)
        return Recovery(
            vertices=decoded.vertices,
            joints=decoded.joints,
            keypoints_2d=(estimate.keypoints + 0.5) * self.crop.size,
            rotations=decoded.rotations,
            betas=estimate.betas,
            translation=decoded.translation,
            confidence=selection.logit.sigmoid(),
            reference_pixel=selection.pixel.int(),
        )


def standing_estimate(decoder: Decoder, keypoints: int) -> Estimate:
    """A body of mean shape in its rest pose, upright and facing the camera, as large as the crop's padding allows.

    Keypoints beyond the skeleton start at the crop's centre.
    """
    with torch.no_grad():
        betas = torch.zeros(1, 10)
        rest = decoder.body.rest_joints(betas)
        rotations = torch.eye(3).repeat(1, 24, 1, 1)
        # Half a turn about x: the body's y up and z forward become the camera's y down and z away.
        rotations[:, 0] = rotation_from_vector(torch.tensor([[torch.pi, 0.0, 0.0]]))
        height = rest[..., 1].max() - rest[..., 1].min()
        middle = (rest[..., 1].max() + rest[..., 1].min()) / 2 - rest[0, 0, 1]
        cameras = default_cameras(1)
        distance = cameras[0, 0] * height / 0.8  # the body takes 1 / 1.25 of the crop
        root = torch.stack([torch.zeros(()), middle, distance])
        estimate = decoder.encode(rotations, betas, root[None] - rest[:, 0], cameras)
        extra = keypoints - estimate.keypoints.shape[1]
        return estimate._replace(
            keypoints=nn.functional.pad(estimate.keypoints, (0, 0, 0, extra)),
            depths=nn.functional.pad(estimate.depths, (0, extra)),
        )
