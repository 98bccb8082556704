"""Training and scoring of rows, each in a folder of its own, so that an interrupted comparison goes on.

Where the configuration lets keypoints start at part points, they do so in the rows that have part points; in the others
they start at the pixel. Rows are trained one after the other in this process, on the GPU where there is one.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glnet.backbones import BackboneWeights
from glnet.backend import TorchBackend
from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet_infer.errors import CheckpointError, InputError, first_line
from glnet_infer.fields import FieldError, read_record
from glnet_infer.files import make_directory, read_json, replace_file
from glnet_infer.numbers import is_number
from glnet_train.comparison.intervals import Scored
from glnet_train.comparison.tables import Row
from glnet_train.distributed import Processes
from glnet_train.fit.loop import STATE, run_training
from glnet_train.fit.progress import Progress
from glnet_train.fit.state import read_state
from glnet_train.fit.trainer import Trainer
from glnet_train.objective.losses import LossWeights
from glnet_train.objective.matching import Matching
from glnet_train.recipe import Recipe
from glnet_train.scores import evaluate

BUDGET, SCORES = "comparison.json", "scores.json"
KEPT = ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "keypoint_px", "oks", "confidence")
"""Scores of every crop that a row's file holds."""

LONGEST_NAME = 40
"""Characters of a row's name in that of its folder."""

SAVE_EVERY = 200
"""Steps between two saved states of a row, and between two lines of its progress."""


@dataclass(frozen=True)
class Budget:
    """What all rows of a comparison share, but for what a row changes.

    Attributes:
        config: The network.
        recipe: The recipe; its seed is the first one.
        crops: Held-out crops to score on.
        backbone: Weights of the backbone that every row starts from, as the poster's do; the rest starts anew.
    """

    config: GLNetConfig
    recipe: Recipe
    crops: int
    backbone: BackboneWeights | None = None

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The budget as plain values; weights by their digest, which takes a moment."""
        document = {"config": self.config.to_dict(), "recipe": asdict(self.recipe), "crops": self.crops}
        plain: dict[str, Any] = json.loads(json.dumps({**document, "backbone": _digest(self.backbone)}))
        return plain


@dataclass(frozen=True)
class Run:
    """One training of a row: its settings with the row's changes.

    Attributes:
        name: Name of the row.
        config: The network.
        recipe: The recipe, with this run's seed.
        matching: Choice of positive pixels.
        weights: Weights of the loss terms.
        budget: The budget.
    """

    name: str
    config: GLNetConfig
    recipe: Recipe
    matching: Matching
    weights: LossWeights
    budget: Budget

    @classmethod
    def of(cls, row: Row, budget: Budget, seed: int) -> "Run":
        """The training of a row with a seed.

        Raises:
            InputError: The row changes what is not there, or to what it cannot be.
        """
        try:
            if "seed" in row.recipe:
                raise FieldError("its recipe has a seed; seeds are the command's, and the same for all rows")
            document = budget.config.to_dict()
            for name, value in row.config.items():
                inner = isinstance(value, dict) and isinstance(document.get(name), dict)
                document[name] = {**document[name], **value} if inner else value
            if "keypoint_origin" not in row.config and budget.config.starts_at_points:
                document["keypoint_origin"] = "part" if document["local_encoding"] else "pixel"
            config = GLNetConfig.from_dict(document)
            recipe = _changed(budget.recipe, {**row.recipe, "seed": seed}, "recipe")
            matching, weights = (
                _changed(Matching(), row.matching, "matching"),
                _changed(LossWeights(), row.weights, "weights"),
            )
        except (FieldError, InputError, CheckpointError) as error:
            why = getattr(error, "why", "") or first_line(error)
            raise InputError(
                f"The row {row.name!r} cannot be trained.",
                why=why,
                fix="name fields of config, recipe, matching or weights",
            ) from error
        return cls(row.name, config, recipe, matching, weights, budget)

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        parts = {name: asdict(getattr(self, name)) for name in ("config", "recipe", "matching", "weights")}
        shared = {name: self.budget.plain[name] for name in ("crops", "backbone")}
        plain: dict[str, Any] = json.loads(json.dumps({**parts, **shared}))
        return plain

    def folder(self, directory: Path) -> Path:
        """The run's folder, which runs of the same settings share, whatever their rows are called."""
        digest = hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()[:12]
        found = sorted(directory.glob(f"*.{digest}"))
        name = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:LONGEST_NAME]
        return found[0] if found else directory / f"{name}.seed-{self.recipe.seed}.{digest}"

    def scores(self, directory: Path) -> Scored | None:
        """Scores of every crop, or None where the run is not finished.

        Raises:
            InputError: The file is damaged or something else.
        """
        path = self.folder(directory) / SCORES
        if not path.is_file():
            return None
        fix = "delete its folder: the row is then trained anew"
        document = read_json(path, InputError, fix=fix)
        try:
            if document["settings"] != self.settings():
                raise ValueError("its settings are those of another row")
            found = {name: document["scores"][name] for name in KEPT}
            for name, values in found.items():
                if not isinstance(values, list) or len(values) != self.budget.crops:
                    raise ValueError(f"{name} are not {self.budget.crops} numbers")
                if not all(each is None or is_number(each) for each in values):
                    raise ValueError(f"{name} are not all numbers")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not a row of this table.", why=first_line(error), fix=fix) from error
        return {name: np.array(values, dtype=np.float64) for name, values in found.items()}

    def train(self, directory: Path, body: Body, report: Callable[[str], None]) -> bool:
        """Train and score the run, or go on with it.

        Args:
            directory: Folder of the comparison.
            body: The body in the crops.
            report: Called with a line of text now and then.

        Returns:
            Whether the user stopped it; its state is saved then.
        """
        folder = self.folder(directory)
        make_directory(folder)
        processes = Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        if (folder / STATE).is_file():
            training = Trainer.load(read_state(folder / STATE), body, processes=processes)
        else:
            training = Trainer(
                self.config,
                self.recipe,
                body,
                matching=self.matching,
                weights=self.weights,
                initial=self.budget.backbone,
                processes=processes,
            )
        if run_training(training, folder, SAVE_EVERY, _Lines(f"{self.name}, seed {self.recipe.seed}", self.recipe, report)):
            return True
        evaluation = evaluate(TorchBackend(training.recovery()), copy.deepcopy(body), self.config.crop, self.budget.crops)
        scores = {}
        for name in KEPT:
            values = evaluation.scores.values(name).tolist()
            scores[name] = [value if is_number(value) else None for value in values]
        text = json.dumps({"settings": self.settings(), "scores": scores}, indent=1, allow_nan=False) + "\n"
        replace_file(folder / SCORES, text.encode())
        (folder / STATE).unlink(missing_ok=True)  # checkpoint and log stay, to look into
        return False


