"""What networks of others have in common once they are adopted: they are found by their names, and loaded as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from glnet.body.smpl import Body
from glnet.mixed_precision import keep_in_float32
from glnet.recovery import MeshRecovery, Recovery
from glnet.weights.fitting import fitted, layout
from glnet_infer.skeleton import SKELETON_JOINTS

SMPL_V1 = 1e-5
"""Metres. Files of one version of SMPL differ by less, those of different versions by more."""


class AdoptedNetwork(nn.Module):
    """A network of others: from crops to what its decoder needs. The backbone may compute in half precision.

    Attributes:
        half_modules: Names of its modules that half precision is for; the others stay in float32.
        renamed: Beginnings of its names, and of those in the file, where the two differ.
    """

    half_modules: ClassVar[tuple[str, ...]] = ()
    renamed: ClassVar[Mapping[str, str]] = {}
    precision = torch.float32

    def draw(self, rest: Float[Tensor, "29 3"]) -> None:
        """Draw random weights whose answers look like persons.

        Args:
            rest: Joints of the body in its rest pose, metres.
        """
        raise NotImplementedError

    def name_in_file(self, name: str) -> str:
        """What one of its tensors is called in the file."""
        for ours, theirs in self.renamed.items():
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    def load(self, state: Mapping[str, Tensor], title: str) -> None:
        """Take a state dict over, all of it.

        Args:
            state: By the names in the file.
            title: The network's name, for messages.

        Raises:
            CheckpointError: A name is missing or unknown, or a tensor has another shape or type.
        """
        own = {self.name_in_file(name): name for name in self.state_dict()}
        found = fitted(
            state,
            {self.name_in_file(name): kind for name, kind in layout(self).items()},
            what=f"The weights do not fit {title}.",
            fix="take the file as its authors released it; docs/public-checkpoints.md lists those that are known",
        )
        self.load_state_dict({own[name]: value for name, value in found.items()}, strict=False)


class AdoptedRecovery(MeshRecovery):
    """A network of others with the body that it decodes to.

    Attributes:
        title: Its name in messages.
        aside: Beginnings of names in the file that are not the network's: the authors' copy of SMPL's data.
        flip_test: Whether the mirrored crop is looked at as well.
    """

    title: ClassVar[str]
    aside: ClassVar[str] = "smpl."
    keypoints = SKELETON_JOINTS
    trained_with = "smpl"
    flip_test: bool = False

    network: AdoptedNetwork

    def __init__(self, network: AdoptedNetwork, body: Body) -> None:
        super().__init__()
        self.network = network
        self.smpl = body

    @classmethod
    def matches(cls, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether a state dict is this network's, by names and shapes that no other has."""
        raise NotImplementedError

    @classmethod
    def blank(cls, flip_test: bool = False) -> AdoptedNetwork:
        """The network before its weights are loaded.

        Args:
            flip_test: Whether the mirrored crop is looked at as well, and both answers averaged; where it has that.
        """
        raise NotImplementedError

    @classmethod
    def names(cls) -> frozenset[str]:
        """What its tensors are called in the file."""
        with torch.device("meta"):  # no memory is needed for names
            network = cls.blank()
        return frozenset(map(network.name_in_file, network.state_dict()))

    @property
    def body(self) -> Body:
        """See :class:`glnet.recovery.MeshRecovery`; so for all that follows."""
        return self.smpl

    def to_document(self) -> dict[str, Any]:
        """Its configuration."""
        return {
            "adopted": self.name,
            "flip_test": self.flip_test,
            "crop": dataclasses.asdict(self.crop),
            "body": self.trained_with,
        }

    def use_mixed_precision(self, keep: Sequence[str] = ()) -> None:
        """Put the backbone into half precision."""
        self.network.precision = torch.float16
        for name in self.network.half_modules:
            self.network.get_submodule(name).half()
        keep_in_float32(self.network, keep)

    def other_body(self, state: Mapping[str, Tensor]) -> str:
        """A warning where the file holds another SMPL than the body that was given; empty otherwise. Nothing is taken."""
        for name, own in (("v_template", self.body.data.v_template), ("shapedirs", self.body.data.shapedirs)):
            theirs = state.get(f"{self.aside}{name}")
            if theirs is None or not theirs.is_floating_point():
                continue
            if tuple(theirs.shape) != own.shape:
                return f"its weights were trained with a body of another mesh: {name} is {tuple(theirs.shape)} there"
            largest = float((theirs.double() - torch.as_tensor(own)).abs().max())
            if not largest <= SMPL_V1:
                return f"its weights were trained with another version of SMPL: {name} differs by up to {largest:.2g}"
        return ""

    def forward(self, crops: UInt8[Tensor, "n s s 3"], cameras: Float[Tensor, "n 4"]) -> Recovery:
        """Recover one mesh per crop."""
        raise NotImplementedError


def no_choice(betas: Float[Tensor, "n 10"]) -> Int[Tensor, "n 2"]:
    """The chosen pixel of networks that choose none: zeros."""
    return torch.zeros_like(betas[:, :2]).int()
