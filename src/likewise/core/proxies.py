"""The proxy for a request: none to this machine itself, otherwise the one that the library `requests` would choose.

Source: the documentation of requests ("Proxies") and of `urllib.request.getproxies` and `proxy_bypass`.
"""

from __future__ import annotations

import ipaddress
import os
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener, getproxies, proxy_bypass

from likewise.core.uris import without_secrets


def is_loopback(host: str) -> bool:
    """Whether this host, a name or an address without a port, is this machine itself."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_for(url: str) -> str | None:
    """The URL of the proxy for requests to `url`; None to connect directly.

    From HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY in upper or lower case, or the system's settings.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or is_loopback(host) or _is_excluded(host, parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def proxied(url: str) -> tuple[str, str]:
    """What the cause and the remedy of a failed request to `url` say about its proxy; empty if there is none."""
    proxy = proxy_for(url)
    if proxy is None:
        return "", ""
    host = urlsplit(url).hostname
    return f" through the proxy {without_secrets(proxy)}", f"; to connect without the proxy, add {host} to NO_PROXY"


def _is_excluded(host: str, address: str) -> bool:
    """Whether NO_PROXY names the host.  address: the host with its port, if it has one."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return bool(proxy_bypass(address))
    for entry in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(","):
        with suppress(ValueError):  # a name
            if ip in ipaddress.ip_network(entry.strip(), strict=False):
                return True
    return bool(proxy_bypass(host))


class _ChosenProxy(ProxyHandler):
    """Chooses the proxy of each request."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(("http", "https"), ""))

    def proxy_open(self, req: Request, proxy: str, type: str) -> Any:  # noqa: A002, ARG002  urllib's names
        chosen = proxy_for(req.full_url)
        return super().proxy_open(req, chosen, type) if chosen else None


OPENER: OpenerDirector = build_opener(_ChosenProxy())
"""Opens HTTP URLs through the proxy that `proxy_for` names."""
