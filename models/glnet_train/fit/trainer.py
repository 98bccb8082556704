"""A training: its steps, its state, and how it goes on after an interruption.

Everything random comes from the recipe's seed and the step's number, so a training that is stopped and resumed on the same
kind of machine with as many processes ends with the same weights as one that was not.
"""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from glnet.backbones import BackboneWeights
from glnet.body.smpl import Body
from glnet.checkpoint import Checkpoint
from glnet.config import GLNetConfig
from glnet.decoding import Decoder, GLNetRecovery
from glnet.random_init import random_recovery
from glnet.weights.fitting import fitted, layout
from glnet_infer.errors import CheckpointError, InputError, TrainingError, first_line
from glnet_infer.files import replace_file
from glnet_render import SyntheticSource
from glnet_render.targets import Targets
from glnet_train.data import Mixture
from glnet_train.data.batches import Batches
from glnet_train.distributed import Processes
from glnet_train.fit.inheritance import inherit
from glnet_train.fit.optimizer import Optimizer
from glnet_train.fit.state import STATE_FORMAT, STATE_VERSION
from glnet_train.objective.guidance import GUIDANCE_TERMS, Guidance
from glnet_train.objective.losses import LossWeights, Objective
from glnet_train.objective.matching import Matching
from glnet_train.recipe import PRECISIONS, Recipe

LEAST_SCALE = 1.0
"""Lowest loss scale. A gradient that overflows even here has diverged; float16 is not to blame."""

ALONE = Processes(0, 1, torch.device("cpu"))
"""This process alone, on the CPU."""


class _Step(nn.Module):
    """From a batch to its loss terms: the module whose gradients several processes share."""

    def __init__(self, objective: Objective, precision: torch.dtype) -> None:
        super().__init__()
        self.objective = objective
        self.precision = precision

    def forward(self, crops: Tensor, targets: Targets, done: float) -> dict[str, Tensor]:
        with torch.autocast(crops.device.type, self.precision, enabled=self.precision != torch.float32):
            prediction = self.objective.network(crops)
        terms: dict[str, Tensor] = self.objective(prediction, targets, done)
        return terms


