"""CLIFF (Li et al., "CLIFF: Carrying Location Information in Full Frames into Human Pose and Shape Estimation", ECCV 2022).

A global feature, three rounds of regression that know where in the image the box lies, rotations in the whole image's
camera.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from glnet.adopted.base import AdoptedNetwork, AdoptedRecovery, no_choice
from glnet.config import PRESETS
from glnet.estimate import BETAS, MINIMUM_DEPTH, MINIMUM_SCALE
from glnet.hrnet import HRNet, initialize
from glnet.network import Normalization
from glnet.recovery import Recovery
from glnet.rotations import rotation_from_6d
from glnet_infer.contract import CropSpec
from glnet_infer.skeleton import BODY_JOINTS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

ROUNDS = 3

_WIDTH = 1024


class CliffNetwork(AdoptedNetwork):
    """HRNet-W48 and the regressor; tensors are called as in the authors' file."""

    half_modules = ("encoder",)

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(self, crop: CropSpec) -> None:
        super().__init__()
        margin = round(crop.size * (1 - crop.aspect) / 2)
        self.columns = slice(margin, crop.size - margin)
        self.normalization = Normalization(IMAGENET_MEAN, IMAGENET_STD)
        backbone = PRESETS["w48"].backbone
        self.encoder = HRNet(backbone)
        sizes = {"pose": BODY_JOINTS * 6, "shape": BETAS, "cam": 3}
        self.fc1 = nn.Linear(backbone.feature_channels + 3 + sum(sizes.values()), _WIDTH)
        self.fc2 = nn.Linear(_WIDTH, _WIDTH)
        for name, size in sizes.items():
            self.add_module(f"dec{name}", nn.Linear(_WIDTH, size))
            self.register_buffer(f"init_{name}", torch.zeros(1, size))

    @torch.no_grad()
    def draw(self, rest: Float[Tensor, "29 3"]) -> None:
        """Upright persons, a little different from crop to crop."""
        initialize(self)
        for name, deviation in (("pose", 0.02), ("shape", 0.02), ("cam", 0.002)):
            nn.init.normal_(self.get_submodule(f"dec{name}").get_parameter("weight"), std=deviation)
        upright = torch.eye(3).repeat(BODY_JOINTS, 1, 1)
        upright[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # the image's y points down
        self.init_pose.copy_(upright[..., :2].reshape(1, -1))
        self.init_cam.copy_(torch.tensor([[0.9, 0.0, 0.0]]))

    def forward(self, crops: UInt8[Tensor, "n s s 3"]) -> Float[Tensor, "n f"]:
        """The global feature."""
        images = self.normalization(crops)[..., self.columns]  # TensorRT lets nothing but a cast use the bytes
        feature: Tensor = self.encoder(images.to(self.precision)).pooled.float()
        return feature

    def regress(self, feature: Float[Tensor, "n f"], place: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """Pose (N x 144), shape (N x 10) and weak-perspective camera (N x 3) by iterative error feedback."""
        pose, shape, camera = (
            start.expand(feature.shape[0], -1) for start in (self.init_pose, self.init_shape, self.init_cam)
        )
        for _ in range(ROUNDS):
            hidden = self.fc2(self.fc1(torch.cat([feature, place, pose, shape, camera], dim=1)))
            pose = pose + self.get_submodule("decpose")(hidden)
            shape = shape + self.get_submodule("decshape")(hidden)
            camera = camera + self.get_submodule("deccam")(hidden)
        return pose, shape, camera


class Cliff(AdoptedRecovery):
    """CLIFF with HRNet-W48."""

    name = "cliff-hr48"
    title = "CLIFF HRNet-W48"
    origin = "https://github.com/huawei-noah/noah-research/tree/master/CLIFF"
    terms = (
        "The repository is under the MIT licence and states none for the weights alone; they were trained on datasets and "
        "with SMPL, whose own terms hold, most of them non-commercial."
    )
    # A box of 256 x 192 pixels, 1.1 times the person's, in the middle of a square.
    crop = CropSpec(size=256, padding=1.1, aspect=0.75)

    network: CliffNetwork

    @classmethod
    def matches(cls, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """By the pose head, and a backbone with HRNet's stem."""
        pose = shapes.get("decpose.weight") == (BODY_JOINTS * 6, _WIDTH)
        return pose and "encoder.stage4.0.branches.0.0.conv1.weight" in shapes

    @classmethod
    def blank(cls, flip_test: bool = False) -> CliffNetwork:
        """The network before its weights are loaded; its authors have no flip test."""
        return CliffNetwork(cls.crop)

    def forward(self, crops: UInt8[Tensor, "n s s 3"], cameras: Float[Tensor, "n 4"]) -> Recovery:
        """Recover one mesh per crop."""
        focal, center = cameras[:, :1], cameras[:, 2:]
        # Where the box lies in the image, and how large it is, both relative to the focal length (the authors' scaling).
        place = torch.cat([-center / focal * 2.8, (1 / focal - 0.24) / 0.06], dim=1)
        pose, betas, camera = self.network.regress(self.network(crops), place)
        # The two columns of a rotation lie interleaved.
        columns = pose.unflatten(1, (BODY_JOINTS, 3, 2)).transpose(2, 3).flatten(2)
        local = rotation_from_6d(columns)
        half = 2 / camera[:, :1].clamp_min(MINIMUM_SCALE)
        translation = torch.cat([camera[:, 1:] - half * center, half * focal], dim=1)
        posed = self.body.pose(local, betas)
        joints = posed.joints + translation.unsqueeze(1)
        seen = joints[..., :2] / joints[..., 2:].clamp_min(MINIMUM_DEPTH) * cameras[:, None, :2] + cameras[:, None, 2:]
        return Recovery(
            vertices=posed.vertices + translation.unsqueeze(1),
            joints=joints,
            keypoints_2d=(seen + 0.5) * self.crop.size,
            rotations=local,
            betas=betas,
            translation=translation,
            confidence=torch.ones_like(betas[:, 0]),
            reference_pixel=no_choice(betas),
        )
