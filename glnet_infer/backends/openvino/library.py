"""OpenVINO, imported without its telemetry."""

from __future__ import annotations

import sys
import threading
from typing import Any

from glnet_infer.errors import BackendError, first_line, install_hint

_TELEMETRY = "openvino_telemetry"

_importing = threading.Lock()


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


def describe() -> str:
    """Whether OpenVINO can start here, in words."""
    try:
        import_openvino()
    except BackendError as error:
        return f"cannot be loaded: {error.why}"
    return "available"
