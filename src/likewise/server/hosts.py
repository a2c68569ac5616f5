"""The host names that a server answers for, if only this machine can reach it and it has no authentication.

A page from elsewhere could let a name that it controls resolve to this machine and read the responses (DNS rebinding);
the browser then sends that name as Host. Source: RFC 9110, 7.2 (Host), 15.5.20 (421).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

from likewise.core.errors import HostRefused
from likewise.server.server_options import ServerOptions

if TYPE_CHECKING:
    from starlette.types import Scope

ANY = "*"
LOCALHOST = "localhost"
_LONGEST = 255  # characters of a host name


class Hosts:
    """Accepts localhost, loopback addresses, the address and name that the server listens on, and `--allow-host`."""

    def __init__(self, options: ServerOptions) -> None:
        self._names = {LOCALHOST, options.host.lower(), *(name.lower() for name in options.allow_host)}
        self._is_own = lru_cache(1024)(self._compare)

    @staticmethod
    def of(options: ServerOptions) -> Hosts | None:
        """None for a server that has tokens, or a proxy in front that knows its names, or that answers for any name."""
        guarded = options.token_file is not None or options.insecure
        return None if guarded or ANY in options.allow_host else Hosts(options)

    def check(self, scope: Scope) -> None:
        """Raise HostRefused for another host than the server's own; browsers always send a Host."""
        for name, host in scope["headers"]:
            if name == b"host" and not self._is_own(host, (scope.get("server") or ("",))[0]):
                shown = _name(host)[:_LONGEST]
                raise HostRefused(
                    f"this server answers only requests from its own machine, for localhost, not for {shown!r}",
                    remedy=f"use http://localhost, or allow the name: --allow-host {shown}",
                )

    def _compare(self, host: bytes, bound: str) -> bool:
        name = _name(host)
        return not name or name == bound or name in self._names or _is_loopback(name)


def _name(header: bytes) -> str:
    """The name in a Host header, without its port, the brackets of an IPv6 address, and a final dot."""
    host = header.decode("latin-1").lower()
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].removesuffix(".")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
