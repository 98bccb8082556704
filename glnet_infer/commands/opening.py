"""What photographs and videos begin with: an open recoverer, and a directory for the results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glnet_infer.commands.console import say
from glnet_infer.errors import InputError
from glnet_infer.files import make_directory
from glnet_infer.jobs.notes import holds_a_run
from glnet_infer.recoverer import MeshRecoverer


@contextmanager
def opened(bundle: Path, output: Path, *, backend: str, threads: int | None) -> Iterator[MeshRecoverer]:
    """A recoverer, after it was said what runs, and what is wrong with that.

    Args:
        bundle: Bundle from ``glnet-export``.
        output: Directory for the results, which is made.
        backend: Name of the backend.
        threads: Threads of CPU kernels; the backend's own choice where None.

    Raises:
        GlnetError: The bundle or the backend cannot be opened, or the directory cannot be made.
        InputError: The directory holds an archive's results.
    """
    if holds_a_run(output):
        raise InputError(
            f"{output} holds results of an archive.",
            why="a run with --ray goes on there, and takes what it finds for its own",
            fix="give another -o, or --ray",
        )
    with MeshRecoverer(bundle, backend, threads=threads) as recoverer:
        make_directory(output)
        say(repr(recoverer))
        if recoverer.backend_reason:
            say(f"It could be faster: {recoverer.backend_reason}", style="yellow")
        if recoverer.bundle.manifest.network.weights == "random":
            say("These weights are random: the meshes mean nothing.", style="yellow")
        yield recoverer
