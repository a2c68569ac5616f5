"""Access of web pages of other origins (CORS), which browsers deny unless the server allows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from likewise.core.errors import WrongUsage
from likewise.server.hosts import ANY
from likewise.server.server_options import ServerOptions

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@*]+")
_SHOWN = (  # besides those that pages may always read
    *("X-Likewise-Bundle", "X-Likewise-Build", "X-Likewise-Engine", "X-Request-Id", "Retry-After"),
    *("Inference-Header-Content-Length", "Server-Timing", "X-Likewise-Ignored-Params"),
)


def cross_origin(options: ServerOptions) -> Callable[[ASGIApp], ASGIApp] | None:
    """What wraps the app so that pages of `options.cors_origin` can read its responses; None without such origins.

    Without credentials: browsers neither send cookies nor a password that they store, and pages send tokens themselves.
    Raises WrongUsage for an invalid origin.
    """
    if not options.cors_origin:
        return None
    for origin in options.cors_origin:
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            raise WrongUsage(
                f"{origin!r} is not an origin",
                remedy="use scheme, host and port if any, as browsers send them: https://app.example.com, or * for all",
            )
    return partial(
        CORSMiddleware,
        allow_origins=options.cors_origin,
        allow_methods=("GET", "POST"),
        allow_headers=(ANY,),
        allow_private_network=True,
        expose_headers=_SHOWN,
    )
