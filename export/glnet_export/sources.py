"""What is exported: a checkpoint of GLNet or of an adopted network, or random weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from glnet.adopted import ADOPTED_NAMES, KEY, AdoptedCheckpoint, adopt, read_adopted, untrained
from glnet.body import Body, find_body, load_body
from glnet.checkpoint import Checkpoint
from glnet.config import load_config
from glnet.decoding import GLNetRecovery
from glnet.random_init import random_recovery, settle_batch_norms
from glnet.recovery import MeshRecovery
from glnet_export.textures import textured_crops
from glnet_infer.bundle import record_file
from glnet_infer.bundle.records import FileRecord, NetworkRecord
from glnet_infer.errors import BodyError, CheckpointError, ExportError

_Read = TypeVar("_Read")

SETTLING_CROPS = 8
"""Crops that give a random network its batch statistics."""


class Loaded(NamedTuple):
    """What a source gives.

    Attributes:
        recovery: The recovery module in evaluation mode.
        network: The network's entry in the manifest.
        body_file: The body's file.
        notes: Sentences on the weights, for the user.
    """

    recovery: MeshRecovery
    network: NetworkRecord
    body_file: FileRecord
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """What to export: a checkpoint, or random weights of a configuration.

    Attributes:
        checkpoint: File, or None for random weights.
        config: Preset or file; for a bare state dict, and for random weights.
        seed: Seed of random weights.
        body: ``demo``, ``smpl`` or a file; the configuration's own where None.
        weights_key: Which weights of the checkpoint to take where it holds several.
        flip_test: Whether an adopted network looks at the mirrored crop as well.
    """

    checkpoint: Path | None = None
    config: str | None = None
    seed: int = 0
    body: str | None = None
    weights_key: str | None = None
    flip_test: bool = False

    def load(self) -> Loaded:
        """What is to be exported.

        Raises:
            CheckpointError: Checkpoint or configuration cannot be used.
            BodyError: The body file cannot be used.
        """
        if self.checkpoint is None:
            return self._untrained()
        weights, checkpoint = _recorded(self.checkpoint, self._read)
        if isinstance(checkpoint, AdoptedCheckpoint):
            return self._adopt(self.checkpoint, weights, checkpoint)
        if self.body is None and not checkpoint.says_body:
            raise BodyError(
                f"{self.checkpoint} does not say which body it was trained with.",
                why="it is a bare state dict",
                fix="give --body: smpl or a file for weights trained with SMPL, demo for the demo body",
            )
        body, file = self._load_body(checkpoint.config.body)
        recovery = GLNetRecovery(checkpoint.network(), body).eval()
        return Loaded(recovery, self._record(recovery, weights), file, checkpoint.notes)

    def _read(self, path: Path) -> Checkpoint | AdoptedCheckpoint:
        adopted = read_adopted(path, self.weights_key)
        if adopted is not None:
            return adopted
        if self.flip_test:
            raise CheckpointError(
                f"{path} has no flip test.",
                why="only networks that docs/public-checkpoints.md lists have one",
                fix="leave --flip-test out",
            )
        return Checkpoint.load(path, None if self.config is None else load_config(self.config), self.weights_key)

    def _adopt(self, path: Path, weights: FileRecord, adopted: AdoptedCheckpoint) -> Loaded:
        """A network of others.

        Raises:
            CheckpointError: Its weights are incomplete, or options do not go with it.
            BodyError: The body file cannot be used.
        """
        kind, state, notes = adopted
        if self.config is not None:
            raise CheckpointError(
                f"{path} is a checkpoint of {kind.title}.", why="its network is known", fix="leave --config out"
            )
        body, file = self._load_body("smpl")
        recovery = adopt(kind, state, body, flip_test=self.flip_test)
        other = recovery.other_body(state)
        warnings = (f"WARNING: {other}",) if other else ()
        return Loaded(
            recovery, self._record(recovery, weights), file, (*notes, f"{kind.title}, {kind.origin}", kind.terms, *warnings)
        )

    def _untrained(self) -> Loaded:
        """A network with random weights, GLNet's or of others, for measuring its speed."""
        recovery: MeshRecovery
        if self.config is None:
            raise ExportError("There is nothing to export.", fix="give a checkpoint, or --random-init PRESET")
        if self.config in ADOPTED_NAMES:
            body, file = self._load_body("demo")
            recovery = untrained({KEY: self.config, "flip_test": self.flip_test}, body, self.seed)
        else:
            config = load_config(self.config, others=ADOPTED_NAMES)
            body, file = self._load_body(config.body)
            recovery = random_recovery(config, body, self.seed)
        crops = textured_crops(SETTLING_CROPS, recovery.crop.size, self.seed)
        settle_batch_norms(recovery.network, torch.from_numpy(crops))
        record = NetworkRecord(
            recovery.name, "random", f"seed {self.seed}", "", recovery.to_document(), origin=recovery.origin
        )
        return Loaded(recovery, record, file, ())

    def _load_body(self, trained_with: str) -> tuple[Body, FileRecord]:
        record, body = _recorded(find_body(self.body or trained_with), lambda path: Body(load_body(path)))
        return body, record

    def _record(self, recovery: MeshRecovery, weights: FileRecord) -> NetworkRecord:
        """The entry of a network whose weights are a file."""
        return NetworkRecord(
            recovery.name,
            "checkpoint",
            weights.file,
            weights.sha256,
            recovery.to_document(),
            origin=recovery.origin,
            terms=recovery.terms,
            weights_key=self.weights_key or "",
        )


def _recorded(path: Path, read: Callable[[Path], _Read]) -> tuple[FileRecord, _Read]:
    """A file's record, and what is read from it.

    Raises:
        ExportError: The file changed meanwhile: record and content would be of two files.
    """
    before = None
    with suppress(OSError):  # what is wrong is told by who reads it
        before = record_file(path)
    content = read(path)
    record = record_file(path)
    if before is not None and record != before:
        raise ExportError(f"{path} changed while it was read.", why="its SHA-256 is another one", fix="export again")
    return record, content
