"""HRNet, the backbone, with the parameter names of the field's public weights.

Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020. The names are those of the
authors' image classification models. So their weights, and those of libraries that kept the names, load as they are.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from glnet.config import HRNetConfig

EXPANSION = 4
"""Channels that a bottleneck block gives, per channel of its width (He et al., "Deep Residual Learning", 2016)."""


def _conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(channels_out)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv_norm(channels, channels, 3)
        self.conv2, self.bn2 = _conv_norm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        y = self.bn1(self.conv1(x)).relu()
        residual: Tensor = self.bn2(self.conv2(y))
        return (x + residual).relu()


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions and a residual, projected where the channel count changes."""

    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        channels_out = width * EXPANSION
        self.conv1, self.bn1 = _conv_norm(channels_in, width, 1)
        self.conv2, self.bn2 = _conv_norm(width, width, 3)
        self.conv3, self.bn3 = _conv_norm(width, channels_out, 1)
        self.downsample = None
        if channels_in != channels_out:
            self.downsample = nn.Sequential(*_conv_norm(channels_in, channels_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """N x channels_in x H x W to N x 4 width x H x W."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        residual: Tensor = x if self.downsample is None else self.downsample(x)
        widened: Tensor = self.bn3(self.conv3(y))
        return (residual + widened).relu()


class HighResolutionModule(nn.Module):
    """Parallel branches, then every branch receives the sum of all, resampled to its resolution."""

    def __init__(self, channels: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c) for _ in range(blocks))) for c in channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._resample(channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )

    @staticmethod
    def _resample(channels: tuple[int, ...], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            return nn.Sequential(*_conv_norm(channels[source], channels[target], 1))
        steps = []
        for _ in range(target - source - 1):
            steps.append(nn.Sequential(*_conv_norm(channels[source], channels[source], 3, 2), nn.ReLU()))
        steps.append(nn.Sequential(*_conv_norm(channels[source], channels[target], 3, 2)))
        return nn.Sequential(*steps)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        """One map per branch in, one out."""
        ys = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        fused = []
        for target, layers in enumerate(self.fuse_layers):
            assert isinstance(layers, nn.ModuleList)
            # A list, because a slice of a ModuleList is a module, made anew in every call.
            fused.append(self._fuse(list(layers), target, ys).relu())
        return fused

    @staticmethod
    def _fuse(layers: list[nn.Module], target: int, ys: list[Tensor]) -> Tensor:
        """The sum of all branches at one resolution.

        Coarser maps are summed octave by octave on the way up, so that most sums are of small maps. The result is the same:
        repeating pixels four times is repeating them twice, and twice again.
        """
        total = ys[target]
        for layer, y in zip(layers[:target], ys[:target], strict=True):
            total = total + layer(y)
        coarser = None
        for layer, y in zip(reversed(layers[target + 1 :]), reversed(ys[target + 1 :]), strict=True):
            coarser = layer(y) if coarser is None else layer(y) + coarser
            coarser = functional.interpolate(coarser, scale_factor=2, mode="nearest")
        return total if coarser is None else total + coarser


class Features(NamedTuple):
    """Outputs of the backbone.

    Attributes:
        pixels: N x C x H/4 x W/4, map of the highest-resolution branch.
        coarser: Maps of the other branches, at strides 8, 16 and 32.
        pooled: N x F, the global feature.
    """

    pixels: Tensor
    coarser: tuple[Tensor, ...]
    pooled: Tensor


class HRNet(nn.Module):
    """Stem, four stages, and the classification head up to its pooled feature."""

    def __init__(self, config: HRNetConfig) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv_norm(3, 64, 3, 2)
        self.conv2, self.bn2 = _conv_norm(64, 64, 3, 2)
        width = config.stem_channels
        stem_out = width * EXPANSION
        self.layer1 = nn.Sequential(
            *(Bottleneck(64 if block == 0 else stem_out, width) for block in range(config.stem_blocks))
        )
        channels = config.channels
        self.transition1 = self._transition((stem_out,), channels[:2])
        self.stage2 = self._stage(channels[:2], config.modules[0], config.blocks)
        self.transition2 = self._transition(channels[:2], channels[:3])
        self.stage3 = self._stage(channels[:3], config.modules[1], config.blocks)
        self.transition3 = self._transition(channels[:3], channels)
        self.stage4 = self._stage(channels, config.modules[2], config.blocks)

        heads = config.head_channels
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(c, head)) for c, head in zip(channels, heads, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(heads[i] * EXPANSION, heads[i + 1] * EXPANSION, 3, 2, 1),
                nn.BatchNorm2d(heads[i + 1] * EXPANSION),
                nn.ReLU(),
            )
            for i in range(3)
        )
        self.final_layer = nn.Sequential(
            nn.Conv2d(heads[3] * EXPANSION, config.feature_channels, 1),
            nn.BatchNorm2d(config.feature_channels),
            nn.ReLU(),
        )

    @staticmethod
    def _transition(before: tuple[int, ...], after: tuple[int, ...]) -> nn.ModuleList:
        """Layers that adapt the channels of the branches so far, and start one more from the lowest resolution."""
        layers: list[nn.Module] = []
        for index, channels in enumerate(after):
            if index == len(before):
                layers.append(nn.Sequential(nn.Sequential(*_conv_norm(before[-1], channels, 3, 2), nn.ReLU())))
            elif before[index] != channels:
                layers.append(nn.Sequential(*_conv_norm(before[index], channels, 3), nn.ReLU()))
            else:
                layers.append(nn.Identity())
        return nn.ModuleList(layers)

    @staticmethod
    def _stage(channels: tuple[int, ...], modules: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(HighResolutionModule(channels, blocks) for _ in range(modules)))

    @staticmethod
    def _enter(transition: nn.ModuleList, branches: list[Tensor]) -> list[Tensor]:
        """Inputs of the next stage: the branches so far, and a new one from the last."""
        inputs = [*branches, branches[-1]]
        return [layer(x) for layer, x in zip(transition, inputs, strict=True)]

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Features:
        """Features of normalised images whose sides are multiples of 32."""
        x = self.bn1(self.conv1(images)).relu()
        x = self.bn2(self.conv2(x)).relu()
        branches = [self.layer1(x)]
        branches = self.stage2(self._enter(self.transition1, branches))
        branches = self.stage3(self._enter(self.transition2, branches))
        branches = self.stage4(self._enter(self.transition3, branches))

        pooled = self.incre_modules[0](branches[0])
        for downsample, incre, branch in zip(
            self.downsamp_modules, list(self.incre_modules)[1:], branches[1:], strict=True
        ):
            pooled = incre(branch) + downsample(pooled)
        # The mean over pixels is a long sum: in float32, whatever the convolutions run in.
        pooled = self.final_layer(pooled).float().mean((-2, -1))
        return Features(branches[0], tuple(branches[1:]), pooled)


RESIDUAL_GAIN = 0.2
"""Gain that a block's residual branch starts with. At full gain, an untrained HRNet amplifies rounding errors from block to
block, two hundredfold in w32. Goyal et al. ("Accurate, Large Minibatch SGD", 2017) start at zero."""


def initialize(module: nn.Module) -> None:
    """Initialise every convolution as He et al. and HRNet's authors do, with residual branches of low gain."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, BasicBlock):
            nn.init.constant_(layer.bn2.weight, RESIDUAL_GAIN)
        elif isinstance(layer, Bottleneck):
            nn.init.constant_(layer.bn3.weight, RESIDUAL_GAIN)
