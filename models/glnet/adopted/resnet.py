"""ResNet-34 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016), named as in torchvision."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Channels and blocks."""


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(channels_in, channels, 3, stride), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = _conv(channels, channels, 3, 1), nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1:
            self.downsample = nn.Sequential(_conv(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        return (residual + shortcut).relu()


class ResNet34(nn.Module):
    """The network up to its last map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        before = 64
        for number, (channels, blocks) in enumerate(_STAGES, 1):
            first = _Block(before, channels, 1 if number == 1 else 2)
            self.add_module(
                f"layer{number}", nn.Sequential(first, *(_Block(channels, channels, 1) for _ in range(blocks - 1)))
            )
            before = channels

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 512 h/32 w/32"]:
        """The last map, at stride 32."""
        x = functional.max_pool2d(self.bn1(self.conv1(images)).relu(), 3, 2, 1)
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x
