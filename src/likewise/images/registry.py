"""An HTTP client for the OCI distribution protocol, which pulls and pushes without a daemon."""

from __future__ import annotations

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
from likewise.core.proxies import is_loopback, proxied, proxy_for
from likewise.images.credentials import IDENTITY, Credentials, docker_credentials
from likewise.images.oci import HUB, HUB_API, INDEXES, MANIFESTS, Descriptor, ImageName, is_digest

httpx = need("httpx", extra="images")
tenacity = need("tenacity", extra="images")

TRIES = 6
TIMEOUT_S = 60.0  # for connecting and between bytes
LARGEST_DOCUMENT = 4 << 20  # bytes of a manifest; the limit that the specification recommends
ACCEPT = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class TransientError(Exception):
    """A response that may succeed when retried."""


def retrying(wait_s: float = 0.5) -> Any:
    """Retry transient failures with exponential backoff; the last failure is raised unchanged."""
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential(multiplier=wait_s, max=15.0) + tenacity.wait_random(0, wait_s),
        retry=tenacity.retry_if_exception_type((httpx.TransportError, TransientError)),
        reraise=True,
    )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index with the exact bytes from the registry."""

    blob: Descriptor
    data: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The parsed JSON."""
        return cast("dict[str, Any]", json.loads(self.data))


class Registry:
    """A client for one registry; a context manager. Plain HTTP on loopback, HTTPS for every other host."""

    def __init__(self, host: str, credentials: Credentials | None = None, *, wait_s: float = 0.5) -> None:
        """credentials: Docker's if None. wait_s: delay before the first retry."""
        self.host = host
        self.wait_s = wait_s
        self._credentials = credentials or docker_credentials
        self._authorization: dict[str, str] = {}  # header value by scope
        scheme = "http" if is_loopback(urlsplit(f"//{host}").hostname or "") else "https"
        self.url = f"{scheme}://{HUB_API if host == HUB else host}"
        self._http = httpx.Client(timeout=TIMEOUT_S, follow_redirects=True, transport=_ByProxy())

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.close()

    # --- requests ----------------------------------------------------------------------------------------------------

    def request(self, method: str, url: str, scope: str, **options: Any) -> Any:
        """Send a request, authenticate if required, and retry transient failures.

        url: a path, or a URL that the registry returned. Raises TargetUnavailable, Unauthorized.
        """
        try:
            return retrying(self.wait_s)(self.request_once, method, url, scope, **options)
        except (httpx.HTTPError, httpx.InvalidURL, TransientError) as error:
            via, advice = proxied(self.url)
            raise TargetUnavailable(
                f"request to the registry {self.host} failed at {urlsplit(url).path}{via}: "
                f"{error or type(error).__name__}",
                remedy=f"check its address and the network, then run the same command again: it resumes{advice}",
            ) from error

    def request_once(self, method: str, url: str, scope: str, **options: Any) -> Any:
        """Like `request` without retries; raises httpx.TransportError and TransientError for transient failures."""
        response = self._send(method, url, scope, options)
        if response.status_code == 401:
            self._authenticate(response, scope)
            response.close()
            response = self._send(method, url, scope, options)
        if response.status_code in (401, 403):
            raise Unauthorized(
                f"{self.host} denied {method} {urlsplit(url).path}: {_error_text(response)}",
                remedy=f"docker login {self.host}, or check this user's permissions there",
            )
        if response.status_code in TRANSIENT:
            raise TransientError(_error_text(response))
        return response

    def _send(self, method: str, path_or_url: str, scope: str, options: dict[str, Any]) -> Any:
        url = httpx.URL(self.url).join(path_or_url)
        headers = dict(options.get("headers", {}))  # a copy: after a 401 they are sent again
        options = {**options, "headers": headers}
        same_host = (url.host, url.port) == ((own := httpx.URL(self.url)).host, own.port)
        if same_host and scope in self._authorization:  # never send credentials to a host that it redirects to
            headers["Authorization"] = self._authorization[scope]
        if options.pop("stream", False):
            return self._http.send(self._http.build_request(method, url, **options), stream=True)
        return self._http.request(method, url, **options)

    def _authenticate(self, response: Any, scope: str) -> None:
        """Handle the challenge of a 401 response. Source: the specification of Docker's token authentication."""
        kind, _, rest = response.headers.get("www-authenticate", "").partition(" ")
        credentials = self._credentials(self.host)
        if kind.lower() == "basic" and credentials is not None:
            if credentials[0] == IDENTITY:
                raise Unauthorized(
                    f"{self.host} requires a password, and Docker's configuration has an identity token for it",
                    remedy=f"docker login {self.host} with a user and a password",
                )
            self._authorization[scope] = f"Basic {b64encode(':'.join(credentials).encode()).decode()}"
        elif kind.lower() == "bearer":
            self._authorization[scope] = f"Bearer {self._token(dict(_CHALLENGE.findall(rest)), scope, credentials)}"

    def _token(self, challenge: Mapping[str, str], scope: str, credentials: tuple[str, str] | None) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not is_loopback(urlsplit(realm).hostname or ""):
            raise Unauthorized(
                f"{self.host} names a token service without TLS: {realm!r}", remedy="report this to its operator"
            )
        params = {"service": challenge.get("service", self.host), "scope": challenge.get("scope") or scope}
        if credentials is not None and credentials[0] == IDENTITY:
            form = {**params, "grant_type": "refresh_token", "refresh_token": credentials[1], "client_id": "likewise"}
            response = self._http.post(realm, data=form)
        else:
            response = self._http.get(realm, params=params, auth=credentials)
        try:
            if response.status_code == 200:
                document = response.json()
                return str(document.get("token") or document["access_token"])
        except (ValueError, KeyError, AttributeError):
            pass  # it is not the standard JSON
        raise Unauthorized(f"{realm} issued no token: {_error_text(response)}", remedy=f"docker login {self.host}")

    # --- contents ----------------------------------------------------------------------------------------------------

    def manifest(self, name: ImageName) -> Manifest:
        """The manifest or index called `name`; raises InputNotFound, or TargetUnavailable if it is not readable."""
        path = f"/v2/{name.repository}/manifests/{name.reference}"
        response = self.request("GET", path, pull_scope(name.repository), headers=ACCEPT)
        if response.status_code == 404:
            raise InputNotFound(
                f"the registry {self.host} has no {name.repository}:{name.reference}",
                remedy="check the name and the tag",
            )
        data = self.require_success(response, path).content[: LARGEST_DOCUMENT + 1]
        digest = sha256_bytes(data)
        media_type = response.headers.get("content-type", "").partition(";")[0]
        if media_type not in (*INDEXES, *MANIFESTS) or (is_digest(name.reference) and digest != name.reference):
            raise TargetUnavailable(
                f"{name} is not a readable image: {media_type or 'no content type'}", remedy="name another image"
            )
        return Manifest(Descriptor(media_type, digest, len(data)), data)

    def has(self, repository: str, digest: str, kind: str = "blobs") -> bool:
        """Whether the registry has this blob (or, with kind `manifests`, this manifest)."""
        response = self.request("HEAD", f"/v2/{repository}/{kind}/{digest}", pull_scope(repository), headers=ACCEPT)
        return bool(response.status_code == 200)

    def require_success(self, response: Any, url: str) -> Any:
        """Return the response if its status is below 300; raises TargetUnavailable otherwise."""
        if response.status_code >= 300:
            raise TargetUnavailable(
                f"{self.host} rejected {response.request.method} {urlsplit(url).path}: {_error_text(response)}",
                remedy="see its message; check the name, the permissions and the quota there",
            )
        return response


