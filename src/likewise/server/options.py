"""What can be set of the server: the one list that the command line, the Python API and the docs read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Each field's `metadata["help"]` is its help text; bytes and seconds as their names say."""

    host: str = _option("127.0.0.1", "Address to listen on.")
    port: int = _option(5000, "Port to listen on; 0 takes a free one.")
    insecure: bool = _option(False, "Listen where other machines reach it without asking anybody for a token.")
    token_file: Path | None = field(
        default=None,
        metadata={"help": "File of tokens, one a line, of which callers must send one; read anew when it changes."},
    )
    workers: int = _option(
        0, "Processes that run the model, for models that hold Python's lock; 0 runs it in the server's own."
    )
    deadline_s: float = _option(
        60.0, "Seconds in which a request is answered, or refused at once where that cannot be."
    )
    queue_tokens: int = _option(4_000_000, "Tokens (rows, for a model without tokens) that may wait; more are refused.")
    cache_bytes: int = _option(
        64 * 1024 * 1024, "Memory for answers of a model that is pure (equal questions, equal answers); 0 keeps none."
    )
    body_limit_bytes: int = _option(25 * 1024 * 1024, "Largest request body.")
    header_limit_bytes: int = _option(64 * 1024, "Largest request line and headers together.")
    header_timeout_s: float = _option(
        10.0, "Seconds for a request's headers to arrive, from the connection or the first byte."
    )
    read_timeout_s: float = _option(30.0, "Seconds for a request's body to arrive.")
    keep_alive_s: int = _option(65, "Seconds that an idle connection is kept open.")
    drain_linger_s: float = _option(1.0, "Seconds that a stopping server still takes requests, with /ready at 503.")
    drain_timeout_s: int = _option(20, "Seconds that a stopping server waits for requests in flight.")
    access_log: bool = _option(True, "One JSON line a request on stderr, without the texts.")
