"""Writing a bundle so that it is there whole or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from glnet_infer.errors import OutputError
from glnet_infer.manifest import MANIFEST_NAME


@contextlib.contextmanager
def bundle_under_construction(target: Path) -> Iterator[Path]:
    """A directory to build a bundle in, which takes the target's place when the block ends without an error.

    It lies beside the target under a hidden name. On an error or a signal it is removed; what a killed export left
    behind is removed by the next one for the same target. An earlier bundle at the target stays in place until the new
    one is complete.

    Args:
        target: Where the bundle shall be: nothing yet, an empty directory, or an earlier bundle.

    Raises:
        OutputError: The target is something else, or cannot be written.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - a link's own parent is where the new bundle goes
    if target.exists() and not _may_be_replaced(target):
        raise OutputError(
            f"{target} will not be overwritten.",
            why="it is there already and is not a bundle",
            fix="choose another directory with -o",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:6]}")
        partial.mkdir()
    except OSError as error:
        raise OutputError(
            f"The bundle cannot be written to {target}.",
            why=f"{error.strerror}: {error.filename}",
            fix="choose a directory that you may write to with -o",
        ) from error
    try:
        yield partial
        _replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _may_be_replaced(target: Path) -> bool:
    return target.is_dir() and ((target / MANIFEST_NAME).is_file() or not any(target.iterdir()))


def _replace(partial: Path, target: Path) -> None:
    """Put the finished directory in the target's place by renaming."""
    try:
        if not target.exists():
            partial.rename(target)
            return
        aside = target.with_name(f".{target.name}.replaced-{uuid.uuid4().hex[:6]}")
        target.rename(aside)
        try:
            partial.rename(target)
        except OSError:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"The finished bundle was not moved to {target}.", why=str(error.strerror), fix="choose another -o"
        ) from error


def _remove_abandoned(target: Path) -> None:
    """Remove what exports that were killed have left for this target."""
    prefix = f".{target.name}.partial-"
    for path in target.parent.glob(f"{prefix}*"):
        process = path.name.removeprefix(prefix).split("-")[0]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
