"""A client of the OCI distribution protocol: pull and push over HTTP, without a daemon."""

from __future__ import annotations

import ipaddress
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from likewise.core.digests import sha256_bytes
from likewise.core.errors import InputNotFound, TargetUnavailable, Unauthorized
from likewise.core.extras import need
from likewise.images.credentials import Credentials, docker_credentials
from likewise.images.oci import HUB, HUB_API, INDEXES, MANIFESTS, Descriptor, ImageName, is_digest

httpx = need("httpx", extra="images")
tenacity = need("tenacity", extra="images")

TRIES = 6
TIMEOUT_S = 60.0  # without a byte
LARGEST_DOCUMENT = 4 << 20  # bytes of a manifest, as the specification advises
ACCEPT = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
PASSING = frozenset({408, 429, 500, 502, 503, 504})
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Passing(Exception):
    """An answer that may be another one in a moment."""


def retrying(wait_s: float = 0.5) -> Any:
    """Tries that wait longer and longer, for what may pass; the last failure is raised as it is."""
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential(multiplier=wait_s, max=15.0) + tenacity.wait_random(0, wait_s),
        retry=tenacity.retry_if_exception_type((httpx.TransportError, Passing)),
        reraise=True,
    )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index as the registry has it."""

    blob: Descriptor
    data: bytes

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON."""
        return cast("dict[str, Any]", json.loads(self.data))


class Registry:
    """One registry. A context. Plain HTTP on loopback, HTTPS anywhere else."""

    def __init__(self, host: str, credentials: Credentials | None = None, *, wait_s: float = 0.5) -> None:
        """credentials: Docker's own where it is None. wait_s: before the first of the tries that follow a failure."""
        self.host = host
        self.wait_s = wait_s
        self._credentials = credentials or docker_credentials
        self._allowed: dict[str, str] = {}  # by scope
        scheme = "http" if _is_loopback(host) else "https"
        self.url = f"{scheme}://{HUB_API if host == HUB else host}"
        self._http = httpx.Client(timeout=TIMEOUT_S, follow_redirects=True)

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.close()

    # --- asking ------------------------------------------------------------------------------------------------------

    def ask(self, method: str, where: str, scope: str, **more: Any) -> Any:
        """One answer, signed in where that is asked for; tried again while it may pass.

        where: a path, or a URL that the registry gave. Raises TargetUnavailable, Unauthorized.
        """
        try:
            return retrying(self.wait_s)(self.once, method, where, scope, **more)
        except (httpx.HTTPError, httpx.InvalidURL, Passing) as error:
            raise TargetUnavailable(
                f"the registry {self.host} does not answer as it should at {urlsplit(where).path}: "
                f"{error or type(error).__name__}",
                remedy="check its address and the network, and run the same command again: what was sent stays",
            ) from error

    def once(self, method: str, where: str, scope: str, **more: Any) -> Any:
        """The same without another try; raises httpx.TransportError and Passing for what may pass."""
        answer = self._send(method, where, scope, more)
        if answer.status_code == 401:
            self._sign_in(answer, scope)
            answer.close()
            answer = self._send(method, where, scope, more)
        if answer.status_code in (401, 403):
            raise Unauthorized(
                f"{self.host} refuses {method} {urlsplit(where).path}: {_said(answer)}",
                remedy=f"docker login {self.host}, or check what this user may do there",
            )
        if answer.status_code in PASSING:
            raise Passing(_said(answer))
        return answer

    def _send(self, method: str, where: str, scope: str, more: dict[str, Any]) -> Any:
        url = httpx.URL(self.url).join(where)
        headers = dict(more.pop("headers", {}))
        more = {**more, "headers": headers}
        ours = (url.host, url.port) == ((mine := httpx.URL(self.url)).host, mine.port)
        if ours and scope in self._allowed:  # nobody else is told who we are
            headers["Authorization"] = self._allowed[scope]
        if more.pop("stream", False):
            return self._http.send(self._http.build_request(method, url, **more), stream=True)
        return self._http.request(method, url, **more)

    def _sign_in(self, answer: Any, scope: str) -> None:
        """Do what the 401 asks for. Source: the specification of Docker's token authentication."""
        kind, _, rest = answer.headers.get("www-authenticate", "").partition(" ")
        known = self._credentials(self.host)
        if kind.lower() == "basic" and known is not None:
            self._allowed[scope] = f"Basic {b64encode(':'.join(known).encode()).decode()}"
        elif kind.lower() == "bearer":
            self._allowed[scope] = f"Bearer {self._token(dict(_CHALLENGE.findall(rest)), scope, known)}"

    def _token(self, asked: Mapping[str, str], scope: str, known: tuple[str, str] | None) -> str:
        realm = asked.get("realm", "")
        if urlsplit(realm).scheme != "https" and not _is_loopback(urlsplit(realm).netloc):
            raise Unauthorized(f"{self.host} wants to be asked at {realm!r}, without TLS", remedy="ask its operator")
        params = {"service": asked.get("service", self.host), "scope": asked.get("scope") or scope}
        answer = self._http.get(realm, params=params, auth=known)
        if answer.status_code != 200:
            raise Unauthorized(f"{realm} gives no token: {_said(answer)}", remedy=f"docker login {self.host}")
        found = answer.json()
        return str(found.get("token") or found.get("access_token"))

    # --- what it has -------------------------------------------------------------------------------------------------

    def manifest(self, name: ImageName) -> Manifest:
        """What `name` is there; InputNotFound where it is nothing, TargetUnavailable where it is no manifest."""
        where = f"/v2/{name.repository}/manifests/{name.at}"
        answer = self.ask("GET", where, pull_scope(name.repository), headers=ACCEPT)
        if answer.status_code == 404:
            raise InputNotFound(
                f"the registry {self.host} has no {name.repository}:{name.at}", remedy="check the name and the tag"
            )
        data = self.good(answer, where).content[: LARGEST_DOCUMENT + 1]
        digest = sha256_bytes(data)
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind not in (*INDEXES, *MANIFESTS) or (is_digest(name.at) and digest != name.at):
            raise TargetUnavailable(f"{name} is no image that can be read: {kind or 'no type'}", remedy="name another")
        return Manifest(Descriptor(kind, digest, len(data)), data)

    def has(self, repository: str, digest: str, kind: str = "blobs") -> bool:
        """Whether it has that blob (or, with kind `manifests`, that manifest)."""
        where = f"/v2/{repository}/{kind}/{digest}"
        answer = self.ask("HEAD", where, pull_scope(repository), headers=ACCEPT)
        return bool(answer.status_code == 200)

    def good(self, answer: Any, where: str) -> Any:
        """The answer itself where it is a success."""
        if answer.status_code >= 300:
            raise TargetUnavailable(
                f"the registry {self.host} refuses {answer.request.method} {urlsplit(where).path}: {_said(answer)}",
                remedy="its words say why; check the name, the rights and the quota there",
            )
        return answer


def pull_scope(repository: str) -> str:
    """What a token must allow for reading."""
    return f"repository:{repository}:pull"


def push_scope(repository: str) -> str:
    """What a token must allow for writing."""
    return f"repository:{repository}:pull,push"


def _said(answer: Any) -> str:
    """The status and what the registry wrote, if it wrote anything that can be read."""
    try:
        answer.read()
        told = "; ".join(f"{e.get('code')}: {e.get('message')}" for e in answer.json()["errors"])
    except (ValueError, KeyError, TypeError, AttributeError, httpx.HTTPError):
        told = ""
    return f"{answer.status_code} {told or answer.reason_phrase}"[:400]


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
