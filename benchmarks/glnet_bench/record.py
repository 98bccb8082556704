"""A run's file: everything that was measured, saved after every part, and taken up again where it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glnet_infer.errors import InputError, OutputError, first_line

SCHEMA_VERSION = 1
SAME = ("settings", "bundle", "machine", "code")
"""What must be equal for a run to go on; rows of two machines, bundles or programs do not mix."""


class Record:
    """The document of a run, and the file that it lies in.

    Args:
        path: The file.
        head: Settings, bundle, machine and code.

    Attributes:
        document: Plain values, as the file holds them.
        resumed: Whether finished parts were found.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        # Through JSON, so that what is compared with a file has the file's types.
        self.document: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA_VERSION, "program": "glnet-bench", **head}))
        self.document.update(started=None, finished=None, watched=[], floor=None, backends={}, parts={})
        self.resumed = False

    @classmethod
    def open(cls, path: Path, head: dict[str, Any], *, fresh: bool = False) -> Record:
        """A new record, or the one in the file if it is of the same run.

        Args:
            path: The file; need not exist.
            head: Settings, bundle, machine and code.
            fresh: Begin anew whatever the file holds.

        Raises:
            InputError: The file is of another run, or no record.
        """
        record = cls(path, head)
        if fresh or not path.exists():
            return record
        earlier = read(path)
        changed = _changed(earlier, record.document)
        if changed:
            raise InputError(
                f"{path} holds another run.",
                why=f"it differs in {', '.join(changed[:4])}",
                fix="choose another -o, or replace it with --fresh",
            )
        record.document, record.resumed = earlier, bool(earlier["parts"])
        return record

    def has(self, part: str) -> bool:
        """Whether a part was measured, well or not."""
        return part in self.document["parts"]

    def add(self, parts: dict[str, Any]) -> None:
        """Keep what was measured together, on the disk too; what was kept of the same parts goes."""
        self.document["parts"].update(parts)
        self.save()

    def save(self) -> None:
        """Write the file: whole, or as it was.

        Raises:
            OutputError: It cannot be written.
        """
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self.document, allow_nan=False, indent=1) + "\n")
            partial.replace(self.path)
        except OSError as error:
            raise OutputError(
                f"{self.path} was not written.", why=str(error.strerror), fix="choose another file with -o"
            ) from error


def read(path: Path) -> dict[str, Any]:
    """A run's document.

    Raises:
        InputError: The file is missing, or is not one.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} was not read.", why=first_line(error), fix="give the .json file that glnet-bench wrote"
        ) from error
    if not isinstance(document, dict) or document.get("program") != "glnet-bench":
        raise InputError(f"{path} is not a run of glnet-bench.", fix="give the .json file that glnet-bench wrote")
    if document.get("schema") != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {document.get('schema')}.",
            why=f"this glnet-bench reads version {SCHEMA_VERSION}",
            fix="measure again with this version",
        )
    return document


def _changed(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of what differs, such as ``settings.batches``."""
    names = []
    for section in SAME:
        old, new = (document.get(section) or {} for document in (earlier, now))
        names += [f"{section}.{key}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return names


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """What two runs do not have in common, each as ``name: one | other``."""
    lines = []
    for name in _changed(first, second):
        section, _, key = name.partition(".")
        one, other = ((document.get(section) or {}).get(key) for document in (first, second))
        lines.append(f"{name}: {one} | {other}")
    backends = [document.get("backends", {}) for document in (first, second)]
    for name in sorted(set(backends[0]) & set(backends[1])):
        one, other = (each[name].get("at_once") for each in backends)
        if one != other:
            lines.append(f"backends.{name}.at_once: {one} | {other}")
    return lines
