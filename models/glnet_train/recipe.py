"""The numbers of a training, apart from the network's and the data's."""

import math
from dataclasses import dataclass

import torch

from glnet_infer.errors import InputError
from glnet_render.seeds import LARGEST_SEED

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

GUIDANCES: dict[str, tuple[str, ...]] = {
    "all": ("heat", "facing", "segments", "places", "part points"),
    "keypoints": ("heat", "part points"),
    "segmentation": ("segments",),
    "iuv": ("segments", "charts"),
    "none": (),
}
"""Labels that guide the Local Encoding Module, and the losses of each (:mod:`glnet_train.objective.guidance`).

Sparse 2D keypoints are the poster's, and its Table 3 compares them with part segmentation and IUV maps. ``all`` is what
rendered crops have for nothing, and more than any of these."""

GUIDANCE_AT_END = 0.25
"""Weight of the guidance at the last step, as a share of its weight before."""


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training.

    Attributes:
        steps: Length of the training; the learning rate is planned for it.
        batch: Crops per step, of all processes together.
        learning_rate: Highest learning rate, reached after ``warmup`` steps; it then falls as a cosine to 1 %.
        warmup: Steps over which the learning rate grows linearly.
        weight_decay: Weight decay of the optimizer.
        clip: Largest norm of the gradient.
        average: Share of the old weights that the running average keeps per step; the average is what is evaluated.
        fading: Share of the steps, the last ones, over which turning and scaling of crops fade away. Guidance falls to
            :data:`GUIDANCE_AT_END`. So the network ends with crops as they will be, and with what it will be asked for.
        tilted: Share of rendered persons who are the less upright of two. Persons who lean, lie or are seen from high above
            are rare, and found worst. The share fades like turning: scores are of the natural mixture.
        bystanders: Share of rendered crops that show another person too, to the last step. Photographs of one person often
            show more.
        guidance: Labels that guide the Local Encoding Module, one of :data:`GUIDANCES`.
        precision: Type in which the network computes where that is safe (autocast); one of :data:`PRECISIONS`.
        synthetic: Share of rendered crops; the rest comes from real datasets.
        block: Crops rendered at a time.
        blocks: Blocks that each process holds in its pool.
        refresh: Steps between two new blocks.
        curriculum: Blocks until the full spread of poses and views is reached.
        seed: Seed of all random numbers.
    """

    steps: int = 20_000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-4
    clip: float = 5.0
    average: float = 0.998
    fading: float = 1 / 3
    tilted: float = 1.0
    bystanders: float = 0.3
    guidance: str = "all"
    precision: str = "bfloat16"
    synthetic: float = 1.0
    block: int = 256
    blocks: int = 16
    refresh: int = 16
    curriculum: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"The precision {self.precision!r} is unknown.", fix=f"choose one of {', '.join(PRECISIONS)}")
        if self.guidance not in GUIDANCES:
            raise InputError(f"There is no guidance by {self.guidance!r}.", fix=f"choose one of {', '.join(GUIDANCES)}")
        for name in ("synthetic", "fading", "tilted", "bystanders"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise InputError(f"The recipe's share {name} is {share}.", fix="give a number from 0 to 1")
        if not self.learning_rate > 0:
            raise InputError(f"The learning rate is {self.learning_rate}.", fix="give a number above 0")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"The seed is {self.seed}.", fix=f"give a number from 0 to {LARGEST_SEED}")

    def turning(self, step: int) -> float:
        """Share of the full turning and scaling of crops at a step."""
        left = max(1 - step / self.steps, 0.0)
        return min(1.0, left / self.fading) if self.fading else 1.0

    def guiding(self, step: int) -> float:
        """Share of the guidance's full weight at a step."""
        return GUIDANCE_AT_END + (1 - GUIDANCE_AT_END) * self.turning(step)

    def rate(self, step: int) -> float:
        """Share of the highest learning rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2
