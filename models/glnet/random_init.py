"""Networks without training: for benchmarks, compiler tests and the first step of training."""

import torch
from torch import nn

from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet.decoding import GLNetRecovery, standing_estimate
from glnet.network import GLNet


def random_recovery(config: GLNetConfig, body: Body, seed: int = 0) -> GLNetRecovery:
    """A network with random weights whose estimate is a standing body, in evaluation mode.

    Args:
        config: Configuration of the network.
        body: The body that its estimate shows and is decoded with.
        seed: Seed of all random numbers; the caller's generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        recovery = GLNetRecovery(GLNet(config), body)
        recovery.network.initialize(standing_estimate(recovery.decoder, config.keypoints))
    return recovery.eval()


def settle_batch_norms(network: nn.Module, crops: torch.Tensor) -> None:
    """Give every batch normalisation the statistics of some crops.

    With default statistics, activations of an untrained HRNet grow from block to block. Speed does not change, but half
    precision would have the rounding error of no real network.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    network.train()
    with torch.no_grad():
        network(crops)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
