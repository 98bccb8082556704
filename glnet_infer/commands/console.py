"""Shared by all command lines: results on stdout, messages on stderr, stable exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from glnet_infer.errors import GlnetError, OutputError, escaped, first_line
from glnet_infer.version import __version__

_NOT_PRINTED = "The results were not printed."

talk = Console(stderr=True, highlight=False)
"""For progress bars; messages go through :func:`say`."""


def say(text: str, style: str = "") -> None:
    """A message to people on stderr, printed as it is.

    No line is broken, so paths can be copied and searched for; no bracket in a path is markup. What a terminal could obey
    is escaped.

    Args:
        text: One line, or several.
        style: Such as ``yellow``, where there is a terminal.
    """
    talk.out(escaped(text, kept="\n\t"), style=style)


def print_result(text: str) -> None:
    """A line of results on stdout. A terminal gets it escaped; programs get names as they are.

    Raises:
        OutputError: stdout cannot be written, a full disk say, or is closed.
    """
    if sys.stdout is None or sys.stdout.closed:
        raise OutputError(_NOT_PRINTED, why="stdout is closed", fix="give it a file, or /dev/null")
    try:
        sys.stdout.write((escaped(text, kept="\n\t") if sys.stdout.isatty() else text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError:  # a name that is no text, or none in the encoding of stdout
        encoding = sys.stdout.encoding
        print_result(text.encode(encoding, "backslashreplace").decode(encoding))
    except OSError as error:
        # Python would complain once more when it closes stdout.
        _abandon_stdout()
        raise OutputError(_NOT_PRINTED, why=str(error.strerror), fix="check where stdout goes") from error


def _abandon_stdout() -> None:
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print_result(json.dumps(document, indent=2, allow_nan=False))


def print_error(error: GlnetError) -> None:
    """An error for people."""
    lines = str(error).splitlines()
    say(f"error: {lines[0]}", style="bold red")
    for line in lines[1:]:
        say(line)


def behind_camera(count: int, persons: int) -> tuple[str, ...]:
    """What is said where some of the persons reach behind the camera."""
    note = f"{count} of {persons} persons reach behind the camera: its focal length may be in other units"
    return (note,) if count else ()


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


def report(name: str, error: Exception, entry: dict[str, Any]) -> GlnetError:
    """Say that one of several inputs failed, and keep it for the JSON document; the others are still done.

    Args:
        name: The input.
        error: What it raised. What is no error of this library's is a mistake in it, and is shown with its traceback.
        entry: The input's part of the document.

    Returns:
        The error, as one of this library's.
    """
    say(f"{name}:")
    if not isinstance(error, GlnetError):
        say("".join(traceback.format_exception(error)).rstrip())
        error = GlnetError(
            f"{name} failed in a way that was not foreseen.",
            why=f"{type(error).__name__}: {first_line(error)}",
            fix="free memory if it ran out; else please report this, with the traceback",
        )
    print_error(error)
    entry.update(error_document(error))
    return error


@contextmanager
def errors_reported(as_json: bool = False) -> Iterator[None]:
    """Turn this library's errors into a message and the exit code of their class; say so when interrupted."""
    try:
        with _ended_by_sigterm():
            yield
    except GlnetError as error:
        print_error(error)
        if as_json:
            with suppress(OutputError):  # it may be the very error
                print_json(error_document(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # The reader of our results has gone; Python would complain once more when it closes stdout.
        _abandon_stdout()
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


def start(app: typer.Typer) -> None:
    """Run a command line. Its help is printed by click, which leaves errors of stdout to us."""
    try:
        app()
    except OSError as error:
        if "echo" not in [frame.name for frame in traceback.extract_tb(error.__traceback__)]:
            raise
        _abandon_stdout()
        print_error(OutputError(_NOT_PRINTED, why=str(error.strerror or error), fix="check where stdout goes"))
        sys.exit(OutputError.exit_code)


def new_app(**options: Any) -> typer.Typer:
    """An application with plain help: square brackets in it are text, not markup. Options are those of ``typer.Typer``."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **options)


def print_version(wanted: bool) -> None:
    """Callback of ``--version``."""
    if wanted:
        with errors_reported():
            print_result(f"glnet-infer {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
]
