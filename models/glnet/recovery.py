"""What is exported, whatever network is inside: crops and cameras in, posed SMPL meshes out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from glnet.body.smpl import Body
from glnet.sampling import Sampler
from glnet_infer.contract import CropSpec


class Recovery(NamedTuple):
    """The graph's outputs, in order; ``glnet_infer.contract.GRAPH_OUTPUTS`` gives shapes, units and frames."""

    vertices: Tensor
    joints: Tensor
    keypoints_2d: Tensor
    rotations: Tensor
    betas: Tensor
    translation: Tensor
    confidence: Tensor
    reference_pixel: Tensor


class MeshRecovery(nn.Module, ABC):
    """A network and what decodes its answer, in one module: it is exported, and exports are compared with it.

    All that export, engines and benchmarks ask of a network is asked here.

    Attributes:
        network: What looks at the crops; it is called with these alone, N x S x S x 3 RGB bytes.
        name: Name of the network in manifests and messages.
        crop: How its crops are cut.
        keypoints: Number of its keypoints.
        trained_with: The body that its weights were trained with: ``demo`` or ``smpl``.
        origin: Where the network comes from, an address; empty for GLNet.
        terms: Under which terms its weights are, a sentence; empty where that is not known.
        amplification: How much more than GLNet it amplifies the rounding of float32: a factor for the bounds of an export.
        jumps: Whether the smallest change may move a joint by centimetres, for a rule in it that is not continuous.
    """

    network: nn.Module
    name: str
    crop: CropSpec
    keypoints: int
    trained_with: str
    origin: str = ""
    terms: str = ""
    amplification: float = 1.0
    jumps: bool = False

    @property
    @abstractmethod
    def body(self) -> Body:
        """The body that meshes are made of."""

    @abstractmethod
    def to_document(self) -> dict[str, Any]:
        """Its configuration as plain values, for manifests."""

    @abstractmethod
    def use_mixed_precision(self, keep: Sequence[str] = ()) -> None:
        """Put what takes the time into half precision, in place.

        Args:
            keep: Names of the network's modules that stay in float32 (:func:`glnet.mixed_precision.keep_in_float32`).

        Raises:
            ExportError: A name is no module's.
        """

    def sampled_by(self, sampler: Sampler) -> AbstractContextManager[None]:
        """A context in which features are sampled in another form (:mod:`glnet.sampling`), where any are."""
        return nullcontext()

    def margins(self, crops: UInt8[Tensor, "n s s 3"], pixels: Int[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """By how much each crop's chosen pixel is preferred to another, logits; zero where none is chosen."""
        return torch.zeros(len(crops), device=crops.device)

    @abstractmethod
    def forward(self, crops: UInt8[Tensor, "n s s 3"], cameras: Float[Tensor, "n 4"]) -> Recovery:
        """Recover one mesh per crop."""
