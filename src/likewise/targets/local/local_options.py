"""What can be set of a local deployment: all that the server takes, and how long a start may last."""

from __future__ import annotations

from dataclasses import dataclass

from likewise.core.option_fields import option
from likewise.server import ServerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions(ServerOptions):
    """Those of `likewise serve`; seconds and bytes as their names say."""

    port: int = option(0, "Port to listen on; 0 finds a free one and keeps it.")
    access_log: bool = option(False, "One JSON line a request in the log, without the texts.")
    start_timeout_s: float = option(120.0, "Seconds for the model to be loaded and warm; a longer start is a failure.")
