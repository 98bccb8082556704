"""What a run notes in its output, so that a later one goes on where it ended: all below one folder, :data:`FOLDER`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glnet_infer.errors import InputError
from glnet_infer.files import is_file, make_directory, read_json, replace_file
from glnet_infer.jobs.items import Cut, Orders, Survey
from glnet_infer.jobs.photographs import file_of

FOLDER = "jobs"
"""Folder in the output for what a later run goes on with. Results lie beside it, and none is called so."""

_LARGEST_BOXES = 1 << 30
"""Bytes of the note of boxes: some ten million photographs."""

_BEFORE_RESULTS = ("videos", "job.json", "boxes.json")
"""What a run makes in :data:`FOLDER` before it has done anything."""

_LONGEST_SHOWN = 24
"""Characters of a value in a message."""

_RERUN = "give another -o, or the options of the first run"


def folder_of(orders: Orders, name: str) -> Path:
    """Where what is seen in a video's chunks is kept until they are joined."""
    return orders.output / FOLDER / "videos" / name


def recording_of(orders: Orders, name: str, number: int) -> Path:
    """The file of a chunk."""
    return folder_of(orders, name) / f"{number:06d}.npz"


def keep_cuts(orders: Orders, survey: Survey, cuts: Sequence[Cut]) -> None:
    """Keep where a video's chunks begin, so that a later run cuts it at the same places.

    Raises:
        OutputError: It cannot be written.
    """
    document = {**_identity(survey.video), "cuts": cuts}
    replace_file(folder_of(orders, survey.name) / "survey.json", json.dumps(document).encode())


def kept_cuts(orders: Orders, survey: Survey) -> list[Cut] | None:
    """Where a video's chunks begin; None where nobody knows, or the video was changed."""
    path = folder_of(orders, survey.name) / "survey.json"
    if not is_file(path):
        return None
    try:
        document = read_json(path, InputError, fix="")
        cuts = [Cut(*each) for each in document.pop("cuts")]
        good = document == _identity(survey.video) and all(isinstance(cut.start, float) for cut in cuts)
        good = good and all(cut.frames is None or isinstance(cut.frames, int) for cut in cuts)
    except (InputError, AttributeError, KeyError, TypeError):
        return None
    return cuts if good else None


def keep_files(orders: Orders, video: str, name: str, files: Mapping[str, Sequence[Path]]) -> None:
    """Keep that a video is done: of formats with a file for each person nobody could tell otherwise.

    Args:
        orders: What is wanted.
        video: The video.
        name: What its results are called.
        files: Its files by format.

    Raises:
        OutputError: It cannot be written.
    """
    known = _kept_files(orders, video, name)
    known |= {format_: [path.name for path in paths] for format_, paths in files.items()}
    make_directory(_done(orders, name).parent)
    replace_file(_done(orders, name), json.dumps({**_identity(video), "files": known}).encode())


def is_done(orders: Orders, video: str, name: str) -> bool:
    """Whether all files of a video are there, and the video is what it was."""
    known = _kept_files(orders, video, name)
    return all(
        format_ in known and all(is_file(orders.output / each) for each in known[format_]) for format_ in orders.formats
    )


def _done(orders: Orders, name: str) -> Path:
    return orders.output / FOLDER / "done" / f"{name}.json"


def _kept_files(orders: Orders, video: str, name: str) -> dict[str, list[str]]:
    try:
        document = read_json(_done(orders, name), InputError, fix="")
        files = document.pop("files")
        good = document == _identity(video) and all(
            isinstance(each, str) and Path(each).name == each for names in files.values() for each in names
        )
    except (InputError, AttributeError, KeyError, TypeError, OSError):  # a video that is not there fails where it is read
        return {}
    return dict(files) if good else {}


def _identity(video: str) -> dict[str, Any]:
    state = Path(video).stat()
    return {"version": 1, "bytes": state.st_size, "modified": state.st_mtime_ns}


def holds_a_run(output: Path) -> bool:
    """Whether a directory holds results, or the beginnings of some, of a run that goes on there."""
    return is_file(output / FOLDER / "job.json") and _is_begun(output)


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
        make_directory(orders.output / FOLDER / "videos")
        replace_file(path, json.dumps(record, indent=2).encode())
        return
    known = read_json(path, InputError, fix=_RERUN)
    differing = [*_differing(known if isinstance(known, dict) else {}, record)]
    if differing:
        raise InputError(
            f"{orders.output} holds results of another run.", why=f"it differs in: {', '.join(differing)}", fix=_RERUN
        )


def _differing(known: dict[str, Any], record: dict[str, Any], group: str = "") -> Iterator[str]:
    """What is not as it was, each with both values."""
    for key, value in record.items():
        before = known.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            yield from _differing(before, value, f"{key}.")
        elif before != value:
            yield f"{group}{key} ({_shown(before)} before, {_shown(value)} now)"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _is_begun(output: Path) -> bool:
    """Whether a run has left anything in an output but the note of what it wanted."""
    inside = (*output.iterdir(), *(output / FOLDER).iterdir(), *(output / FOLDER / "videos").iterdir())
    return any(path.name not in (FOLDER, *_BEFORE_RESULTS) for path in inside if not path.name.startswith("."))


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


def check_boxes(orders: Orders, boxes: Mapping[Path, Any], done: Iterable[Path]) -> None:
    """Note the boxes of photographs, so that results of other boxes are not taken for those of these.

    Args:
        orders: What is wanted.
        boxes: Boxes by photograph; None where the detector finds them.
        done: Photographs whose results are there.

    Raises:
        InputError: The results of a photograph are of other boxes, or the note cannot be read.
        OutputError: It cannot be written.
    """
    path = orders.output / FOLDER / "boxes.json"
    given = {image.name: hashlib.sha256(json.dumps(each).encode()).hexdigest()[:16] for image, each in boxes.items()}
    known = read_json(path, InputError, fix=_RERUN, largest=_LARGEST_BOXES) if is_file(path) else {}
    for image in done:
        if not isinstance(known, dict) or known.get(image.name) != given[image.name]:
            files = ", ".join(file_of(image, orders.output, name).name for name in orders.formats)
            raise InputError(
                f"{orders.output} holds results of {image.name} with other boxes.",
                why="results that are there are not made again",
                fix=f"give another -o, or remove {files}",
            )
    if known != given:
        replace_file(path, json.dumps({**known, **given}).encode())
