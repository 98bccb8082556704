"""Training on synthetic crops: the loop, its state, and its way to go on after an interruption.

Everything random comes from the recipe's seed and the step's number, so a training that is stopped and resumed on the same
kind of machine ends with the same weights as one that was not.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glnet.body.smpl import Body
from glnet.checkpoint import Checkpoint, save_atomically
from glnet.config import GLNetConfig
from glnet.network import Prediction
from glnet.random_init import random_recovery
from glnet.recovery import Decoder
from glnet.training.guidance import Guidance
from glnet.training.losses import LossWeights, Objective
from glnet.training.matching import Matching
from glnet.training.pool import Block, CropPool
from glnet.training.synthetic import SyntheticSample, SyntheticSource
from glnet.training.targets import Targets
from glnet_infer.errors import CheckpointError, first_line

STATE_FORMAT = "glnet-training-state"


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: Length of the training; the learning rate is planned for it.
        batch: Crops per step.
        learning_rate: Its highest value (AdamW), reached after ``warmup`` steps, then falling as a cosine to 1 %.
        warmup: Steps of linear growth.
        weight_decay: AdamW's.
        clip: Largest norm of the gradient.
        average: Share of the old weights that the running average keeps per step; the average is what is evaluated.
        block: Crops rendered at a time.
        blocks: Blocks held in the pool.
        refresh: Steps between two blocks.
        curriculum: Blocks until the full spread of poses and views is reached.
        bf16: Whether the network runs in bfloat16 where that is safe (autocast).
        seed: Of everything.
    """

    steps: int = 20_000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-4
    clip: float = 5.0
    average: float = 0.998
    block: int = 256
    blocks: int = 16
    refresh: int = 8
    curriculum: int = 300
    bf16: bool = True
    seed: int = 0


def make_targets(decoder: Decoder, sample: SyntheticSample, keypoints: int) -> Targets:
    """Labels of synthetic crops: all known, but of keypoints that are hidden or outside, which no picture shows.

    Depths, rotations and shape of hidden joints are kept: the whole body is what has to be recovered.
    """
    estimate = decoder.encode(sample.rotations, sample.betas, sample.translation, sample.cameras)
    count, extra = len(sample.crops), keypoints - estimate.keypoints.shape[1]
    pad = torch.nn.functional.pad
    estimate = estimate._replace(
        keypoints=pad(estimate.keypoints, (0, 0, 0, extra)), depths=pad(estimate.depths, (0, extra))
    )
    ones = torch.ones_like
    # A hidden keypoint still has a place; it counts less than one that is seen.
    weights = pad(0.2 + 0.8 * sample.visibility.float(), (0, extra))
    return Targets(
        estimate=estimate,
        keypoint_weights=weights,
        depth_weights=pad(ones(sample.visibility, dtype=torch.float32), (0, extra)),
        rotation_weights=torch.ones(count, estimate.rotation.shape[1]),
        shape_weights=torch.ones(count, 1),
        scale_weights=torch.ones(count, 1),
        rotations=sample.rotations,
        pose_weights=torch.ones(count, sample.rotations.shape[1]),
        cameras=sample.cameras,
    )


class Trainer:
    """A training in progress.

    Args:
        config: The network.
        recipe: How to train it.
        body: The body in the synthetic crops.
        matching: How positives are chosen.
        weights: Of the loss terms.
        backgrounds: Folder of photographs to put behind the persons; none gives procedural ones only.
    """

    def __init__(
        self,
        config: GLNetConfig,
        recipe: Recipe,
        body: Body,
        *,
        matching: Matching | None = None,
        weights: LossWeights | None = None,
        backgrounds: Path | None = None,
    ) -> None:
        self.config, self.recipe = config, recipe
        self.matching, self.weights = matching or Matching(), weights or LossWeights()
        self.network = random_recovery(config, body, recipe.seed).network.to(memory_format=torch.channels_last)
        self.decoder = Decoder(config, body)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.guidance = Guidance(config)
        self.objective = Objective(self.network, self.decoder, self.matching, self.weights, self.guidance)
        self.averaged = copy.deepcopy(self.network).eval()
        parameters = [*self.network.parameters(), *self.guidance.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.step = 0
        self.source = SyntheticSource(body, config.crop.size, seed=recipe.seed, backgrounds=backgrounds)
        self._pool: CropPool | None = None

    def _render(self, block: int) -> Block:
        """Block number ``block``, whatever was rendered before."""
        seed = torch.Generator().manual_seed((self.recipe.seed << 32) + block)
        difficulty = min(1.0, block / max(self.recipe.curriculum, 1))
        self.source.restore({"generator": seed.get_state(), "difficulty": difficulty})
        sample = self.source.sample(self.recipe.block)
        return sample.crops, make_targets(self.decoder, sample, self.config.keypoints)

    def run(self, until: int) -> Iterator[dict[str, float]]:
        """Train up to step ``until``, giving each step's weighted loss terms."""
        recipe = self.recipe
        if self._pool is None:
            self._pool = CropPool(self._render, recipe.blocks, first=self.step // recipe.refresh)
        while self.step < until:
            if self.step // recipe.refresh > self._pool.first:
                self._pool.advance()
            generator = torch.Generator().manual_seed((recipe.seed << 32) + (1 << 31) + self.step)
            yield self._train(*self._pool.draw(recipe.batch, generator))

    def _train(self, crops: Tensor, targets: Targets) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * self._rate()
        self.network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
            prediction = self.network(crops)
        prediction = Prediction(*(None if part is None else part.float() for part in prediction))
        terms = self.objective(prediction, targets)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        self._average()
        return {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in terms.items()}}

    def _rate(self) -> float:
        """Share of the highest learning rate at this step."""
        recipe = self.recipe
        if self.step < recipe.warmup:
            return (self.step + 1) / recipe.warmup
        done = (self.step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights a little towards the current ones; at the start, faster."""
        keep = min(self.recipe.average, self.step / (self.step + 10))
        for old, new in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - keep)
            else:
                old.copy_(new)

    def checkpoint(self) -> Checkpoint:
        """The averaged network as a checkpoint."""
        return Checkpoint.of(self.averaged)

    def save(self, path: Path) -> None:
        """Write all that :meth:`load` needs to go on, whole or not at all."""
        state = {
            "format": STATE_FORMAT,
            "recipe": asdict(self.recipe),
            "config": self.config.to_dict(),
            "matching": asdict(self.matching),
            "weights": asdict(self.weights),
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "guidance": self.guidance.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_atomically(state, path)

    @classmethod
    def load(cls, path: Path, body: Body, backgrounds: Path | None = None) -> "Trainer":
        """Go on from a state that :meth:`save` wrote.

        Raises:
            CheckpointError: The file is missing, damaged or something else.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state["format"] != STATE_FORMAT:
                raise ValueError("it is not a training state")
            trainer = cls(
                GLNetConfig.from_dict(state["config"]),
                Recipe(**state["recipe"]),
                body,
                matching=Matching(**state["matching"]),
                weights=LossWeights(**state["weights"]),
                backgrounds=backgrounds,
            )
            trainer.network.load_state_dict(state["network"])
            trainer.averaged.load_state_dict(state["averaged"])
            trainer.guidance.load_state_dict(state["guidance"])
            trainer.optimizer.load_state_dict(state["optimizer"])
            trainer.step = state["step"]
        except Exception as error:  # torch raises several kinds for damaged archives
            raise CheckpointError(
                f"The training state {path} was not read.",
                why=first_line(error),
                fix="start anew in another directory, or copy the state again",
            ) from error
        return trainer
