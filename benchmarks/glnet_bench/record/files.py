"""A run's file: saved after every part, and taken up again where it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glnet_bench.record.codec import decode, encode
from glnet_bench.record.run import PROGRAM, SCHEMA_VERSION, RunRecord
from glnet_bench.record.schema1 import upgraded
from glnet_infer.errors import InputError
from glnet_infer.files import make_directory, read_json, replace_file

HEAD = ("settings", "bundle", "machine", "code")
"""What must be equal for a run to go on; rows of two machines, bundles or programs do not mix."""

_FIX = "give the .json file that glnet-bench wrote"


class RunFile:
    """A run and the file that it lies in.

    Attributes:
        path: The file.
        run: What it holds, or will hold.
        resumed: Whether finished parts were found.
    """

    def __init__(self, path: Path, run: RunRecord) -> None:
        self.path, self.run, self.resumed = path, run, False

    @classmethod
    def open(cls, path: Path, run: RunRecord, *, replace: bool = False) -> RunFile:
        """A new run, or the one in the file if it is the same.

        Args:
            path: The file; it need not exist.
            run: The run as it begins, without results.
            replace: Begin anew whatever the file holds.

        Raises:
            InputError: The file holds another run, or none.
        """
        opened = cls(path, run)
        if replace or not path.exists():
            return opened
        earlier = read_run(path)
        changed = [name for name, *_ in _changes(earlier, run)]
        if changed:
            raise InputError(
                f"{path} holds another run.",
                why=f"it differs in {', '.join(changed[:4])}",
                fix="choose another -o, or replace it with --fresh",
            )
        opened.run, opened.resumed = earlier, bool(earlier.parts())
        return opened

    def save(self) -> None:
        """Write the file: whole, or as it was.

        Raises:
            OutputError: It cannot be written.
        """
        make_directory(self.path.absolute().parent)
        replace_file(self.path, (json.dumps(encode(self.run), allow_nan=False, indent=1) + "\n").encode())


def read_run(path: Path) -> RunRecord:
    """The run in a file, of this schema or an earlier one.

    Raises:
        InputError: The file is missing, is no run, or holds what no run can hold; it says where.
    """
    document = read_json(path, InputError, fix=_FIX)
    if not isinstance(document, dict) or document.get("program") != PROGRAM:
        raise InputError(f"{path} is not a run of glnet-bench.", fix=_FIX)
    schema = document.get("schema")
    if schema not in (1, SCHEMA_VERSION) or isinstance(schema, bool):
        raise InputError(
            f"{path} has schema version {str(schema)[:20]}.",
            why=f"this glnet-bench reads versions 1 and {SCHEMA_VERSION}",
            fix="read it with the glnet-bench that wrote it",
        )
    try:
        return decode(RunRecord, upgraded(document) if schema == 1 else document)
    except ValueError as error:
        raise InputError(f"{path} is a damaged run of glnet-bench.", why=str(error), fix=_FIX) from error


def _changes(first: RunRecord, second: RunRecord) -> list[tuple[str, Any, Any]]:
    """What differs between the heads of two runs, such as ``settings.batches``, with both values."""
    found = []
    for section in HEAD:
        one, other = (encode(getattr(run, section)) or {} for run in (first, second))
        found += [
            (f"{section}.{key}", one.get(key), other.get(key))
            for key in sorted({*one, *other})
            if one.get(key) != other.get(key)
        ]
    return found


def differences(first: RunRecord, second: RunRecord) -> list[str]:
    """What two runs do not have in common, each as ``name: one | other``."""
    changes = _changes(first, second)
    for name in sorted({*first.backends} & {*second.backends}):
        one, other = (run.backends[name].at_once for run in (first, second))
        if one != other:
            changes.append((f"backends.{name}.at_once", one, other))
    return [f"{name}: {one} | {other}" for name, one, other in changes]
