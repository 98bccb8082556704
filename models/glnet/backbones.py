"""Public HRNet weights, classification or pose, as the backbone that a training starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glnet.config import HRNetConfig
from glnet.hrnet import HRNet
from glnet.weights import find_weights, open_checkpoint, read_all
from glnet.weights.fitting import WITHOUT_EFFECT, examples, fitted, layout
from glnet_infer.errors import CheckpointError

_HYBRIK_POOLED = "final_feat_layer."
"""What HybrIK calls the last layer of the pooled feature."""


@dataclass(frozen=True)
class BackboneWeights:
    """Weights of a backbone.

    Attributes:
        state: By the backbone's own names.
        untrained: Names that the file does not have; they start anew.
        notes: Sentences on what was taken, for the user.
    """

    state: dict[str, Tensor]
    untrained: tuple[str, ...]
    notes: tuple[str, ...]

    def load_into(self, backbone: HRNet) -> None:
        """Give a backbone these weights, in place."""
        backbone.load_state_dict({**backbone.state_dict(), **self.state})


def read_backbone(path: Path, config: HRNetConfig, weights_key: str | None = None) -> BackboneWeights:
    """The backbone in a file: of HRNet's authors, of this library's checkpoints, or of networks that are built on HRNet.

    Classifiers, pose heads and what else such files hold are left aside. Pose networks have no pooled feature, and their
    last module fuses into one branch only: these layers may be missing.

    Args:
        path: The file, in any wrapper and with any prefix of its names.
        config: The backbone's configuration.
        weights_key: Which weights to take where the file holds several.

    Raises:
        CheckpointError: The file cannot be read, or its backbone is not of this configuration.
    """
    with torch.device("meta"):
        wanted = layout(HRNet(config))
    with open_checkpoint(path) as file:
        found, notes = find_weights(file.document, wanted, weights_key, path=path)
        ours = {_own_name(name): value for name, value in found.items()}
        state = read_all(file, {name: value for name, value in ours.items() if name in wanted}, path)
    counted = [name for name in wanted if not name.endswith(WITHOUT_EFFECT)]
    missing = [name for name in counted if name not in state]
    not_pooled = [name for name in missing if not name.startswith(_only_pooled(config))]
    if not_pooled:
        raise CheckpointError(
            f"{path} holds no backbone of this configuration.",
            why=f"it has {len(counted) - len(missing)} of {len(counted)} tensors; {examples('missing', not_pooled)}",
            fix="give --config with the backbone of these weights (w18-small, w32, w48), and weights of an HRNet",
        )
    what = f"The weights in {path} do not fit the backbone."
    fix = "give --config with the backbone of these weights (w18-small, w32, w48)"
    state = fitted(state, {name: wanted[name] for name in state}, what=what, fix=fix)
    aside = len(ours) - len(state)
    said = [*notes]
    if aside:
        said.append(f"{aside} tensors that are not the backbone's are left aside")
    if missing:
        said.append(f"{len(missing)} of the backbone's {len(counted)} tensors start untrained, such as {missing[0]}")
    return BackboneWeights(state, tuple(missing), tuple(said))


def _own_name(name: str) -> str:
    return name.replace(_HYBRIK_POOLED, "final_layer.", 1) if name.startswith(_HYBRIK_POOLED) else name


def _only_pooled(config: HRNetConfig) -> tuple[str, ...]:
    """Beginnings of the names that pose networks lack."""
    return "incre_modules.", "downsamp_modules.", "final_layer.", f"stage4.{config.modules[2] - 1}.fuse_layers."
