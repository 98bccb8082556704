"""The speed of rendering and training on this machine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from glnet.body import Body
from glnet.config import GLNetConfig
from glnet_render import Spread, SyntheticSource
from glnet_train.distributed import Processes
from glnet_train.fit.trainer import Trainer
from glnet_train.recipe import Recipe

_WARM_UP = 2
"""Calls before anything is timed: libraries choose kernels, allocators grow."""


@dataclass(frozen=True)
class Speed:
    """The rate of some work.

    Attributes:
        per_second: Crops each second, by the median call.
        milliseconds: The median call.
        spread: Range of the middle half of the calls, relative to the median.
        calls: Calls that were timed.
    """

    per_second: float
    milliseconds: float
    spread: float
    calls: int


def rendering_speed(body: Body, config: GLNetConfig, crops: int, seconds: float, device: torch.device) -> Speed:
    """Crops rendered in blocks, with everything that a training sees: clothes, backgrounds, other persons, camera faults.

    Args:
        body: The body to render.
        config: Configuration of the network, for the size of its crops.
        crops: Crops of a block.
        seconds: Time to measure for.
        device: Device that renders the crops.
    """
    spread = Spread(1.0, Recipe.tilted, Recipe.bystanders)
    source = SyntheticSource(body, config.crop, seed=0, device=device, spread=spread)
    return _timed(lambda: source.sample(crops), crops, seconds, device)


def training_speed(
    body: Body, config: GLNetConfig, batch: int, precision: str, seconds: float, device: torch.device
) -> Speed:
    """Steps of a training on crops that are rendered already: forward, backward, optimizer, running average.

    Args:
        body: The body in the crops.
        config: Configuration of the network.
        batch: Crops of a step.
        precision: Precision of the training, one of :data:`glnet_train.recipe.PRECISIONS`.
        seconds: Time to measure for.
        device: Device that trains the network.
    """
    never = 1 << 30
    recipe = Recipe(steps=never, batch=batch, block=2 * batch, blocks=1, refresh=never, precision=precision)
    trainer = Trainer(config, recipe, body, processes=Processes(0, 1, device))
    for _ in trainer.prepare():
        pass
    return _timed(lambda: next(trainer.run(trainer.step + 1)), batch, seconds, device)


def _timed(work: Callable[[], object], crops: int, seconds: float, device: torch.device) -> Speed:
    def call() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for _ in range(_WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        times.append(call())
    middle = statistics.median(times)
    low, _, high = statistics.quantiles(times, n=4)
    return Speed(crops / middle, 1000 * middle, (high - low) / middle, len(times))
