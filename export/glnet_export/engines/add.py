"""``glnet-export engine``: an engine for a bundle, from the bundle's own graphs, on the machine that will run it."""

import contextlib
import os
import shutil
from pathlib import Path

from glnet_export.engines.options import EngineOptions
from glnet_export.engines.progress import Progress, Stage, quietly, silent
from glnet_export.engines.reference import judge_by_reference
from glnet_export.engines.stages import ENGINE_STAGES, EngineJob, add_engine
from glnet_export.publish import bundle_under_construction
from glnet_infer.bundle import Bundle, check_all_files
from glnet_infer.bundle.manifest import CACHE_FOLDER, Manifest
from glnet_infer.errors import OutputError

STAGES = ("check", *ENGINE_STAGES, "publish")
"""In this order."""


def add_to_bundle(
    directory: Path, options: EngineOptions, *, stage: Stage = quietly, progress: Progress = silent
) -> Manifest:
    """Add an engine to a bundle. The bundle stays as it is until the new one is complete, whatever ends the build.

    Args:
        directory: The bundle's folder.
        options: Options of the engine. An engine of the same name is replaced.
        stage: Told of each stage.
        progress: Told of the phases of the build, from another thread.

    Returns:
        The manifest with the engine.

    Raises:
        GlnetError: A stage failed; the bundle is as it was.
    """
    job = EngineJob.prepare(options)
    with stage("check") as report:
        manifest = check_all_files(directory)
        files = list(dict.fromkeys(manifest.files()))
        report.say(
            f"{len(files)} files, {sum(record.bytes for record in files) / 1e6:.0f} MB, as the manifest records them"
        )
    try:
        with bundle_under_construction(directory) as (beside, publish):
            for record in files:
                _link_or_copy(directory / record.file, beside / record.file)
            _copy_cache(directory / CACHE_FOLDER, beside / CACHE_FOLDER)
            manifest.write(beside)
            judge = judge_by_reference(Bundle.open(beside), options.precision)
            manifest = add_engine(beside, manifest, job, judge, stage, progress)
            with stage("publish") as report:
                manifest.write(beside)
                publish()
                report.say(str(directory))
    except OSError as error:
        raise OutputError(
            f"Cannot write into {directory}.",
            why=str(error.strerror or error),
            fix="make room, or copy the bundle elsewhere",
        ) from error
    return manifest


def _copy_cache(source: Path, target: Path) -> None:
    """Copy compiled kernels. Nothing else of a bundle is unknown to its manifest: links and devices are left behind."""
    if source.is_symlink() or not source.is_dir():
        return
    target.mkdir()
    for entry in source.iterdir():
        if not entry.is_symlink() and entry.is_file():
            shutil.copyfile(entry, target / entry.name)


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name of a file that nobody will write into, or a copy where its file system has none."""
    # A symbolic link's file is not the bundle's. One that is read-only could not be removed on Windows.
    if not source.is_symlink() and os.access(source, os.W_OK):
        with contextlib.suppress(OSError):
            target.hardlink_to(source)
            return
    shutil.copyfile(source, target)
