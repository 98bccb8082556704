"""Which code measured: the commit that it lies in, and a hash of its sources."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from pathlib import Path

from glnet_bench.record.surroundings import Code

PACKAGES = ("glnet_infer", "glnet", "glnet_render", "glnet_export", "glnet_bench")
"""Packages of this distribution that a figure may depend on."""


def describe() -> Code:
    """Commit, whether the sources differ from it, and their SHA-256; None for what is not known.

    A package that is installed elsewhere has no commit, even where it lies below somebody's repository.
    """
    folders = package_folders()
    head, dirty = commit(folders)
    return Code(head, dirty, hash_of(folders))


def package_folders() -> list[Path]:
    """Where the packages lie, without importing them: one of them would bring PyTorch."""
    specs = (importlib.util.find_spec(name) for name in PACKAGES)
    return [Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()]


def commit(folders: list[Path]) -> tuple[str | None, bool | None]:
    """The commit that the folders were checked out from, and whether files differ from it; None where there is none."""
    places = [str(folder) for folder in folders]
    # Tracked, each of them: a virtual environment often lies in a repository that ignores it.
    if not places or any(not _git(folder, "ls-files", ".") for folder in folders):
        return None, None
    head, changed = _git(folders[0], "rev-parse", "HEAD"), _git(folders[0], "status", "--porcelain", "--", *places)
    return (None, None) if not head or changed is None else (head, bool(changed))


def hash_of(folders: list[Path]) -> str:
    """SHA-256 of all Python files of some folders and their names."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says in a folder; None where there is no git or no repository."""
    try:
        # It may refresh its index when asked for the status, and wait for another that works there: not here.
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
