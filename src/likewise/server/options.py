"""What can be set of the server: the one list that the command line, the Python API and the docs read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Each field's `metadata["help"]` is its help text; bytes and seconds as their names say."""

    host: str = _option("127.0.0.1", "Address to listen on.")
    port: int = _option(5000, "Port to listen on; 0 takes a free one.")
    insecure: bool = _option(False, "Listen where other machines reach it, though the service has no auth.")
    body_limit_bytes: int = _option(25 * 1024 * 1024, "Largest request body.")
    keep_alive_s: int = _option(65, "Seconds that an idle connection is kept open.")
    drain_linger_s: float = _option(1.0, "Seconds that a stopping server still takes requests, with /ready at 503.")
    drain_timeout_s: int = _option(20, "Seconds that a stopping server waits for requests in flight.")
