"""GLNet: a coarse estimate from the whole crop, a residual and a confidence from every pixel, the best pixel decides."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from glnet.config import GLNetConfig
from glnet.estimate import Estimate, EstimateLayout
from glnet.hrnet import HRNet, initialize
from glnet.local_encoding import LocalEncodingModule
from glnet.mixed_precision import keep_in_float32
from glnet.parts import PARTS


class Normalization(nn.Module):
    """RGB bytes to the backbone's input.

    Means and deviations are those of intensities from 0 to 1, in RGB order.

    The cast comes before the transposition, or TensorRT refuses the graph. The arithmetic comes after it: ONNX Runtime is
    slow where a vector of three repeats from pixel to pixel.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        means, deviations = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("gain", (1 / (255 * deviations))[:, None, None], persistent=False)
        self.register_buffer("offset", (-means / deviations)[:, None, None], persistent=False)

    def forward(self, crops: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
        """Normalised images, channels first, float32."""
        return crops.float().permute(0, 3, 1, 2) * self.gain + self.offset


class PixelHeads(nn.Module):
    """Residuals of the estimate, pointwise: the same function of a whole map and of a single pixel.

    A joint's residuals are predicted from the pixel feature and its part's feature; shape, scale and keypoints beyond
    the skeleton from the pixel feature alone.
    """

    slots: Tensor

    def __init__(self, config: GLNetConfig, layout: EstimateLayout) -> None:
        super().__init__()
        self.pixel = nn.Conv2d(config.pixel_channels, layout.size, 1)
        self.parts: nn.Conv2d | None = None
        if config.local_encoding:
            entries = [[entry for joint in part for entry in layout.joint_entries(joint)] for part in PARTS.values()]
            width = max(len(part) for part in entries)
            self.parts = nn.Conv2d(len(PARTS) * config.part_channels, len(PARTS) * width, 1, groups=len(PARTS))
            # Groups are equally wide, parts are not: each entry of the vector knows its slot, and entries that belong
            # to no part read the extra one, a zero.
            slots = torch.full((layout.size,), len(PARTS) * width)
            for part, own in enumerate(entries):
                slots[own] = torch.arange(len(own)) + part * width
            self.register_buffer("slots", slots, persistent=False)

    def initialize(self) -> None:
        """Let residuals start close to zero, so that training starts from the coarse estimate."""
        for conv in (self.pixel, self.parts):
            if conv is not None:
                nn.init.normal_(conv.weight, std=3e-4)
                nn.init.zeros_(_bias(conv))

    @torch.no_grad()
    def scale(self, entries: int, factor: float) -> None:
        """Multiply the first ``entries`` residuals by a factor, for all inputs."""
        layers = [(self.pixel, torch.arange(entries))]
        if self.parts is not None:
            layers.append((self.parts, self.slots[:entries].unique()))
        for conv, rows in layers:
            rows = rows[rows < len(conv.weight)]
            conv.weight[rows] *= factor
            _bias(conv)[rows] *= factor

    def forward(
        self, pixels: Float[Tensor, "n c h w"], parts: Float[Tensor, "n q h w"] | None, entries: int | None = None
    ) -> Float[Tensor, "n p h w"]:
        """Residuals, or the first ``entries`` of them, in float32: they are small against what they are added to."""
        weight, bias = self.pixel.weight[:entries], _bias(self.pixel)[:entries]
        residuals = nn.functional.conv2d(pixels.to(weight.dtype), weight, bias)
        if self.parts is not None:
            assert parts is not None
            by_slot: Tensor = self.parts(parts.to(weight.dtype))
            by_slot = nn.functional.pad(by_slot, (0, 0, 0, 0, 0, 1))
            residuals = residuals + by_slot.index_select(1, self.slots[:entries])
        return residuals.float()


class Prediction(NamedTuple):
    """Outputs for every pixel; :meth:`GLNet.estimates` makes the estimates of chosen ones.

    Attributes:
        coarse: N x P, the estimate from the global feature.
        logits: N x H x W, confidence before the sigmoid.
        points: N x 7 x H x W x 2, part points in grid cells, or None without local encoding.
        pixel_features: N x C x H x W, after local encoding.
        part_features: N x 7 c x H x W, or None without local encoding.
    """

    coarse: Tensor
    logits: Tensor
    points: Tensor | None
    pixel_features: Tensor
    part_features: Tensor | None


class Selection(NamedTuple):
    """The most confident pixel's answer.

    Attributes:
        estimate: N x P.
        logit: N, confidence before the sigmoid.
        pixel: N x 2, x and y in grid cells.
    """

    estimate: Tensor
    logit: Tensor
    pixel: Tensor


class GLNet(nn.Module):
    """The network, from RGB crops to estimates (:class:`glnet.estimate.EstimateLayout` names the vector's entries)."""

    from_pixel: Tensor
    from_points: Tensor
    from_coarse: Tensor

    def __init__(self, config: GLNetConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = EstimateLayout(config)
        self.precision = torch.float32  # type that the backbone computes in
        self.normalization = Normalization(config.mean, config.std)
        self.backbone = HRNet(config.backbone)
        self.coarse = nn.Linear(config.backbone.feature_channels, self.layout.size)
        self.local_encoding = LocalEncodingModule(config)
        self.confidence = nn.Conv2d(config.pixel_channels, 1, 1)
        self.heads = PixelHeads(config, self.layout)
        # Where a pixel's keypoints start: each coordinate is the coarse one, one of the pixel's own, or of its part points,
        # or the middle between the coarse one and another.
        entries = 0 if config.keypoint_origin == "coarse" else self.layout.sizes[0]
        share = 0.5 if config.keypoint_origin == "coarse+part" else 1.0
        of_part = {joint: part for part, joints in enumerate(PARTS.values()) for joint in joints}
        from_pixel, from_points = torch.zeros(2, self.layout.size), torch.zeros(2 * len(PARTS), self.layout.size)
        for entry in range(entries):
            joint, axis = divmod(entry, 2)
            if config.starts_at_points and joint in of_part:
                from_points[2 * of_part[joint] + axis, entry] = share
            else:
                from_pixel[axis, entry] = share
        self.register_buffer("from_pixel", from_pixel, persistent=False)
        self.register_buffer("from_points", from_points, persistent=False)
        from_coarse = torch.ones(self.layout.size)
        from_coarse[:entries] = 1 - share
        self.register_buffer("from_coarse", from_coarse, persistent=False)

    def initialize(self, mean: Estimate) -> None:
        """Draw random weights whose estimate is close to ``mean`` (N = 1), about the pixel where keypoints start there."""
        initialize(self)
        self.local_encoding.initialize()
        self.heads.initialize()
        nn.init.normal_(self.coarse.weight, std=1e-4)
        nn.init.normal_(self.confidence.weight, std=1e-3)
        prior = self.config.confidence_prior
        nn.init.constant_(_bias(self.confidence), -math.log((1 - prior) / prior))
        with torch.no_grad():
            vector = self.layout.join(mean)[0]
            self.coarse.bias.copy_(vector)
            _bias(self.heads.pixel).copy_(vector * (1 - self.from_coarse))

    def use_mixed_precision(self, keep: Sequence[str] = ()) -> "GLNet":
        """Put backbone and Local Encoding Module into half precision, in place.

        The rest stays in float32, with explicit casts at the borders: normalisation, part points and sampling,
        confidence logits (half precision would tie close pixels), residuals and all that follows. The module's own types
        are what PyTorch, ONNX and TensorRT run.

        Args:
            keep: Names of modules that stay in float32 (:func:`glnet.mixed_precision.keep_in_float32`).

        Returns:
            The network itself.
        """
        self.precision = self.local_encoding.precision = torch.float16
        self.backbone.half()
        for layer in self.local_encoding.children():  # not the module's own constants, which points are computed from
            layer.half()
        keep_in_float32(self, keep)
        return self

    def forward(self, crops: UInt8[Tensor, "n s s 3"]) -> Prediction:
        """Coarse estimate, confidences and features of all pixels."""
        images = self.normalization(crops)
        features = self.backbone(images.to(self.precision))
        with _without_autocast(images):
            coarse = self.coarse(features.pooled.float())
        keypoints = self.layout.split(coarse).keypoints
        encoding = self.local_encoding(features.pixels, features.pooled, keypoints, features.coarser)
        with _without_autocast(images):
            logits = self.confidence(encoding.pixels.float()).squeeze(1)
        return Prediction(coarse, logits, encoding.points, encoding.pixels, encoding.parts)

    def estimates(self, prediction: Prediction, index: Int[Tensor, "n k"]) -> Float[Tensor, "n k p"]:
        """Estimates of chosen pixels.

        Heads are evaluated at these pixels alone: after the sampling, everything is pointwise.

        Args:
            prediction: The prediction of the same crops.
            index: Pixels as ``y * grid + x``.
        """
        pixels, parts = prediction.pixel_features, prediction.part_features
        residuals: Tensor = self.heads(gather_pixels(pixels, index), None if parts is None else gather_pixels(parts, index))
        points = None
        if self.config.starts_at_points:
            assert prediction.points is not None
            points = gather_points(prediction.points, index).flatten(2)
        return self._start(prediction.coarse, self._places(index), points) + residuals.squeeze(3).transpose(1, 2)

    def all_estimates(self, prediction: Prediction, entries: int | None = None) -> Float[Tensor, "n h*w p"]:
        """Estimates of all pixels, or the first ``entries`` of their vectors."""
        index = torch.arange(self.config.grid**2, device=prediction.coarse.device)
        residuals: Tensor = self.heads(prediction.pixel_features, prediction.part_features, entries)
        points = None
        if self.config.starts_at_points:
            assert prediction.points is not None
            points = prediction.points.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)
        start = self._start(prediction.coarse, self._places(index[None]), points)
        return start[..., :entries] + residuals.flatten(2).transpose(1, 2)

    def _places(self, index: Int[Tensor, "n k"]) -> Int[Tensor, "n k 2"]:
        """Pixels x, y in grid cells."""
        return torch.stack([index % self.config.grid, index // self.config.grid], dim=-1)

    def _start(
        self, coarse: Float[Tensor, "n p"], pixel: Int[Tensor, "n k 2"], points: Float[Tensor, "n k c"] | None
    ) -> Float[Tensor, "n q p"]:
        """The vectors that residuals are added to.

        Args:
            coarse: The coarse estimate.
            pixel: Pixels in grid cells.
            points: Their part points in grid cells, where keypoints start at these.

        Returns:
            One vector per pixel; q is 1 where it is the same for all.
        """
        start = (coarse * self.from_coarse).unsqueeze(1)
        if self.config.keypoint_origin == "coarse":
            return start
        start = start + self._in_crop(pixel) @ self.from_pixel
        if points is not None:
            start = start + self._in_crop(points) @ self.from_points
        return start

    def _in_crop(self, cells: Tensor) -> Tensor:
        """Grid cells as crop sides from the crop's centre."""
        return (cells + 0.5) / self.config.grid - 0.5

    def select(self, crops: UInt8[Tensor, "n s s 3"]) -> Selection:
        """The most confident pixel's estimate."""
        prediction = self(crops)
        logits = prediction.logits.flatten(1)
        best = logits.argmax(1, keepdim=True)
        estimate = self.estimates(prediction, best).squeeze(1)
        return Selection(estimate, logits.gather(1, best).squeeze(1), self._places(best).squeeze(1))


def _bias(layer: nn.Conv2d) -> Tensor:
    """The bias of a layer that has one."""
    assert layer.bias is not None
    return layer.bias


def _without_autocast(images: Tensor) -> AbstractContextManager[None]:
    """A context without autocast, which would run in half precision even what is given in float32."""
    kind = images.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def gather_pixels(maps: Float[Tensor, "n c h w"], index: Int[Tensor, "n k"]) -> Float[Tensor, "n c k 1"]:
    """Chosen pixels of each map, as narrow maps."""
    columns = maps.flatten(2)
    return columns.gather(2, index.unsqueeze(1).expand(-1, columns.shape[1], -1)).unsqueeze(-1)


def gather_points(points: Float[Tensor, "n q h w 2"], index: Int[Tensor, "n k"]) -> Float[Tensor, "n k q 2"]:
    """Part points of chosen pixels, in grid cells."""
    maps = points.permute(0, 1, 4, 2, 3).flatten(1, 2)
    chosen: Tensor = gather_pixels(maps, index).squeeze(3).transpose(1, 2).unflatten(2, (-1, 2))
    return chosen
