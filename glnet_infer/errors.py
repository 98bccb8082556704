"""Every error that glnet-infer raises on purpose.

Each says what happened, why, and what to do. Command-line tools exit with the class's ``exit_code``; the codes are part
of the interface and documented in ``docs/errors.md``.
"""

from functools import partial
from pathlib import Path
from typing import Any

# A checkout has it beside the package, an installed wheel in it.
_OF_CHECKOUT, _OF_WHEEL = Path(__file__).parents[1] / "constraints.txt", Path(__file__).with_name("constraints.txt")


LONGEST_MESSAGE = 600
"""Characters. Messages quote names and values that somebody else chose, of any length."""

_LABELS = ("", "\n  why: ", "\n  what to do: ")


class GlnetError(Exception):
    """Base of all errors of this library.

    Line breaks in the texts become spaces, characters that are not printable are escaped, and the longest texts are
    shortened in their middle until the whole message has at most ``LONGEST_MESSAGE`` characters.

    Args:
        what: What happened, one sentence.
        why: The cause, as far as it is known.
        fix: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = _fitted([printable(text) for text in (what, why, fix)])
        super().__init__(self.what, self.why, self.fix)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), why=self.why, fix=self.fix), (self.what,)

    def __str__(self) -> str:
        return "".join(f"{label}{text}" for label, text in zip(_LABELS, self.args, strict=True) if text)


class InputError(GlnetError, ValueError):
    """An image, a box, a camera, an annotation or an option that cannot be used."""

    exit_code = 3


class BundleError(GlnetError):
    """A bundle that is missing, damaged, changed, or of another schema version."""

    exit_code = 4


class CheckpointError(GlnetError):
    """A checkpoint or network configuration that cannot be used."""

    exit_code = 5


class BodyError(GlnetError):
    """A body model file that is missing, unsafe or malformed."""

    exit_code = 6


class ExportError(GlnetError):
    """An export stage that failed or missed its bound."""

    exit_code = 7


class BackendError(GlnetError):
    """An inference backend that is not installed, cannot start or failed while running."""

    exit_code = 8


class OutputError(GlnetError):
    """A result that cannot be written."""

    exit_code = 9


class TrainingError(GlnetError):
    """A training that is not installed, diverged, or did not learn."""

    exit_code = 10


def as_ours(name: str, error: Exception) -> GlnetError:
    """What an input raised, as an error of this library's. What is none is a mistake in it.

    Args:
        name: The input.
        error: What it raised.
    """
    if isinstance(error, GlnetError):
        return error
    return GlnetError(
        f"{name} failed in a way that was not foreseen.",
        why=f"{type(error).__name__}: {first_line(error)}",
        fix="free memory if it ran out; else please report this, with the traceback",
    )


def printable(text: str) -> str:
    """A foreign text as one line that a terminal shows as it is: what it could obey instead is escaped."""
    return escaped(" ".join(text.split()) if not text.isprintable() else text)


def escaped(text: str, kept: str = "") -> str:
    """A text whose characters that are not printable are written as Python writes them, but for those in ``kept``."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in kept else each.encode("unicode_escape").decode() for each in text)


def shortened(text: str, most: int) -> str:
    """A text of at most some characters; what is too much is left out of its middle."""
    if len(text) <= most:
        return text
    kept = max(most - 3, 0)
    return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"


def _fitted(texts: list[str]) -> list[str]:
    """Texts that fit into one message together; the longest ones are shortened."""
    room = LONGEST_MESSAGE - sum(map(len, _LABELS))
    # The largest limit for each at which all together fit.
    low, high = room // len(texts), max(map(len, texts))
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(len(text), middle) for text in texts) <= room:
            low = middle
        else:
            high = middle - 1
    return [shortened(text, max(low, 3)) for text in texts]


def install_hint(extra: str) -> str:
    """How to install an optional part of this library: from its checkout, or beside its wheel."""
    # Double quotes, which all shells understand.
    if _OF_CHECKOUT.is_file():
        return f'pip install -c constraints.txt -e ".[{extra}]" in the checkout (README, Install)'
    return f'pip install "glnet-infer[{extra}]"'


def tested_versions(extra: str) -> str:
    """How to get the versions of other packages that an optional part was tested with, where others may not go together."""
    constrained = f'pip install -c "{_OF_WHEEL}" "glnet-infer[{extra}]"'
    command = install_hint(extra) if _OF_CHECKOUT.is_file() else constrained
    return f"take the versions that are tested together: {command}"


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def one_line(error: BaseException) -> str:
    """All that another library's error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
