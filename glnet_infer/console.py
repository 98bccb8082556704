"""What the command-line tools share: results on stdout, talk on stderr, stable exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from glnet_infer.errors import GlnetError

talk = Console(stderr=True, highlight=False)
"""For progress and messages to people."""


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_error(error: GlnetError) -> None:
    """An error for people."""
    lines = str(error).splitlines()
    talk.print(f"error: {lines[0]}", style="bold red", markup=False, soft_wrap=True)
    for line in lines[1:]:
        talk.print(line, markup=False, soft_wrap=True)


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


@contextmanager
def errors_reported(as_json: bool = False) -> Iterator[None]:
    """Turn this library's errors into a message and the exit code of their class."""
    try:
        yield
    except GlnetError as error:
        print_error(error)
        if as_json:
            print_json(error_document(error))
        raise typer.Exit(error.exit_code) from None
