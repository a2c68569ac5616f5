"""Token authentication.  The token file is checked on every request, so tokens can be changed without a restart."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from likewise.core.errors import Unauthorized, WrongUsage

if TYPE_CHECKING:
    from starlette.datastructures import Headers

logger = logging.getLogger("likewise.server")

OPEN_PATHS = frozenset({"/ping", "/health", "/ready", "/v2/health/live", "/v2/health/ready", "/"})
"""Open without a token: health checks, because load balancers have none, and the page, which has a field for it."""

OPEN_FILES = "/page/"
"""The prefix of the page's own files, the same for every model."""

CHALLENGE = 'Basic realm="likewise", charset="UTF-8", Bearer realm="likewise"'
"""The WWW-Authenticate header of a 401.  Basic comes first because browsers prompt the user only for Basic."""

BEARER = CHALLENGE.rpartition(", ")[2]
"""The challenge for a client that sent a Bearer token, as the page does: its browser must not prompt the user."""

_MAX_HEADER = 16 * 1024  # characters of an Authorization header; longer ones are rejected
_SETTLED_NS = 1_000_000_000  # a file modified more recently may change again within the same timestamp
_REMEDY = "send the header Authorization: Bearer TOKEN, or TOKEN as the password of Basic authentication"
_FILE_REMEDY = "write one token per line to the file, for example the output of `openssl rand -hex 32`"

_Stamp = tuple[int, int, int]


def tokens_in(content: bytes) -> list[bytes]:
    """The tokens in a file's content, one per line; blank lines and lines starting with `#` are ignored."""
    lines = [line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()]
    return [line for line in lines if line and not line.startswith(b"#")]


def is_open(path: str) -> bool:
    """Whether requests for this path need no token."""
    return path in OPEN_PATHS or path.startswith(OPEN_FILES)


def challenge(sent: str) -> str:
    """The WWW-Authenticate header of a 401 for a request with this Authorization header."""
    return BEARER if sent.strip().lower().startswith("bearer ") else CHALLENGE


def authorization(token_file: str | Path | None) -> dict[str, str]:
    """The Authorization header for a client that has the server's token file; it uses the first token.

    Empty without a file or if the file has no token.  Raises WrongUsage if the file cannot be read.
    """
    if token_file is None:
        return {}
    try:
        tokens = tokens_in(Path(token_file).read_bytes())
    except OSError as error:
        raise WrongUsage(
            f"the token file {token_file} cannot be read: {error}", remedy="check its path and permissions"
        ) from error
    return {"Authorization": f"Bearer {tokens[0].decode('latin-1')}"} if tokens else {}  # latin-1: HTTP's encoding


class Tokens:
    """The valid tokens, read from the file at `path`; see `tokens_in` for its format.

    A changed file is reloaded, including one replaced through a symlink.  If it disappears or has no tokens any more,
    the last tokens stay valid and a warning is logged once.  Raises WrongUsage if there is no token initially.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._warned = False
        try:
            status, self._known = self._read()
        except OSError as error:
            raise WrongUsage(f"the token file {path} cannot be read: {_reason(error)}", remedy=_FILE_REMEDY) from error
        if not self._known:
            raise WrongUsage(f"the token file {path} contains no tokens", remedy=_FILE_REMEDY)
        if status.st_mode & stat.S_IROTH:
            logger.warning("the token file %s is readable by all users of this machine; run chmod 600 on it", path)

    def check(self, headers: Headers) -> None:
        """Raise Unauthorized unless the request has exactly one Authorization header, with a currently valid token."""
        self._refresh()
        sent = headers.getlist("authorization")
        token = _token(sent[0]) if len(sent) == 1 else None
        if token is None:
            raise Unauthorized("the request has no token in its Authorization header", remedy=_REMEDY)
        digest = hashlib.sha256(token).digest()
        known = False
        for valid in self._known:  # compares with all of them, so that timing reveals nothing
            known |= hmac.compare_digest(digest, valid)
        if not known:
            raise Unauthorized("the token is not valid for this server", remedy=_REMEDY)

    def _refresh(self) -> None:
        try:
            if self._stamp == _stamp(os.stat(self._path)):
                return
            known = self._read()[1]
        except OSError as error:
            self._warn_unchanged(_reason(error))
            return
        if known:
            self._known, self._warned = known, False
        else:
            self._warn_unchanged("it contains no tokens")

    def _read(self) -> tuple[os.stat_result, tuple[bytes, ...]]:
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            tokens = tokens_in(file.read())
        settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
        self._stamp = _stamp(status) if settled else None
        return status, tuple(hashlib.sha256(token).digest() for token in tokens)

    def _warn_unchanged(self, why: str) -> None:
        if not self._warned:
            logger.warning("the token file %s could not be reloaded; the last tokens stay valid: %s", self._path, why)
            self._warned = True


def _token(header: str) -> bytes | None:
    """The token in an Authorization header, None if it has none.  Source: RFC 6750, 2.1, and RFC 7617, 2."""
    scheme, _, value = header.strip().partition(" ")
    raw = value.strip().encode("latin-1", "replace")  # the bytes as received
    if not raw or len(raw) > _MAX_HEADER:
        return None
    if scheme.lower() == "bearer":
        return raw
    return _password(raw) if scheme.lower() == "basic" else None


def _password(raw: bytes) -> bytes | None:
    """The password in Basic credentials, None if there is none."""
    try:
        return base64.b64decode(raw, validate=True).partition(b":")[2].strip() or None
    except binascii.Error:
        return None


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
