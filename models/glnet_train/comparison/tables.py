"""The tables: what their rows change, and the poster's numbers on 3DPW beside them."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from glnet_infer.errors import InputError, first_line
from glnet_infer.fields import FieldError, read_record
from glnet_infer.files import read_json


@dataclass(frozen=True)
class Row:
    """A row: what it changes, and what it is compared with.

    Attributes:
        name: Name in the table.
        config: Fields of :class:`glnet.config.GLNetConfig`.
        recipe: Fields of :class:`glnet_train.recipe.Recipe`.
        matching: Fields of :class:`glnet_train.objective.matching.Matching`.
        weights: Fields of :class:`glnet_train.objective.losses.LossWeights`.
        against: Name of the row that the report compares this one with; none if empty.
        poster: The poster's scores on 3DPW, by the names of ours.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    matching: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    against: str = ""
    poster: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: Heading in the report.
        rows: Rows, in order.
        decisive: Scores by which rows are compared with each other.
    """

    title: str
    rows: tuple[Row, ...]
    decisive: tuple[str, ...] = ("mpjpe_mm",)

    def problems(self) -> list[str]:
        """Sentences about values that are not valid."""
        names = [row.name for row in self.rows]
        problems = [f"no row is named {row.against!r}" for row in self.rows if row.against and row.against not in names]
        if len(set(names)) < len(names):
            problems.append("two rows have one name")
        if not names or not all(names):
            problems.append("a row has no name" if names else "there is no row")
        problems += [f"{each!r} is not one of {', '.join(COMPARED)}" for each in self.decisive if each not in COMPARED]
        return problems


COMPARED = ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "keypoint_px", "coco_ap")
"""Scores in a table."""


def _errors(pa_mpjpe: float, mpjpe: float, pve: float) -> dict[str, float]:
    return {"pa_mpjpe_mm": pa_mpjpe, "mpjpe_mm": mpjpe, "pve_mm": pve}


class _Switches(TypedDict):
    config: dict[str, Any]
    matching: dict[str, Any]


_POSTERS = {"static_share": 0.0, "confidence_cost": 1.0}
"""The poster's dynamic matching."""


def _switches(local_encoding: bool, dynamic: bool, swing_twist: bool) -> _Switches:
    return {
        "config": {"local_encoding": local_encoding, "swing_twist": swing_twist},
        "matching": _POSTERS | ({} if dynamic else {"static_share": 1.0}),
    }


_WHOLE = _switches(True, True, True)
_BEST = _errors(39.7, 66.3, 77.7)


def _positives(count: int, precision: float, pve: float) -> Row:
    name, middle = f"N = {count}", "N = 20"
    matching = {**_WHOLE["matching"], "positives": count}
    poster = {"pve_mm": pve, "coco_ap": precision}
    return Row(name, _WHOLE["config"], matching=matching, against="" if name == middle else middle, poster=poster)


def _guided(name: str, guidance: str, poster: dict[str, float]) -> Row:
    against = "" if guidance == "keypoints" else "2D keypoints"
    return Row(name, **_WHOLE, recipe={"guidance": guidance}, against=against, poster=poster)


def _cost(name: str, costs: str, poster: dict[str, float]) -> Row:
    matching = {**_WHOLE["matching"], "costs": costs}
    against = "" if costs == "keypoints" else "cls + 2D keypoints"
    return Row(name, _WHOLE["config"], matching=matching, against=against, poster=poster)


TABLES: dict[str, Table] = {
    "2": Table(
        "Table 2: what each component contributes",
        (
            Row("baseline", **_switches(False, False, False), poster=_errors(49.6, 76.9, 88.0)),
            Row("LEM", **_switches(True, False, False), against="baseline", poster=_errors(43.7, 74.3, 82.3)),
            Row("DMS", **_switches(False, True, False), against="baseline", poster=_errors(43.5, 73.1, 81.2)),
            Row("LEM + DMS", **_switches(True, True, False), against="LEM", poster=_errors(40.8, 68.7, 79.7)),
            Row("LEM + DMS + decomposed", **_WHOLE, against="LEM + DMS", poster=_BEST),
        ),
    ),
    "3": Table(
        "Table 3: the annotation that guides local encoding",
        (
            _guided("segmentation map", "segmentation", _errors(41.3, 72.2, 82.1)),
            _guided("IUV map", "iuv", _errors(40.7, 70.9, 80.5)),
            _guided("2D keypoints", "keypoints", _BEST),
            _guided("none", "none", {}),
        ),
    ),
    "6": Table(
        "Table 6: the matching cost",
        (
            _cost("cls + 2D keypoints", "keypoints", _BEST),
            _cost("cls + 2D keypoints + depth", "keypoints+depth", _errors(42.3, 70.4, 80.2)),
            _cost("cls + 2D keypoints + depth + rotation", "keypoints+depth+rotation", _errors(41.2, 71.3, 80.6)),
        ),
    ),
    "positives": Table(
        "Number of positive pixels",
        (
            _positives(1, 73.4, 81.1),
            _positives(10, 74.4, 77.5),
            _positives(20, 74.6, 77.7),
            _positives(50, 74.6, 77.9),
            _positives(100, 74.3, 79.5),
        ),
        decisive=("pve_mm", "coco_ap"),
    ),
    "matching": Table(
        "Matching: static, the poster's dynamic, and one after the other",
        (
            Row("static", **_switches(True, False, True)),
            Row("dynamic, the poster's", **_WHOLE, against="static"),
            Row("static, then dynamic", _WHOLE["config"], against="static"),
        ),
        decisive=("mpjpe_mm", "keypoint_px"),
    ),
}
"""The poster's ablations, and what is trained by default beside them. Rows without guidance of their own have the
comparison's."""


def read_table(path: Path) -> Table:
    """A table of one's own from a JSON file, such as experiments; ``docs/training.md`` shows one.

    Raises:
        InputError: The file is missing, or is no table.
    """
    fix = "write it as docs/training.md shows"
    document = read_json(path, InputError, fix=fix)
    try:
        table = read_record(Table, document)
        for kind, given, where in ((Table, document, "it"), *((Row, row, "a row") for row in document["rows"])):
            unknown = set(given) - {each.name for each in fields(kind)}
            if unknown:
                raise FieldError(f"{where} has {', '.join(sorted(unknown))}, which no table has")
    except FieldError as error:
        raise InputError(f"{path} is not a table to compare.", why=first_line(error), fix=fix) from error
    return table
