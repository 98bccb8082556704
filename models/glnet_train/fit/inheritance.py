"""Starting a training from the weights of a network that may differ a little."""

import torch
from torch import nn

from glnet.checkpoint import Checkpoint
from glnet.config import GLNetConfig
from glnet.hrnet import BasicBlock, HighResolutionModule
from glnet.network import GLNet
from glnet_infer.errors import CheckpointError

FREE = ("name", "crop", "confidence_prior", "pixel_source", "keypoint_origin")
"""Fields of the configuration in which the networks may differ. The new backbone may also have more modules."""

COARSER = "local_encoding.coarser."
"""Prefix of the weights that only a network has whose pixels see all resolutions."""


def inherit(network: GLNet, checkpoint: Checkpoint) -> None:
    """Give a new network the weights of a checkpoint, in place.

    Convolutions do not know the size of crops. What the checkpoint lacks starts so that the network computes what the
    checkpoint does: resolutions that pixels did not see add zeros, and modules that the backbone did not have are
    identities (after Chen et al., "Net2Net", ICLR 2016). Where keypoints started at part points and shall start half-way
    between them and the coarse ones, the network begins with the mean of the coarse keypoints and those that it gave. Two
    things are lost: resolutions that pixels no longer see, and the residual heads where keypoints get any other origin,
    because their weights mean something else.

    Raises:
        CheckpointError: The networks differ in more than that.
    """
    found, wanted = checkpoint.config, network.config
    _check(found, wanted)
    given = checkpoint.network().state_dict()
    dropped = []
    is_halved = (found.keypoint_origin, wanted.keypoint_origin) == ("part", "coarse+part")
    if found.keypoint_origin != wanted.keypoint_origin and not is_halved:
        dropped.append("heads.")
    if found.pixel_source != wanted.pixel_source:
        dropped.append(COARSER)
    with torch.no_grad():
        if network.local_encoding.coarser is not None:
            for parameter in network.local_encoding.coarser.parameters():
                parameter.zero_()
        stages = network.backbone.stage2, network.backbone.stage3, network.backbone.stage4
        for stage, modules in zip(stages, found.backbone.modules, strict=True):
            for module in list(stage)[modules:]:
                assert isinstance(module, HighResolutionModule)
                _make_identity(module)
        own = network.state_dict()
        taken = {name: value for name, value in given.items() if not name.startswith(tuple(dropped))}
        network.load_state_dict({**own, **taken})
    if is_halved:
        network.heads.scale(network.layout.sizes[0], 0.5)


def _make_identity(module: HighResolutionModule) -> None:
    """Zero the last norm of every block and of every path between branches: what remains is each branch as it came in."""
    for block in module.branches.modules():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.bn2.weight)
    for layers in module.fuse_layers:
        for path in layers.children():
            norms = [layer for layer in path.modules() if isinstance(layer, nn.BatchNorm2d)]
            for norm in norms[-1:]:
                nn.init.zeros_(norm.weight)


def _check(found: GLNetConfig, wanted: GLNetConfig) -> None:
    before, after = found.to_dict(), wanted.to_dict()
    modules = before["backbone"].pop("modules"), after["backbone"].pop("modules")
    differing = [key for key, value in before.items() if key not in FREE and value != after[key]]
    if any(had > has for had, has in zip(*modules, strict=True)):
        differing.append("number of the backbone's modules")
    if differing:
        raise CheckpointError(
            "The training cannot start from these weights.",
            why=f"they were trained with another {', '.join(differing)}",
            fix="give --config with the values of the checkpoint; crop, pixel_source and keypoint_origin may differ, and "
            "the backbone may have more modules",
        )
