"""OpenVINO, imported without its telemetry, and its one core."""

from __future__ import annotations

import sys
import threading
from typing import Any

from glnet_infer.errors import BackendError, first_line, install_hint
from glnet_infer.forks import HomeProcess, keep_for_ever

_TELEMETRY = "openvino_telemetry"

_importing, _making = threading.Lock(), threading.Lock()

_cores: list[tuple[HomeProcess, Any]] = []
"""The core and the process that made it; nothing before the first is made."""


def import_openvino() -> Any:
    """OpenVINO, without its telemetry.

    Its import alone reports itself to its maker over the network, and writes an id into the user's folder, unless the user
    has declined. Where the package that does so cannot be imported, OpenVINO does without. Whoever imported OpenVINO before
    has had it reported.

    Raises:
        BackendError: It is not installed, or broken.
    """
    with _importing:
        hidden = "openvino" not in sys.modules
        known = sys.modules.get(_TELEMETRY)
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to say that there is none
        try:
            import openvino
        except Exception as error:  # a broken installation fails in many ways
            raise BackendError(
                "OpenVINO is not installed." if isinstance(error, ModuleNotFoundError) else "OpenVINO cannot be loaded.",
                why=first_line(error),
                fix=install_hint("openvino"),
            ) from error
        finally:
            if hidden:
                del sys.modules[_TELEMETRY]
                if known is not None:
                    sys.modules[_TELEMETRY] = known
    return openvino


def core() -> Any:
    """The core of this process, which is never freed.

    The plugin of a core gives the thread that first compiles a stack of its own for signals. When the core ends, that stack
    is unmapped, also where it is still in use: by another thread, or because a younger core had replaced it and gives it
    back at its own end. The next signal then kills the process. See ``SigAltStackSetup`` of OpenVINO's CPU plugin, 2026.4.

    Raises:
        BackendError: As for :func:`import_openvino`.
    """
    openvino = import_openvino()
    with _making:
        if not _cores or not _cores[0][0].is_here:  # a forked child makes its own: threads of its parent's are not there
            made = openvino.Core()
            keep_for_ever(made)
            _cores[:] = [(HomeProcess(), made)]
        return _cores[0][1]


def check_precision(name: str) -> None:
    """Refuse a precision that OpenVINO does not compute in on this processor.

    Args:
        name: OpenVINO's name among its ``OPTIMIZATION_CAPABILITIES``, such as ``BF16``.

    Raises:
        BackendError: It does not, or is not installed.
    """
    offered = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if name not in offered:
        raise BackendError(
            f"OpenVINO does not compute in {name} on this processor.",
            why=f"it offers {', '.join(offered)}",
            fix="take a processor with AVX-512 or AMX for this",
        )


def describe() -> str:
    """Whether OpenVINO can start here, in words."""
    try:
        import_openvino()
    except BackendError as error:
        return f"cannot be loaded: {error.why}"
    return "available"
