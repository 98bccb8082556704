"""The poster's Table 2 on synthetic crops: what each component contributes when all are trained on the same budget."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from glnet.backend import TorchBackend
from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet.training.evaluation import evaluate
from glnet.training.matching import Matching
from glnet.training.recipe import Recipe
from glnet.training.trainer import Trainer

ROWS: dict[str, tuple[bool, bool, bool]] = {
    "baseline": (False, False, False),
    "LEM": (True, False, False),
    "DMS": (False, True, False),
    "LEM + DMS": (True, True, False),
    "LEM + DMS + decomposed": (True, True, True),
}
"""Local Encoding Module, Dynamic Matching Strategy, swing-twist decomposition; as in the poster."""


def train_rows(
    directory: Path,
    config: GLNetConfig,
    recipe: Recipe,
    body: Body,
    crops: int,
    rows: list[str],
    said: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Train and score rows of the table, those that the directory does not hold yet.

    Args:
        directory: Each row's scores are kept here, so that an interrupted comparison goes on.
        config: Of all rows but for their switches.
        recipe: Of all rows.
        body: In the crops.
        crops: Held-out crops to score on.
        rows: Names in :data:`ROWS`.
        said: Called with what is going on.

    Returns:
        Scores by row, of all rows that the directory holds.
    """
    for name in rows:
        path = directory / f"{name}.json"
        if path.is_file():
            continue
        local_encoding, dynamic, swing_twist = ROWS[name]
        network = dataclasses.replace(config, local_encoding=local_encoding, swing_twist=swing_twist)
        trainer = Trainer(network, recipe, body, matching=Matching(dynamic=dynamic))
        for terms in trainer.run(recipe.steps):
            if trainer.step % 200 == 0:
                said(f"{name}: step {trainer.step}/{recipe.steps}  loss {terms['loss']:.2f}")
        result = evaluate(TorchBackend(trainer.recovery()), body, config.crop.size, crops)
        path.write_text(json.dumps(result.scores.summary().as_dict(), indent=2) + "\n")
    found = {name: directory / f"{name}.json" for name in ROWS}
    return {name: json.loads(path.read_text()) for name, path in found.items() if path.is_file()}


def as_markdown(scores: dict[str, dict[str, float]]) -> str:
    """The table, in the poster's order."""
    lines = ["| | PA-MPJPE mm | MPJPE mm | PVE mm | keypoints px |", "|---|---|---|---|---|"]
    for name in ROWS:
        if name in scores:
            row = scores[name]
            values = (row["pa_mpjpe_mm"], row["mpjpe_mm"], row["pve_mm"])
            lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} | {row['keypoint_px']:.2f} |")
    return "\n".join(lines)
