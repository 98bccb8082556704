"""What a run notes in its output, so that a later one goes on where it ended: all below one folder, :data:`FOLDER`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glnet_infer.errors import InputError
from glnet_infer.files import is_file, read_json, replace_file
from glnet_infer.jobs.items import Orders, Survey

FOLDER = "jobs"
"""Folder in the output for what a later run goes on with. Results lie beside it, and none is called so."""

_RERUN = "give another -o, or the options of the first run"


def folder_of(orders: Orders, name: str) -> Path:
    """Where what is seen in a video's chunks is kept until they are joined."""
    return orders.output / FOLDER / "videos" / name


def recording_of(orders: Orders, name: str, number: int) -> Path:
    """The file of a chunk."""
    return folder_of(orders, name) / f"{number:06d}.npz"


def keep_starts(orders: Orders, survey: Survey, starts: list[float]) -> None:
    """Keep where a video's chunks begin, so that a later run cuts it at the same places.

    Raises:
        OutputError: It cannot be written.
    """
    document = {**_identity(survey.video), "starts": starts}
    replace_file(folder_of(orders, survey.name) / "survey.json", json.dumps(document).encode())


def kept_starts(orders: Orders, survey: Survey) -> list[float] | None:
    """Where a video's chunks begin; None where nobody knows, or the video was changed."""
    path = folder_of(orders, survey.name) / "survey.json"
    if not is_file(path):
        return None
    try:
        document = read_json(path, InputError, fix="")
        identity, starts = _identity(survey.video), document.pop("starts")
        good = document == identity and all(isinstance(start, float) for start in starts)
    except (InputError, AttributeError, KeyError, TypeError):
        return None
    return starts if good else None


def _identity(video: str) -> dict[str, Any]:
    state = Path(video).stat()
    return {"version": 1, "bytes": state.st_size, "modified": state.st_mtime_ns}


def check_record(orders: Orders, results: Sequence[Path]) -> None:
    """Note what the results depend on, so that a later run with the same output does not mix in others.

    Args:
        orders: What is wanted.
        results: The files that would be written.

    Raises:
        InputError: The output holds results of other options or another bundle, or of a run that noted nothing.
        OutputError: It cannot be noted.
    """
    path = orders.output / FOLDER / "job.json"
    record = orders.record()
    if not is_file(path) or not _is_begun(orders.output):
        there = next((file for file in results if is_file(file)), None)
        if there is not None:
            raise InputError(
                f"{there} is there already.",
                why="nothing says which bundle and options it comes from, and results that are there are not made again",
                fix="give another -o, or remove it",
            )
        replace_file(path, json.dumps(record, indent=2).encode())
        return
    known = read_json(path, InputError, fix=_RERUN)
    differing = [key for key in record if not isinstance(known, dict) or known.get(key) != record[key]]
    if differing:
        raise InputError(
            f"{orders.output} holds results of another run.", why=f"it differs in: {', '.join(differing)}", fix=_RERUN
        )


def _is_begun(output: Path) -> bool:
    """Whether a run has left anything in an output but the note of what it wanted."""
    inside = (*output.iterdir(), *(output / FOLDER).iterdir(), *(output / FOLDER / "videos").iterdir())
    return any(path.name not in (FOLDER, "videos", "job.json") for path in inside if not path.name.startswith("."))


def read_set_aside(output: Path) -> dict[str, InputError]:
    """Inputs that were set aside by an earlier run, and why.

    Raises:
        InputError: The list cannot be read.
    """
    path = output / FOLDER / "set-aside.json"
    if not is_file(path):
        return {}
    fix = f"correct it, or remove it, and all that it names is tried again: {path}"
    document = read_json(path, InputError, fix=fix)
    try:
        return {name: InputError(each["what"], why=each["why"], fix=each["fix"]) for name, each in document.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no list of inputs that were set aside.", fix=fix) from error


def write_set_aside(output: Path, errors: dict[str, InputError]) -> None:
    """Write down which inputs were set aside, and why.

    Raises:
        OutputError: It cannot be written.
    """
    document = {name: {"what": error.what, "why": error.why, "fix": error.fix} for name, error in errors.items()}
    replace_file(output / FOLDER / "set-aside.json", json.dumps(document, indent=2).encode())
