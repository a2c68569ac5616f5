"""Server options: the single definition used by the command line, the Python API and the docs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import check_ranges, option

MB = 1024 * 1024
CAPTURE_BYTES = 100_000  # of captured files at least: one has ten thousand, and the oldest of several are deleted
STOP_GRACE_S = 2.0  # in which a process ends after its drain, whatever it executes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of the server.  Each field's `metadata["help"]` is its help text; units are in the field names."""

    host: str = option("127.0.0.1", "Address to listen on.", "--host -h")
    port: int = option(5000, "Port to listen on; 0 selects a free port.", "--port -p", min=0, max=65535)
    workers: int | None = option(
        None,
        "Number of processes that run the model; by default one per core, at most 4, if the model's own code runs and "
        "they fit into the memory, and otherwise 0: it runs in the server process.",
        "--workers -w",
        min=0,
    )
    in_process: bool = option(
        False,
        "Run the model's code in the server process: a row that hangs or crashes then stops all of them.",
        "--in-process",
    )
    run_timeout_s: float = option(
        30.0,
        "Time limit for a run of the model, in seconds: it ends with its worker process, and the run's other rows are "
        "run again; 0 for no limit.",
        "--run-timeout SECONDS",
        min=0,
    )
    token_file: Path | None = option(
        None,
        "File of accepted bearer tokens, one per line; reloaded when it changes.",
        "--token-file FILE",
    )
    insecure: bool = option(False, "Allow listening on a non-loopback address without authentication.", "--insecure")
    allow_host: tuple[str, ...] = option(
        (),
        "Also answer requests for this host name, or any (`*`): a server without authentication on a loopback address "
        "otherwise answers only those for localhost and its address. Repeatable.",
        "--allow-host NAME",
        parse=tuple,
    )
    cors_origin: tuple[str, ...] = option(
        (),
        "Let web pages of this origin, such as https://app.example.com, or of all (`*`), read responses. Repeatable.",
        "--cors-origin ORIGIN",
        parse=tuple,
    )
    ping_early: bool = option(
        False,
        "Answer /ping and /health with 200 while the process is alive, even if the model is not ready.",
        "--ping-early",
    )
    deadline_s: float = option(
        60.0,
        "Deadline for a response, in seconds, from the complete request to the response's last byte; requests that "
        "cannot meet it are rejected immediately.",
        "--deadline SECONDS",
        min=0.001,
    )
    queue_tokens: int = option(
        4_000_000,
        "Maximum queue, in tokens (rows, for a model without tokens); requests beyond it are rejected.",
        "--queue-tokens",
        min=1,
    )
    cache_bytes: int = option(
        64 * MB,
        "Size of the prediction cache, used for pure models (equal inputs give equal outputs); 0 disables it.",
        "--cache-mb",
        unit=MB,
        min=0,
    )
    body_limit_bytes: int = option(
        25 * MB,
        "Maximum size of a request body, as sent and after decompression.",
        "--body-limit-mb",
        unit=MB,
        min=0.001,
    )
    cells_limit: int = option(
        1_000_000,
        "Maximum cells of a request: values of a table (rows times columns), of tensors and of JSON.",
        "--cells-limit",
        min=1,
    )
    in_flight_bytes: int = option(
        200 * MB,
        "Maximum memory of all requests in flight, estimated from the sizes of bodies, cells and responses.",
        "--in-flight-mb",
        unit=MB,
        min=1,
    )
    header_limit_bytes: int = option(64 * 1024, "Maximum size of the request line and the headers together.", min=1)
    header_timeout_s: float = option(
        10.0,
        "Time limit for a request's headers, in seconds from the connection or the request's first byte.",
        "--header-timeout SECONDS",
        min=0.001,
    )
    read_timeout_s: float = option(
        30.0, "Time limit for a request's body, in seconds.", "--read-timeout SECONDS", min=0.001
    )
    keep_alive_s: int = option(65, "Seconds before an idle connection is closed.", min=0)
    drain_linger_s: float = option(
        1.0, "Seconds that a stopping server accepts requests, while /ready returns 503.", min=0
    )
    drain_timeout_s: int = option(20, "Seconds that a stopping server waits for requests in flight.", min=0)
    access_log: bool = option(
        True,
        "Log one JSON line per request to stderr, without bodies; otherwise only for a status of 500 or more, "
        "except 503.",
        "--access-log/--no-access-log",
    )
    log_format: Literal["text", "json"] = option(
        "text",
        "Format of the log apart from the access log, which always has lines of JSON: text, or json for one object per "
        "line.",
        "--log-format FORMAT",
    )

    capture: Path | None = option(
        None,
        "Write requests with their predictions to Parquet files in this folder, including all texts in them; needs the "
        "extra `batch`.",
        "--capture DIR",
    )
    capture_rate: float = option(
        1.0,
        "Fraction of the requests to capture, chosen by a hash of the request id, so that replicas agree.",
        "--capture-rate",
        min=0.0,
        max=1.0,
    )
    capture_bytes: int = option(
        1024 * MB,
        "Maximum size of the captured files; the oldest are deleted.",
        "--capture-mb",
        unit=MB,
        min=1,
        least=CAPTURE_BYTES,
    )
    capture_days: float = option(30.0, "Age at which captured files are deleted.", "--capture-days DAYS", min=0.001)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.in_process and self.workers:
            raise WrongUsage(
                f"workers is {self.workers}, and in_process runs the model in the server's process",
                remedy="set one of them",
            )

    @property
    def end_s(self) -> float:
        """Seconds from a signal to stop until the process has ended at the latest."""
        return self.drain_linger_s + self.drain_timeout_s + STOP_GRACE_S
