"""Writing a bundle, or another directory, so that it is there whole or not at all."""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from glnet_infer.bundle import unknown_entries
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.claims import claimed_file, remove_unclaimed
from glnet_infer.errors import BundleError, OutputError
from glnet_infer.forks import HomeProcess

PARTIAL, REPLACED = "partial", "replaced"

_TOKEN = re.compile(r"[0-9a-f]{32}|\d+-[0-9a-f]{6}")
"""What tells an export's directories from another's; the second form is that of earlier versions, which had no locks."""


def foreign_entries(directory: Path) -> list[str]:
    """Names in a directory that its manifest does not account for; all of them where there is no manifest of ours."""
    try:
        return unknown_entries(directory, Manifest.read(directory))
    except BundleError:
        return sorted(entry.name for entry in directory.iterdir())


@contextlib.contextmanager
def bundle_under_construction(
    target: Path, *, foreign: Callable[[Path], list[str]] = foreign_entries, kind: str = "bundle"
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A directory to build a bundle in, and a function that puts it in the target's place.

    The directory lies beside the target under a hidden name and is removed when the block ends, whatever the reason. An
    earlier bundle at the target stays in place until the new one is published. What a killed export left behind is put
    right by the next one for the same target: half-made directories are removed, and an earlier bundle that was just being
    replaced comes back.

    Args:
        target: Where the bundle shall be: nothing yet, an empty directory, or an earlier bundle with nothing else in it.
        foreign: What in a directory at the target was not made by an export, in words; such a directory is not replaced.
        kind: What messages call the directory.

    Raises:
        OutputError: The target is something else, or cannot be written.
    """
    target, home = target.resolve(), HomeProcess()
    claim = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _put_right(target)
        _check_replaceable(target, foreign)
        claim = _Claim(target)
        partial = claim.directory(PARTIAL)
        partial.mkdir()
    except OSError as error:
        if claim is not None:
            claim.release()
        raise OutputError(
            f"The {kind} cannot be written to {target}.",
            why=f"{error.strerror}: {error.filename}",
            fix="choose a directory that you may write to with -o",
        ) from error
    try:
        yield partial, lambda: _publish(partial, target, claim.directory(REPLACED), kind)
    finally:
        if home.is_here:  # a forked process that leaves the block must not take the directory away
            _remove(partial)
            claim.release()


class _Claim:
    """What says that the hidden directories of an export are at work: a lock that ends with its process, however it ends.

    A process number would not do: in containers every export has the same.
    """

    def __init__(self, target: Path) -> None:
        self._target, self._token = target, uuid.uuid4().hex
        while (lock := claimed_file(_lock_of(target, self._token))) is None:
            self._token = uuid.uuid4().hex
        self._lock = lock

    def directory(self, role: str) -> Path:
        """The hidden directory of a role, beside the target."""
        return self._target.with_name(f".{self._target.name}.{role}-{self._token}")

    def release(self) -> None:
        """The directories are done with."""
        if os.name == "nt":  # which does not remove what is open
            self._lock.close()
        _lock_of(self._target, self._token).unlink(missing_ok=True)
        self._lock.close()


def _lock_of(target: Path, token: str) -> Path:
    return target.with_name(f".{target.name}.lock-{token}")


def _is_claimed(target: Path, token: str) -> bool:
    """Whether the maker of a hidden directory is at work."""
    # An export takes its lock before its directory: where there is none, it has ended.
    return not remove_unclaimed(_lock_of(target, token))


def _check_replaceable(target: Path, foreign: Callable[[Path], list[str]]) -> None:
    """Refuse to replace anything but an earlier bundle: what is replaced is deleted."""
    if not target.exists():
        return
    why = "it is not a directory"
    if target.is_dir():
        if os.path.ismount(target):  # Path.is_mount is not there on Windows before Python 3.12
            why = "it is a mount point, which cannot be replaced as a whole"
        else:
            strangers = foreign(target)
            if not strangers:
                return
            why = f"it holds {', '.join(strangers[:3])}, which no export of this library made"
    raise OutputError(f"{target} will not be overwritten.", why=why, fix="choose another directory with -o")


def _publish(partial: Path, target: Path, aside: Path, kind: str) -> None:
    """Put the finished directory in the target's place by renaming; undone if anything stops it half-way."""
    try:
        if not target.exists():
            partial.rename(target)
            return
        target.rename(aside)
        try:
            partial.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        _remove(aside)
    except OSError as error:
        raise OutputError(
            f"The finished {kind} was not moved to {target}.", why=str(error.strerror), fix="choose another -o"
        ) from error


def _remove(directory: Path) -> None:
    """Remove a hidden directory; a signal that arrives meanwhile comes through when that is done."""
    try:
        shutil.rmtree(directory, ignore_errors=True)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _put_right(target: Path) -> None:
    """Clean up after exports of this target that were killed."""
    entries = list(target.parent.iterdir())
    for role in (REPLACED, PARTIAL):
        prefix = f".{target.name}.{role}-"
        for path in entries:
            token = path.name.removeprefix(prefix)
            if not path.name.startswith(prefix) or not _TOKEN.fullmatch(token) or _is_claimed(target, token):
                continue
            if role == REPLACED and not target.exists():
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)
    for path in entries:  # of exports that were killed before or after their directories were there
        prefix = _lock_of(target, "").name
        token = path.name.removeprefix(prefix)
        if path.name.startswith(prefix) and _TOKEN.fullmatch(token):
            _is_claimed(target, token)
