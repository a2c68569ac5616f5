"""What can be set of the server: the one list that the command line, the Python API and the docs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from likewise.core.option_fields import option

MB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Each field's `metadata["help"]` is its help text; bytes and seconds as their names say."""

    host: str = option("127.0.0.1", "Address to listen on.", "--host -h")
    port: int = option(5000, "Port to listen on; 0 takes a free one.", "--port -p", min=0, max=65535)
    workers: int = option(
        0,
        "Processes that run the model, for models that hold Python's lock; 0 runs it in the server's own.",
        "--workers -w",
        min=0,
    )
    token_file: Path | None = option(
        None,
        "File of tokens, one a line, of which callers must send one; read anew when it changes.",
        "--token-file FILE",
    )
    insecure: bool = option(
        False, "Listen where other machines reach it without asking anybody for a token.", "--insecure"
    )
    deadline_s: float = option(
        60.0,
        "Seconds in which a request is answered, or refused at once where that cannot be.",
        "--deadline SECONDS",
        min=0.001,
    )
    queue_tokens: int = option(
        4_000_000, "Tokens (rows, for a model without tokens) that may wait; more are refused.", "--queue-tokens", min=1
    )
    cache_bytes: int = option(
        64 * MB,
        "Memory for answers of a model that is pure (equal questions, equal answers); 0 keeps none.",
        "--cache-mb",
        unit=MB,
        min=0,
    )
    body_limit_bytes: int = option(25 * MB, "Largest request body.", "--body-limit-mb", unit=MB, min=0.001)
    header_limit_bytes: int = option(64 * 1024, "Largest request line and headers together.")
    header_timeout_s: float = option(
        10.0,
        "Seconds for a request's headers to arrive, from the connection or the first byte.",
        "--header-timeout SECONDS",
    )
    read_timeout_s: float = option(30.0, "Seconds for a request's body to arrive.", "--read-timeout SECONDS")
    keep_alive_s: int = option(65, "Seconds that an idle connection is kept open.")
    drain_linger_s: float = option(1.0, "Seconds that a stopping server still takes requests, with /ready at 503.")
    drain_timeout_s: int = option(20, "Seconds that a stopping server waits for requests in flight.")
    access_log: bool = option(
        True, "One JSON line a request on stderr, without the texts.", "--access-log/--no-access-log"
    )