class _Lines(Progress):
    """Tells of a run's steps, line by line."""

    def __init__(self, name: str, recipe: Recipe, report: Callable[[str], None]) -> None:
        self._name, self._steps, self._report = name, recipe.steps, report

    def trained(self, step: int, seconds: float, losses: dict[str, float]) -> None:
        """Print a line now and then."""
        if step % SAVE_EVERY == 0 or step == self._steps:
            self._report(f"{self._name}: step {step}/{self._steps}  {seconds:.0f} s  loss {losses['loss']:.2f}")

    def note(self, text: str) -> None:
        """Print a message."""
        self._report(f"{self._name}: {text}")


def open_comparison(directory: Path, budget: Budget) -> None:
    """Begin a comparison in a folder, or go on with it.

    Raises:
        InputError: The folder holds one of another budget.
    """
    path, fix = directory / BUDGET, "name another folder: rows of one table share their budget"
    if path.is_file():
        if read_json(path, InputError, fix=fix) != budget.plain:
            raise InputError(
                f"{directory} holds another comparison.",
                why="its rows were trained with another recipe, network, backbone, seed or number of crops",
                fix=fix,
            )
        return
    make_directory(directory)
    replace_file(path, (json.dumps(budget.plain, indent=2) + "\n").encode())


def _changed(base: Any, changes: dict[str, Any], where: str) -> Any:
    """A record with some fields changed.

    Raises:
        FieldError: A field is not there, or its value is of another kind.
        InputError: Its value cannot be.
    """
    names = [each.name for each in fields(base)]
    unknown = sorted(set(changes) - set(names))
    if unknown:
        raise FieldError(f"{where} has no {', '.join(unknown)}, but {', '.join(names)}")
    return read_record(type(base), {**asdict(base), **changes}, where)


def _digest(weights: BackboneWeights | None) -> str | None:
    """A digest that differs where the weights do."""
    if weights is None:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(weights.state.items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()
