"""The options of a local deployment: those of the server, and a limit on the duration of a start."""

from __future__ import annotations

from dataclasses import dataclass

from likewise.core.option_fields import option
from likewise.server import ServerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions(ServerOptions):
    """The options of `likewise serve`, with other defaults.  Units are in the names: `_s` seconds, `_bytes` bytes."""

    port: int = option(0, "Port to listen on; 0 chooses a free port, which updates keep.", min=0, max=65535)
    access_log: bool = option(
        False,
        "Write one JSON line per request to the log, without bodies; otherwise only for a status of 500 or more, "
        "except 503.",
    )
    start_timeout_s: float = option(
        120.0, "Seconds allowed for loading and warming up the model before a start fails.", min=0.001
    )

    def __post_init__(self) -> None:
        """Paths become absolute: the service and later commands run in other folders."""
        ServerOptions.__post_init__(self)
        for name in ("token_file", "capture"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, path.absolute())
