"""Writing a bundle so that it is there whole or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from glnet_infer.backends.tensorrt.kernel_cache import CACHE_FOLDER
from glnet_infer.bundle.manifest import MANIFEST_NAME, Manifest
from glnet_infer.errors import BundleError, OutputError

PARTIAL, REPLACED = "partial", "replaced"


@contextlib.contextmanager
def bundle_under_construction(target: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A directory to build a bundle in, and a function that puts it in the target's place.

    The directory lies beside the target under a hidden name and is removed when the block ends, whatever the reason. An
    earlier bundle at the target stays in place until the new one is published. What a killed export left behind is put
    right by the next one for the same target: half-made directories are removed, and an earlier bundle that was just being
    replaced comes back.

    Args:
        target: Where the bundle shall be: nothing yet, an empty directory, or an earlier bundle with nothing else in it.

    Raises:
        OutputError: The target is something else, or cannot be written.
    """
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _put_right(target)
        _check_replaceable(target)
        partial = _beside(target, PARTIAL)
        partial.mkdir()
    except OSError as error:
        raise OutputError(
            f"The bundle cannot be written to {target}.",
            why=f"{error.strerror}: {error.filename}",
            fix="choose a directory that you may write to with -o",
        ) from error
    try:
        yield partial, lambda: _publish(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(target: Path, role: str) -> Path:
    return target.with_name(f".{target.name}.{role}-{os.getpid()}-{uuid.uuid4().hex[:6]}")


def _check_replaceable(target: Path) -> None:
    """Refuse to replace anything but an earlier bundle: what is replaced is deleted."""
    if not target.exists():
        return
    why = "it is not a directory"
    if target.is_dir():
        if os.path.ismount(target):  # Path.is_mount is not there on Windows before Python 3.12
            why = "it is a mount point, which cannot be replaced as a whole"
        else:
            foreign = _foreign_entries(target)
            if not foreign:
                return
            why = f"it holds {', '.join(foreign[:3])}, which no export of this library made"
    raise OutputError(f"{target} will not be overwritten.", why=why, fix="choose another directory with -o")


def _foreign_entries(directory: Path) -> list[str]:
    """Names in a directory that its manifest does not account for; all of them where there is no manifest of ours."""
    names = sorted(entry.name for entry in directory.iterdir())
    try:
        manifest = Manifest.read(directory)
    except BundleError:
        return names
    own = {MANIFEST_NAME, CACHE_FOLDER, manifest.graph.file.file, manifest.body.topology.file}
    for engine in manifest.engines:
        own |= {engine.file.file, engine.layers.get("graph", {}).get("file")}
        if engine.crop is not None:
            own.add(engine.crop.file.file)
    return [name for name in names if name not in own]


def _publish(partial: Path, target: Path) -> None:
    """Put the finished directory in the target's place by renaming; undone if anything stops it half-way."""
    try:
        if not target.exists():
            partial.rename(target)
            return
        aside = _beside(target, REPLACED)
        target.rename(aside)
        try:
            partial.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"The finished bundle was not moved to {target}.", why=str(error.strerror), fix="choose another -o"
        ) from error


def _put_right(target: Path) -> None:
    """Clean up after exports of this target that were killed."""
    for path in list(target.parent.iterdir()):
        for role in (PARTIAL, REPLACED):
            prefix = f".{target.name}.{role}-"
            process = path.name.removeprefix(prefix).split("-")[0]
            if not path.name.startswith(prefix) or not process.isdigit() or _is_running(int(process)):
                continue
            if role == REPLACED and not target.exists():
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
