"""What is typed at ``glnet-infer``: the formats that there are, and numbers in text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glnet_infer.camera import Intrinsics
from glnet_infer.errors import InputError

PHOTOGRAPH_FORMATS = ("overlay", "glb", "obj", "ply", "npz", "json")

VIDEO_FORMATS = {
    "overlay": ".overlay.mp4",
    "npz": ".npz",
    "json": ".json",
    "glb": ".glb",
    "bvh": ".bvh",
    "amass": ".amass.npz",
    "html": ".html",
}
"""What a video's files are called after its name, by format."""


def check_formats(typed: list[str], known: Iterable[str], default: Iterable[str], of: str = "") -> list[str]:
    """The kinds of files to write, each once.

    Args:
        typed: Values of ``--format``; empty where it was not typed.
        known: Those that there are.
        default: Those that are written where none was typed.
        of: What they are formats of, for the message.

    Raises:
        InputError: One is not known.
    """
    known = list(known)
    unknown = [name for name in typed if name not in known]
    if unknown:
        raise InputError(
            f"There is no format {unknown[0]!r}{of}.", fix=f"formats: {', '.join(known)}; for several, repeat --format"
        )
    return list(dict.fromkeys(typed or default))


def refuse(options: dict[str, Any], why: str) -> None:
    """Refuse options that do not fit the inputs.

    Args:
        options: Their values by name; None where one was not typed.
        why: Why they do not fit.

    Raises:
        InputError: One was typed.
    """
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} does not fit these inputs.", why=why, fix="leave it out")


def check_no_detector(options: dict[str, Any]) -> None:
    """Refuse options of a detector beside ``--detector none``.

    Args:
        options: The detector's options by name, ``--detector`` among them; None where one was not typed.

    Raises:
        InputError: One was typed.
    """
    idle = [option for option, value in options.items() if option != "--detector" and value is not None]
    if options["--detector"] == "none" and idle:
        raise InputError(
            f"{idle[0]} was given with --detector none.", why="then one person fills the image", fix="give one of them"
        )


def parse_camera(text: str) -> Intrinsics:
    """The camera of ``--intrinsics``.

    Raises:
        InputError: It is not four numbers, or no camera.
    """
    return Intrinsics(*numbers(text, "camera", "fx,fy,cx,cy"))


def numbers(text: str, what: str, form: str) -> list[float]:
    """Four numbers separated by commas."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4:
        raise InputError(f"{text!r} is not a {what}.", fix=f"write {form}, numbers with commas between them, in pixels")
    return values