def pull_scope(repository: str) -> str:
    """The token scope for reading."""
    return f"repository:{repository}:pull"


def push_scope(repository: str) -> str:
    """The token scope for writing."""
    return f"repository:{repository}:pull,push"


def _error_text(response: Any) -> str:
    """The status and the registry's error messages, or the reason phrase if the body is not the standard JSON."""
    try:
        response.read()
        messages = "; ".join(f"{e.get('code')}: {e.get('message')}" for e in response.json()["errors"])
    except (ValueError, KeyError, TypeError, AttributeError, httpx.HTTPError):
        messages = ""
    return f"{response.status_code} {messages or response.reason_phrase}"[:400]


class _ByProxy(httpx.BaseTransport):  # type: ignore[misc, name-defined]
    """Sends each request, also one that a registry redirects, through the proxy that `proxy_for` names."""

    def __init__(self) -> None:
        self._transports: dict[str | None, Any] = {}

    def handle_request(self, request: Any) -> Any:
        proxy = proxy_for(str(request.url))
        if proxy not in self._transports:
            try:
                self._transports[proxy] = httpx.HTTPTransport(proxy=proxy)
            except (ValueError, ImportError, httpx.InvalidURL) as error:  # SOCKS, for example
                via, advice = proxied(str(request.url))
                raise TargetUnavailable(
                    f"requests to {request.url.host} cannot be sent{via}: {error}",
                    remedy=f"set HTTPS_PROXY to an HTTP proxy{advice}",
                ) from error
        return self._transports[proxy].handle_request(request)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()
