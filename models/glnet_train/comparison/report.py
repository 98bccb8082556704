"""The report of a comparison: tables beside the poster's numbers, and what can and cannot be read from them."""

from collections.abc import Sequence
from pathlib import Path

from glnet_train.comparison.intervals import COVERAGE, Interval, Scored, over_crops
from glnet_train.comparison.rows import Budget, Run
from glnet_train.comparison.tables import COMPARED, Row, Table

REPORT = "report.md"
COLUMNS = {"pa_mpjpe_mm": "PA-MPJPE", "mpjpe_mm": "MPJPE", "pve_mm": "PVE", "keypoint_px": "keypoints px", "coco_ap": "AP"}
UNITS = {"keypoint_px": "px", "coco_ap": "points"}
DIGITS = {"keypoint_px": 2}
UPWARDS = ("coco_ap",)
"""Scores that are better the higher they are."""

LIMITS = """\
- Errors are in millimetres, means over all seeds. Brackets hold {coverage:.0%} of the bootstrap's resamples of the crops.
- Differences are of pairs: both rows see the same held-out crops. Intervals do not hold the chance of a training, which
  shows between seeds alone.
- The poster's numbers are of 3DPW's photographs and of whole trainings. Ours are of rendered crops and of this budget. Only
  the order of rows may be compared, never the numbers.
- Budgets of CPUs are small. A row that loses here may win in a longer training: what needs good predictions to help, such
  as dynamic matching, is at a disadvantage while predictions are poor.
- AP is COCO's precision of the regressed keypoints, over the ten limb keypoints that COCO shares. The poster's has COCO's
  photographs and, as far as is known, all 17.
"""


def report(tables: Sequence[Table], budget: Budget, seeds: Sequence[int], directory: Path) -> str:
    """All that a comparison has found so far, as Markdown.

    Args:
        tables: The tables.
        budget: The budget of their rows.
        seeds: Seeds of the trainings.
        directory: Folder of the comparison.

    Raises:
        InputError: A row's file is damaged.
    """
    recipe = budget.recipe
    start = "random weights" if budget.backbone is None else "trained weights, and all else anew"
    parts = [
        "# Rows of one budget, on rendered crops",
        f"- Budget: {recipe.steps} steps of {recipe.batch} crops, {recipe.steps * recipe.batch:,} crops a row.\n"
        f"- Network: `{budget.config.name}`. Its backbone starts from {start}.\n"
        f"- Guidance: `{recipe.guidance}`, where a row names no other.\n"
        f"- Seeds: {', '.join(map(str, seeds))}. Held-out crops: {budget.crops}.",
        "## How to read this",
        LIMITS.format(coverage=COVERAGE).strip(),
    ]
    for table in tables:
        found = {row.name: _scores(row, budget, seeds, directory) for row in table.rows}
        parts += [f"## {table.title}", _table(table, found), _reading(table, found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(row: Row, budget: Budget, seeds: Sequence[int], directory: Path) -> dict[int, Scored]:
    """Scores of a row's finished runs by seed."""
    runs = {seed: Run.of(row, budget, seed).scores(directory) for seed in seeds}
    return {seed: scores for seed, scores in runs.items() if scores is not None}


def _table(table: Table, found: dict[str, dict[int, Scored]]) -> str:
    posters = [name for name in COMPARED if any(name in row.poster for row in table.rows)]
    heads = ["", *(COLUMNS[name] for name in COMPARED), "seeds", *(f"poster: {COLUMNS[name]}" for name in posters)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in table.rows:
        scored = list(found[row.name].values())
        ours = [_cell(over_crops(scored, name), name) if scored else "not trained" for name in COMPARED]
        theirs = [f"{row.poster[name]:.1f}" if name in row.poster else "-" for name in posters]
        lines.append(f"| {' | '.join([row.name, *ours, str(len(scored)), *theirs])} |")
    return "\n".join(lines)


def _cell(interval: Interval, name: str) -> str:
    digits = DIGITS.get(name, 1)
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _reading(table: Table, found: dict[str, dict[int, Scored]]) -> str:
    """A line for every pair of rows that are compared, as far as both are trained."""
    posters = {row.name: row.poster for row in table.rows}
    lines = []
    for row in table.rows:
        seeds = sorted(found[row.name].keys() & found.get(row.against, {}).keys())
        if not seeds:
            continue
        for name in table.decisive:
            ours, theirs = ([found[each][seed] for seed in seeds] for each in (row.name, row.against))
            together = over_crops(ours, name, theirs)
            by_seed = [over_crops([mine], name, [other]).value for mine, other in zip(ours, theirs, strict=True)]
            text = f"- **{row.name}** against {row.against}: {COLUMNS[name]} {_signed(together, name)}"
            if len(seeds) > 1:
                text += f", by seed {', '.join(f'{value:+.{DIGITS.get(name, 1)}f}' for value in by_seed)}"
            text += f": {_verdict(together, by_seed, name)}."
            if name in posters[row.name] and name in posters[row.against]:
                change = posters[row.name][name] - posters[row.against][name]
                text += f" On the poster {change:+.1f}{_agreement(together, by_seed, change)}."
            lines.append(text)
    return "\n".join(lines)


def _signed(interval: Interval, name: str) -> str:
    digits = DIGITS.get(name, 1)
    unit = UNITS.get(name, "mm")
    return f"{interval.value:+.{digits}f} {unit} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


def _is_told_apart(together: Interval, by_seed: Sequence[float]) -> bool:
    """Whether a difference is clear of the chance of the crops, and has one sign in all seeds."""
    return together.clear and all(value * together.value > 0 for value in by_seed)


def _verdict(together: Interval, by_seed: Sequence[float], name: str) -> str:
    if not _is_told_apart(together, by_seed):
        return "not told apart"
    better = "better" if (together.value > 0) == (name in UPWARDS) else "worse"
    return better if len(by_seed) > 1 else f"{better} on these crops, by a single seed"


def _agreement(together: Interval, by_seed: Sequence[float], change: float) -> str:
    if not _is_told_apart(together, by_seed) or not change:
        return ""
    return ", the same way" if together.value * change > 0 else ", the other way"
