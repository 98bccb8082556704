"""Addresses of models that Triton serves: ``triton://host:8001/glnet``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from glnet_infer.errors import BackendError

PORTS = {"triton": 8001, "triton+http": 8000}
"""Triton's own port of each protocol: gRPC and HTTP."""

USUAL_TIMEOUT = 10.0
"""Seconds that a call may take where the address does not say."""

LONGEST_TIMEOUT = 3600.0

_MODEL = re.compile(r"[A-Za-z0-9][\w.+-]{0,127}", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A model on a server.

    Attributes:
        scheme: One of :data:`PORTS`.
        host: Name or number of the machine; numbers of IPv6 without brackets.
        port: Port of the server.
        model: Name of the model.
        timeout: Seconds that a call may take, its repetitions included.
    """

    scheme: str
    host: str
    port: int
    model: str
    timeout: float = USUAL_TIMEOUT

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that a text such as ``triton://host:8001/glnet?timeout=5`` means.

        Raises:
            BackendError: It is none.
        """
        try:
            parts = urlsplit(text)
            if parts.scheme not in PORTS:
                raise ValueError(f"it begins with {parts.scheme}://, not with {':// or '.join(PORTS)}://")
            if not parts.hostname or "@" in parts.netloc or any(mark.isspace() for mark in parts.netloc):
                raise ValueError("it names no host")
            model = parts.path.removeprefix("/")
            if not _MODEL.fullmatch(model):
                raise ValueError("it names no model" if not model else f"{model!r:.60} is not the name of a model")
            if parts.fragment:
                raise ValueError("nothing may follow a #")
            port = PORTS[parts.scheme] if parts.port is None else parts.port
            return cls(parts.scheme, parts.hostname, port, model, _timeout(parts.query))
        except ValueError as error:
            form = f"{'triton'}://HOST:{PORTS['triton']}/MODEL"
            raise BackendError(
                f"{text!r} is not the address of a model.",
                why=str(error),
                fix=f"write {form}, or triton+http://HOST:{PORTS['triton+http']}/MODEL; ?timeout=SECONDS may follow",
            ) from error

    @property
    def place(self) -> str:
        """Host and port, as clients take them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}/{self.model}"


def _timeout(query: str) -> float:
    options = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    strangers = [name for name, _ in options if name != "timeout"]
    if strangers or len(options) > 1:
        raise ValueError(f"there is no option {strangers[0]!r:.40}" if strangers else "timeout is said twice")
    if not options:
        return USUAL_TIMEOUT
    try:
        seconds = float(options[0][1])
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise ValueError(f"timeout is {options[0][1]!r:.40}, not seconds up to {LONGEST_TIMEOUT:g}")
    return seconds
