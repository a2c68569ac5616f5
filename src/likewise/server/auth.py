"""Who may ask: tokens from a file, which is looked at for each request, so that they can be changed under a server."""

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

OPEN_PATHS = frozenset({"/ping", "/health", "/ready", "/v2/health/live", "/v2/health/ready"})
"""What load balancers ask, who have no token."""

CHALLENGE = 'Basic realm="likewise", charset="UTF-8", Bearer realm="likewise"'
"""The value of WWW-Authenticate of a 401.  Basic stands first, because browsers ask the user for that one only."""

_LONGEST = 16 * 1024  # characters of an Authorization header; more is no token
_SETTLED_NS = 1_000_000_000  # a younger file may change again without its time of change showing that
_REMEDY = "send the header Authorization: Bearer TOKEN, or TOKEN as the password of Basic"
_HOW = "write one token a line into it, such as `openssl rand -hex 32` prints"

_Stamp = tuple[int, int, int]


def tokens_in(content: bytes) -> list[bytes]:
    """The tokens of a file's content: one a line; blank lines and those that begin with `#` are none."""
    lines = [line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()]
    return [line for line in lines if line and not line.startswith(b"#")]


def authorization(token_file: str | Path | None) -> dict[str, str]:
    """The header of a caller who has the server's file: its first token; none without a file, or a token in it.

    Raises WrongUsage where it cannot be read.
    """
    if token_file is None:
        return {}
    try:
        tokens = tokens_in(Path(token_file).read_bytes())
    except OSError as error:
        raise WrongUsage(f"the token file {token_file} cannot be read: {error}", remedy="mend the file") from error
    return {"Authorization": f"Bearer {tokens[0].decode('latin-1')}"} if tokens else {}  # as HTTP writes headers


class Tokens:
    """The tokens in the file at `path`: one a line; blank lines and those that begin with `#` are none.

    Each of them is valid.  A file that changes is read anew, also one that a symlink swaps; one that vanishes, or holds
    no token any more, leaves the last tokens in force and one warning in the log.  Raises WrongUsage where there is no
    token to begin with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._warned = False
        try:
            found, self._known = self._read()
        except OSError as error:
            raise WrongUsage(f"the token file {path} cannot be read: {_reason(error)}", remedy=_HOW) from error
        if not self._known:
            raise WrongUsage(f"the token file {path} holds no token", remedy=_HOW)
        if found.st_mode & stat.S_IROTH:
            logger.warning("the token file %s can be read by every user of this machine: chmod 600 it", path)

    def check(self, headers: Headers) -> None:
        """Unauthorized, unless the request has exactly one Authorization header, with a token that is known now."""
        self._refresh()
        sent = headers.getlist("authorization")
        token = _token(sent[0]) if len(sent) == 1 else None
        if token is None:
            raise Unauthorized("the request has no token that can be read", remedy=_REMEDY)
        digest = hashlib.sha256(token).digest()
        known = False
        for one in self._known:  # every one of them, so that the time tells nothing
            known |= hmac.compare_digest(digest, one)
        if not known:
            raise Unauthorized("the token is none that this server knows", remedy=_REMEDY)

    def _refresh(self) -> None:
        try:
            if self._stamp == _stamp(os.stat(self._path)):
                return
            known = self._read()[1]
        except OSError as error:
            self._keep(_reason(error))
            return
        if known:
            self._known, self._warned = known, False
        else:
            self._keep("it holds no token")

    def _read(self) -> tuple[os.stat_result, tuple[bytes, ...]]:
        with self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            tokens = tokens_in(file.read())
        settled = time.time_ns() - found.st_mtime_ns > _SETTLED_NS
        self._stamp = _stamp(found) if settled else None
        return found, tuple(hashlib.sha256(token).digest() for token in tokens)

    def _keep(self, why: str) -> None:
        if not self._warned:
            logger.warning("the token file %s is not followed, and the last tokens stay valid: %s", self._path, why)
            self._warned = True


def _token(header: str) -> bytes | None:
    """The token of an Authorization header; None where it has none.  Source: RFC 6750, 2.1, and RFC 7617, 2."""
    scheme, _, value = header.strip().partition(" ")
    raw = value.strip().encode("latin-1", "replace")  # the bytes that were sent
    if not raw or len(raw) > _LONGEST:
        return None
    if scheme.lower() == "bearer":
        return raw
    return _password(raw) if scheme.lower() == "basic" else None


def _password(raw: bytes) -> bytes | None:
    try:
        return base64.b64decode(raw, validate=True).partition(b":")[2].strip() or None
    except binascii.Error:
        return None


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
