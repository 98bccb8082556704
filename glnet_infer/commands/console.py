"""Shared by all command lines: results on stdout, messages on stderr, stable exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from glnet_infer.errors import GlnetError, OutputError
from glnet_infer.version import __version__

talk = Console(stderr=True, highlight=False)
"""For progress bars; messages go through :func:`say`."""


def say(text: str, style: str = "") -> None:
    """A message to people on stderr, printed as it is.

    No line is broken, so paths can be copied and searched for; no bracket in a path is markup.

    Args:
        text: One line, or several.
        style: Such as ``yellow``, where there is a terminal.
    """
    talk.out(text, style=style)


def print_result(text: str) -> None:
    """A line of results on stdout.

    Raises:
        OutputError: stdout cannot be written, a full disk say.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            "The results were not printed.", why=str(error.strerror), fix="check where stdout goes"
        ) from error


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print_result(json.dumps(document, indent=2, allow_nan=False))


def print_error(error: GlnetError) -> None:
    """An error for people."""
    lines = str(error).splitlines()
    say(f"error: {lines[0]}", style="bold red")
    for line in lines[1:]:
        say(line)


def error_document(error: GlnetError) -> dict[str, Any]:
    """An error for programs."""
    return {
        "error": {
            "kind": type(error).__name__,
            "what": error.what,
            "why": error.why,
            "fix": error.fix,
            "exit_code": error.exit_code,
        }
    }


def report(name: str, error: GlnetError, entry: dict[str, Any]) -> None:
    """Say that one of several inputs failed, and keep it for the JSON document; the others are still done.

    Args:
        name: The input.
        error: Its error.
        entry: The input's part of the document.
    """
    say(f"{name}:")
    print_error(error)
    entry.update(error_document(error))


@contextmanager
def errors_reported(as_json: bool = False) -> Iterator[None]:
    """Turn this library's errors into a message and the exit code of their class; say so when interrupted."""
    try:
        with _ended_by_sigterm():
            yield
    except GlnetError as error:
        print_error(error)
        if as_json:
            print_json(error_document(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # The reader of our results has gone; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it cleans up. What is ignored stays ignored."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGTERM) if in_main_thread else None
    if previous in (None, signal.SIG_IGN):
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def new_app(**options: Any) -> typer.Typer:
    """An application with plain help: square brackets in it are text, not markup. Options are those of ``typer.Typer``."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **options)


def print_version(wanted: bool) -> None:
    """Callback of ``--version``."""
    if wanted:
        typer.echo(f"glnet-infer {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
]
