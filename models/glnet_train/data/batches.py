"""The batch of every step: rendered crops from a pool, real crops from a mixture."""

import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from glnet.config import GLNetConfig
from glnet.decoding import Decoder
from glnet_infer.errors import InputError
from glnet_render import Spread, SyntheticSample, SyntheticSource
from glnet_render.seeds import BLOCKS, PERSONS, STEPS, derived
from glnet_render.targets import HIDDEN_WEIGHT, Batch, Targets
from glnet_train.data import AnnotatedImages, Mixture, Sample, collate
from glnet_train.data.augmentation import augment, jittered
from glnet_train.data.pool import CropPool
from glnet_train.distributed import Processes
from glnet_train.recipe import Recipe

READERS = 4
"""Threads that read real images; OpenCV decodes without Python's lock."""

SUBSTITUTES = 10
"""Persons that are tried in place of one whose image cannot be read."""


def make_targets(decoder: Decoder, sample: SyntheticSample, keypoints: int) -> Targets:
    """Labels of synthetic crops. All are known: the whole body is what has to be recovered."""
    estimate = decoder.encode(sample.rotations, sample.betas, sample.translation, sample.cameras)
    extra = keypoints - estimate.keypoints.shape[1]
    pad = torch.nn.functional.pad
    estimate = estimate._replace(
        keypoints=pad(estimate.keypoints, (0, 0, 0, extra)), depths=pad(estimate.depths, (0, extra))
    )
    seen = sample.visibility.to(sample.betas)
    ones = torch.ones_like
    one = ones(sample.betas[:, :1])
    return Targets(
        estimate=estimate,
        keypoint_weights=pad(HIDDEN_WEIGHT + (1 - HIDDEN_WEIGHT) * seen, (0, extra)),
        depth_weights=pad(ones(seen), (0, extra)),
        rotation_weights=ones(estimate.rotation[..., 0]),
        shape_weights=one,
        scale_weights=one,
        rotations=sample.rotations,
        pose_weights=ones(sample.rotations[..., 0, 0]),
        cameras=sample.cameras,
        segments=sample.segments,
        places=sample.places,
    )


class Batches:
    """The batch of every step, which depends on seed, step and process alone.

    Args:
        recipe: Shares, sizes and seed.
        config: The network that is trained.
        decoder: Makes the labels of rendered crops.
        source: Renders crops.
        processes: Each process draws its own crops.
        real: Real crops; needed where the recipe leaves room for them.

    Raises:
        InputError: Real crops are wanted and there is no mixture, or the other way round; or the processes cannot share
            the batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: GLNetConfig,
        decoder: Decoder,
        source: SyntheticSource,
        processes: Processes,
        real: Mixture | None = None,
    ) -> None:
        own = recipe.batch // processes.count
        if own * processes.count != recipe.batch or own < 2:
            raise InputError(
                f"{recipe.batch} crops per step cannot be shared by {processes.count} processes.",
                why="each needs the same number, two at least",
                fix="choose another --batch",
            )
        self._rendered = round(own * recipe.synthetic)
        self._real = own - self._rendered
        if (self._real > 0) != (real is not None):
            raise InputError(
                "Shares and datasets do not agree.",
                why=f"{self._real} of {own} crops per process are real, and there {'are' if real else 'is'} "
                f"{'datasets' if real else 'no dataset'}",
                fix="give --data together with --synthetic below 1",
            )
        self.recipe, self.config, self.processes = recipe, config, processes
        self._decoder, self._source, self._mixture = decoder, source, real
        self._pool: CropPool | None = None
        self._readers = ThreadPoolExecutor(READERS) if real else None
        self._ahead: tuple[int, Future[Batch]] | None = None

    def prepare(self, step: int) -> Iterator[tuple[int, int]]:
        """Render the blocks that the training needs before ``step``; yields how many are done, and how many there are."""
        if self._rendered and self._pool is None:
            self._pool = CropPool(self._render, self.recipe.blocks, step // self.recipe.refresh)
        if self._pool is not None:
            yield from self._pool.fill()

    def at(self, step: int) -> Batch:
        """The batch of a step, on the process's device. Steps must come in order, from any first one."""
        number = step * self.processes.count + self.processes.rank
        own = torch.Generator().manual_seed(derived(self.recipe.seed, STEPS, number))
        parts = []
        if self._rendered:
            parts.append(self._pool_at(step).draw(self._rendered, own))
        if self._real:
            parts.append(self._real_at(step))
        targets = Targets.concatenate([part.targets for part in parts])
        batch = Batch(torch.cat([part.crops for part in parts]), targets)
        return augment(batch, own, self.recipe.turning(step), rendered=self._rendered)

    def _pool_at(self, step: int) -> CropPool:
        for _ in self.prepare(step):
            pass
        assert self._pool is not None
        while self._pool.first < step // self.recipe.refresh:
            self._pool.advance()
        return self._pool

    def _render(self, block: int) -> Batch:
        """This process's block number ``block``, whatever was rendered before."""
        number = block * self.processes.count + self.processes.rank
        difficulty = min(1.0, number / self.recipe.curriculum) if self.recipe.curriculum else 1.0
        entered = max(block + 1 - self.recipe.blocks, 0) * self.recipe.refresh
        spread = Spread(difficulty, self.recipe.tilted * self.recipe.turning(entered), self.recipe.bystanders)
        self._source.begin(derived(self.recipe.seed, BLOCKS, number), spread)
        sample = self._source.sample(self.recipe.block)
        return Batch(sample.crops, make_targets(self._decoder, sample, self.config.keypoints))

    def _real_at(self, step: int) -> Batch:
        """Real crops of a step; those of the next are read meanwhile."""
        batch = self._ahead[1] if self._ahead and self._ahead[0] == step else self._read(step)
        self._ahead = (step + 1, self._read(step + 1))
        return batch.result().to(self.processes.device)

    def _read(self, step: int) -> "Future[Batch]":
        mixture, readers = self._mixture, self._readers
        assert mixture is not None and readers is not None
        first = (step * self.processes.count + self.processes.rank) * self._real
        # Persons are picked in the main thread: the mixture's plan is not thread-safe.
        picks = [mixture.pick(first + index) for index in range(self._real)]
        samples = [
            readers.submit(self._load, mixture.datasets[dataset], person, derived(self.recipe.seed, PERSONS, first + index))
            for index, (dataset, person) in enumerate(picks)
        ]
        return readers.submit(lambda: Batch(*collate([sample.result() for sample in samples], self.config)))

    @staticmethod
    def _load(dataset: AnnotatedImages, person: int, seed: int) -> Sample:
        """A person, or another whose image can be read: one damaged file of a million must not end a training."""
        draw = np.random.default_rng(seed)
        for _ in range(SUBSTITUTES):
            try:
                return dataset.load(person, jittered(dataset[person].box, draw))
            except InputError as error:
                warnings.warn(f"{error.what} Another person stands in.", RuntimeWarning, stacklevel=2)
                person = int(draw.integers(len(dataset)))
        return dataset.load(person)
