"""The poster's Table 2 on synthetic crops: what each component contributes when all are trained on the same budget.

The rows share everything but their switches, including the guidance. Where the configuration lets keypoints start at part
points, they do so in the rows that have part points; in the others they start at the pixel. The rows are trained in this
process, on the CPU.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glnet.backbones import BackboneWeights
from glnet.backend import TorchBackend
from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet_infer.errors import InputError, first_line
from glnet_infer.files import read_json, replace_file
from glnet_infer.numbers import is_number
from glnet_train.fit.trainer import Trainer
from glnet_train.objective.matching import Matching
from glnet_train.recipe import Recipe
from glnet_train.scores import evaluate

ROWS: dict[str, tuple[bool, bool, bool]] = {
    "baseline": (False, False, False),
    "LEM": (True, False, False),
    "DMS": (False, True, False),
    "LEM + DMS": (True, True, False),
    "LEM + DMS + decomposed": (True, True, True),
}
"""Whether a row has the Local Encoding Module, the Dynamic Matching Strategy and the swing-twist decomposition."""


def train_rows(
    directory: Path,
    config: GLNetConfig,
    recipe: Recipe,
    body: Body,
    crops: int,
    rows: list[str],
    backbone: BackboneWeights | None,
    report: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Train and score rows of the table, those that the directory does not hold yet.

    Args:
        directory: Folder of the rows' scores; an interrupted comparison goes on from there.
        config: The network of all rows, but for their switches.
        recipe: The recipe of all rows.
        body: The body in the crops.
        crops: Held-out crops to score on.
        rows: Names in :data:`ROWS`.
        backbone: Weights of the backbone that every row starts from, as the poster's do; the rest starts anew.
        report: Called with a line of text now and then.

    Returns:
        Scores by row, of all rows that the directory holds.

    Raises:
        InputError: The directory holds rows of another budget.
    """
    budget = {"recipe": asdict(recipe), "config": config.to_dict(), "crops": crops, "backbone": _digest(backbone)}
    for name in rows:
        if name in _finished(directory, budget):
            continue
        local_encoding, dynamic, swing_twist = ROWS[name]
        origin = config.keypoint_origin
        if config.starts_at_points:
            origin = "part" if local_encoding else "pixel"
        network = dataclasses.replace(
            config, local_encoding=local_encoding, swing_twist=swing_twist, keypoint_origin=origin
        )
        trainer = Trainer(network, recipe, body, matching=Matching(dynamic=dynamic))
        if backbone is not None:
            for each in (trainer.network, trainer.averaged):
                backbone.load_into(each.backbone)
        for terms in trainer.run(recipe.steps):
            if trainer.step % 200 == 0:
                report(f"{name}: step {trainer.step}/{recipe.steps}  loss {terms['loss']:.2f}")
        scores = evaluate(TorchBackend(trainer.recovery()), body, config.crop, crops).scores.summary().as_dict()
        text = json.dumps({"budget": budget, "scores": scores}, indent=2) + "\n"
        replace_file(directory / f"{name}.json", text.encode())
    return _finished(directory, budget)


_SHOWN = ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "keypoint_px")
"""Scores that the table has."""


def _digest(weights: BackboneWeights | None) -> str | None:
    """A digest that differs where the weights do."""
    if weights is None:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(weights.state.items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _finished(directory: Path, budget: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Scores of the rows that the directory holds.

    Raises:
        InputError: One of them was trained on another budget.
    """
    scores = {}
    for name in ROWS:
        path = directory / f"{name}.json"
        if not path.is_file():
            continue
        fix = "delete it, or name another folder"
        document = read_json(path, InputError, fix=fix)
        try:
            same = document["budget"] == json.loads(json.dumps(budget))
            scores[name] = {key: document["scores"][key] for key in _SHOWN}
            if not all(map(is_number, scores[name].values())):
                raise TypeError("its scores are not all numbers")
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is not a row of this table.", why=first_line(error), fix=fix) from error
        if not same:
            raise InputError(
                f"{path} is of another comparison.",
                why="its row was trained with another recipe, network, backbone or number of crops",
                fix="name another folder: rows of one table share their budget",
            )
    return scores


def as_markdown(scores: dict[str, dict[str, float]]) -> str:
    """The table, in the poster's order."""
    lines = ["| | PA-MPJPE mm | MPJPE mm | PVE mm | keypoints px |", "|---|---|---|---|---|"]
    for name in ROWS:
        if name in scores:
            row = scores[name]
            values = (row["pa_mpjpe_mm"], row["mpjpe_mm"], row["pve_mm"])
            lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} | {row['keypoint_px']:.2f} |")
    return "\n".join(lines)