class Trainer:
    """A training in progress.

    Args:
        config: The network.
        recipe: The numbers of the training.
        body: The body in the synthetic crops.
        matching: Choice of positive pixels.
        weights: Weights of the loss terms.
        backgrounds: Folder of photographs to put behind the persons; none gives procedural ones only.
        real: Real crops to mix in, for the share that the recipe leaves them.
        initial: Weights to start from: of a network (:func:`glnet_train.fit.inheritance.inherit`), or a backbone's alone.
        processes: The processes that train together; by default this one alone, on the CPU.
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
        real: Mixture | None = None,
        initial: Checkpoint | BackboneWeights | None = None,
        processes: Processes = ALONE,
    ) -> None:
        device = processes.device
        self.config, self.recipe, self.processes = config, recipe, processes
        self.matching, self.weights = matching or Matching(), weights or LossWeights()
        network = random_recovery(config, body, recipe.seed).network
        if isinstance(initial, BackboneWeights):
            initial.load_into(network.backbone)
        elif initial is not None:
            inherit(network, initial)
        self.network = network.to(device)
        self.decoder = Decoder(config, copy.deepcopy(body)).to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.guidance = Guidance(config, recipe.guidance, body).to(device)
        objective = Objective(self.network, self.decoder, self.matching, self.weights, self.guidance)
        precision = PRECISIONS[recipe.precision]
        self._step: nn.Module = _Step(objective, precision)
        if processes.count > 1:
            # Buffers are constants, and running statistics that do not enter the training: each process keeps its own.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of a successor that torch 2.9 lacks
                self._step = DistributedDataParallel(self._step, broadcast_buffers=False)
        self.averaged = copy.deepcopy(self.network).eval()
        self._parameters = [*self.network.parameters(), *self.guidance.parameters()]
        self.optimizer = Optimizer(
            self.network, list(self.guidance.parameters()), recipe.learning_rate, recipe.weight_decay
        )
        # Gradients of float16 need scaling, or the small ones vanish.
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        self.step = 0
        self.source = SyntheticSource(body, config.crop, seed=recipe.seed, device=device, backgrounds=backgrounds)
        self.batches = Batches(recipe, config, self.decoder, self.source, processes, real)

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Render the first crops ahead of the next step; yields how many blocks are done, and how many there are."""
        if self.step < self.recipe.steps:
            yield from self.batches.prepare(self.step)

    def run(self, until: int) -> Iterator[dict[str, float]]:
        """Train up to step ``until``; yields the weighted loss terms of each step by name."""
        while self.step < until:
            yield self._train(*self.batches.at(self.step))

    def _train(self, crops: Tensor, targets: Targets) -> dict[str, float]:
        self.optimizer.set_learning_rate(self.recipe.learning_rate * self.recipe.rate(self.step))
        self.network.train()
        terms = self._step(crops, targets, self.step / self.recipe.steps)
        guidance = self.recipe.guiding(self.step)
        loss = torch.stack([guidance * term if name in GUIDANCE_TERMS else term for name, term in terms.items()]).sum()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.optimizer.take_gradients(self.scaler)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip)
        if norm.isfinite():  # with float16, steps that overflow are left out, and the scale is lowered
            self.optimizer.step()
        elif self.scaler.get_scale() <= LEAST_SCALE or not self.scaler.is_enabled():
            raise TrainingError(
                f"The training diverged at step {self.step + 1}.",
                why=f"the loss is {float(loss.detach())} and the gradient is not finite",
                fix="go on from the last saved state with a lower learning rate: --initial CHECKPOINT --learning-rate",
            )
        self.scaler.update()
        self.step += 1
        self._average()
        values = torch.stack(list(terms.values())).detach().tolist()
        # Reported losses weigh the guidance fully to the end, so that one step compares with another.
        return {"loss": sum(values), **dict(zip(terms, values, strict=True))}

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights a little towards the current ones; at the start, faster."""
        keep = min(self.recipe.average, self.step / (self.step + 10))
        for old, new in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - keep)
            else:
                old.copy_(new)

    def recovery(self) -> GLNetRecovery:
        """The averaged network with its decoder, where the training runs."""
        return GLNetRecovery(self.averaged, self.decoder.body).eval()

    def checkpoint(self) -> Checkpoint:
        """The averaged network as a checkpoint."""
        return Checkpoint.of(self.averaged)

    def save(self, path: Path) -> None:
        """Write all that is needed to go on, whole or not at all; :func:`glnet_train.fit.state.read_state` reads it."""
        state = {
            "format": STATE_FORMAT,
            "version": STATE_VERSION,
            "recipe": asdict(self.recipe),
            "config": self.config.to_dict(),
            "matching": asdict(self.matching),
            "weights": asdict(self.weights),
            "step": self.step,
            "processes": self.processes.count,
            "photographs": self.source.photographs,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "guidance": self.guidance.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        replace_file(path, lambda file: torch.save(state, file))

    @classmethod
    def load(
        cls,
        state: dict[str, Any],
        body: Body,
        backgrounds: Path | None = None,
        real: Mixture | None = None,
        processes: Processes = ALONE,
    ) -> "Trainer":
        """Go on from a state that :func:`glnet_train.fit.state.read_state` read.

        Raises:
            CheckpointError: Its parts do not fit each other.
            InputError: It was begun with other photographs.
        """
        trainer = cls(
            GLNetConfig.from_dict(state["config"]),
            Recipe(**state["recipe"]),
            body,
            matching=Matching(**state["matching"]),
            weights=LossWeights(**state["weights"]),
            backgrounds=backgrounds,
            real=real,
            processes=processes,
        )
        if trainer.source.photographs != state["photographs"]:
            if state["photographs"] is None:
                why = "it was begun without any"
            elif backgrounds is None:
                why = "it was begun with some, and none are given"
            else:
                why = f"the files in {backgrounds} are not those that it was begun with"
            raise InputError(
                "The training cannot go on with other photographs behind the persons.",
                why=why,
                fix="give --backgrounds as at first, or begin another elsewhere (--initial takes the weights along)",
            )
        what, fix = "The training state does not fit its own configuration.", "copy the state again"
        try:
            for part in ("network", "averaged", "guidance"):
                module: nn.Module = getattr(trainer, part)
                module.load_state_dict(fitted(state[part], layout(module), what=what, fix=fix))
            for part in ("optimizer", "scaler"):
                getattr(trainer, part).load_state_dict(state[part])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(what, why=first_line(error), fix=fix) from error
        trainer.step = state["step"]
        before = state["processes"]
        if before != processes.count and processes.rank == 0:
            warnings.warn(
                f"{before} processes made this training, and {processes.count} go on with it: crops are shared out in "
                "another way, and some may come again",
                RuntimeWarning,
                stacklevel=2,
            )
        return trainer
