"""Fault injection: the nth call is throttled, rejected (expired token, quota), or its connection is closed."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from werkzeug.wrappers import Request, Response

from likewise.targets.sagemaker.emulator import Emulator
from likewise.targets.sagemaker.emulator.account import AGENT
from likewise.targets.sagemaker.emulator.wire import AwsError, error_response, scope

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Kind = Literal["throttle", "expired-token", "quota", "cut", "cut-after"]

_QUOTA = (
    "The account-level service limit 'ml.m5.xlarge for endpoint usage' is 0 Instances, with current utilization of 0 "
    "Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an increase for this quota."
)
_ERRORS = {
    "throttle": ("ThrottlingException", "Rate exceeded"),
    "expired-token": ("ExpiredTokenException", "The security token included in the request is expired"),
    "quota": ("ResourceLimitExceeded", _QUOTA),
}
_XML_ERRORS = {
    ("s3", "throttle"): (503, "SlowDown"),
    ("s3", "expired-token"): (400, "ExpiredToken"),
    ("", "throttle"): (400, "Throttling"),
    ("", "expired-token"): (403, "ExpiredToken"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """A recorded call. service: the one it is signed for; operation: its name, or the HTTP method for S3."""

    service: str
    operation: str


@dataclass(slots=True)
class Fault:
    """From the `nth` matching call on (1 is the next), `times` calls fail; None: all of them.

    kind: `cut` closes the connection before the request is executed, `cut-after` after that, without a response.
    service, operation: of the calls to match; None for any.
    """

    kind: Kind
    nth: int = 1
    operation: str | None = None
    service: str | None = None
    times: int | None = 1
    matched: int = 0

    def applies_to(self, call: Call) -> bool:
        """Count the call if it matches; whether it fails."""
        if self.operation not in (None, call.operation) or self.service not in (None, call.service):
            return False
        self.matched += 1
        return self.matched >= self.nth and (self.times is None or self.matched < self.nth + self.times)


class Faults:
    """The recorded calls and the active faults.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._calls: list[Call] = []

    @property
    def calls(self) -> list[Call]:
        """All recorded calls, in order."""
        with self._lock:
            return list(self._calls)

    def add(self, fault: Fault) -> None:
        """Activate a fault."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults and recorded calls."""
        with self._lock:
            self._faults, self._calls = [], []

    def record(self, call: Call) -> Kind | None:
        """Record the call, and return the fault that applies to it, None if there is none."""
        with self._lock:
            self._calls.append(call)
            kinds = [fault.kind for fault in self._faults if fault.applies_to(call)]
            return kinds[0] if kinds else None


def fault_response(kind: Kind, call: Call) -> Response:
    """The service's error response, in its protocol."""
    code, message = _ERRORS[kind]
    service = "s3" if call.service == "s3" else ""
    if call.service not in ("s3", "sts", "iam"):
        return error_response(AwsError(code, message))
    status, code = _XML_ERRORS.get((service, kind), (400, code))
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    body = error if service else f"<ErrorResponse>{error}<RequestId>0</RequestId></ErrorResponse>"
    return Response(body, status, content_type="text/xml")


class FaultyEmulator(Emulator):
    """An emulator with fault injection.  Its own internal calls are neither recorded nor failed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.faults = Faults()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        if AGENT in request.headers.get("User-Agent", ""):
            return super().__call__(environ, start_response)
        service, _ = scope(request)
        call = Call(service, _operation(request, service))
        kind = self.faults.record(call)
        if kind is None:
            return super().__call__(environ, start_response)
        if kind not in ("cut", "cut-after"):
            return fault_response(kind, call)(environ, start_response)
        if kind == "cut-after":
            list(super().__call__(environ, lambda *_: lambda _: None))
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)  # the client sees a closed connection
        return []


def _operation(request: Request, service: str) -> str:
    """The operation's name; for protocols that do not contain it, such as S3, the HTTP method."""
    if target := request.headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    if service == "sagemaker":
        return {"invocations": "InvokeEndpoint", "async-invocations": "InvokeEndpointAsync"}.get(
            request.path.rpartition("/")[2], request.path
        )
    if service in ("sts", "iam"):
        body = request.get_data()
        request.environ["wsgi.input"] = io.BytesIO(body)  # so that it can be read again
        return parse_qs(body.decode(errors="replace")).get("Action", [request.method])[0]
    return request.method
