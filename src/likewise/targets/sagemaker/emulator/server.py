"""One address for all: SageMaker is answered here, any other service by moto, as a call is signed for one."""

from __future__ import annotations

import io
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from botocore import xform_name
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from likewise.core.extras import need
from likewise.targets.sagemaker.emulator.account import AGENT, Account
from likewise.targets.sagemaker.emulator.catalog import Catalog
from likewise.targets.sagemaker.emulator.ecr import Ecr
from likewise.targets.sagemaker.emulator.endpoints import Endpoints
from likewise.targets.sagemaker.emulator.faults import Call, Faults, fault_answer
from likewise.targets.sagemaker.emulator.fleet import Fleet
from likewise.targets.sagemaker.emulator.runner import Runner
from likewise.targets.sagemaker.emulator.runtime import ANSWER_S, Runtime
from likewise.targets.sagemaker.emulator.transforms import Transforms
from likewise.targets.sagemaker.emulator.wire import RUNTIME, Asked, AwsError, answer, error_answer, read_request, scope

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)


class Region:
    """What the emulator keeps of one region."""

    def __init__(self, url: str, name: str, runner: Runner, most_wait_s: float | None, answer_s: float) -> None:
        self.account = Account(url, name)
        self.fleet = Fleet(self.account, runner, most_wait_s)
        catalog = Catalog(self.account)
        endpoints = Endpoints(catalog, self.fleet)
        self._runtime = Runtime(self.account, endpoints, answer_s)
        self._control = (catalog, endpoints, Transforms(catalog, self.fleet))

    def do(self, asked: Asked) -> Response:
        """The operation's answer; AwsError."""
        name = xform_name(asked.operation)
        if asked.service == RUNTIME:
            return self._method((self._runtime,), name, asked)(asked.params)  # type: ignore[no-any-return]
        return answer(asked, self._method(self._control, name, asked)(asked.params))

    def close(self) -> None:
        """No container is left."""
        _, endpoints, transforms = self._control
        self.fleet.give_up()
        transforms.close()
        endpoints.close()
        self._runtime.close()
        self.fleet.stop_all()

    def _method(self, rooms: Iterable[object], name: str, asked: Asked) -> Callable[..., Any]:
        for room in rooms:
            if (method := getattr(room, name, None)) is not None:
                return method  # type: ignore[no-any-return]
        raise AwsError("UnknownOperationException", f"The rehearsal does not know {asked.operation}.")


class Emulator:
    """Running; from `rehearsal`.  url: the `--endpoint-url` of every service."""

    def __init__(self, runner: Runner, registry: str | None, most_wait_s: float | None, answer_s: float) -> None:
        self.url = ""
        self.faults = Faults()
        self.caution = runner.caution
        self._runner = runner
        self._registry = registry
        self._waits = most_wait_s, answer_s
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()
        moto = need("moto.moto_server.werkzeug_app", extra="rehearsal")
        self._moto = moto.DomainDispatcherApplication(moto.create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        service, region = scope(request)
        own = AGENT in request.headers.get("User-Agent", "")
        fault = None if own else self.faults.met_by(Call(service, _operation(request, service)))
        if fault == "cut":
            _cut(environ)
            return []
        if fault in ("throttle", "expired-token", "quota"):
            return fault_answer(fault, Call(service, ""))(environ, start_response)
        application = self._application(request, service, region, own=own)
        if fault == "cut-after":
            list(application(environ, lambda *_: lambda _: None))
            _cut(environ)
            return []
        answered: Iterable[bytes] = application(environ, start_response)
        return answered

    def close(self) -> None:
        """No container is left."""
        for region in list(self._regions.values()):
            region.close()

    def _application(self, request: Request, service: str, region: str, *, own: bool) -> Any:
        if service == "sagemaker":
            return self._sagemaker(request, region)
        if service == "logs" and not own:
            self._region(region).account.flush()
        if service == "ecr" and self._registry is not None:
            return Ecr(self._moto, self._region(region).account, self._registry)
        return self._moto

    def _sagemaker(self, request: Request, region: str) -> Response:
        try:
            asked = read_request(request, region)
            return self._region(region).do(asked)
        except AwsError as error:
            return error_answer(error)
        except Exception:
            logger.exception("the rehearsal broke on %s", request.headers.get("X-Amz-Target", request.path))
            return error_answer(AwsError("InternalFailure", "The rehearsal broke; its log says why.", status=500))

    def _region(self, name: str) -> Region:
        with self._lock:
            if name not in self._regions:
                self._regions[name] = Region(self.url, name, self._runner, *self._waits)
            return self._regions[name]


@contextmanager
def rehearsal(
    runner: Runner,
    *,
    registry: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    most_wait_s: float | None = None,
    answer_s: float = ANSWER_S,
) -> Iterator[Emulator]:
    """An emulator that answers, until the end of `with`; no container and no process is left then.

    registry: HOST:PORT of the registry that stands for ECR, so that what ECR answers names it.
    most_wait_s: seconds in which a container must be ready at most, whatever an endpoint allows it.
    answer_s: seconds in which a container must answer.  Raises MissingExtra.
    """
    emulator = Emulator(runner, registry, most_wait_s, answer_s)
    if emulator.caution is not None:
        logger.warning("%s", emulator.caution)
    need("moto.moto_server.werkzeug_app", extra="rehearsal")
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    _remember()
    server = make_server(host, port, emulator, threaded=True, request_handler=_quiet(MotoRequestHandler))
    emulator.url = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="likewise-rehearsal-server", daemon=True)
    thread.start()
    try:
        yield emulator
    finally:
        emulator.close()
        server.shutdown()
        thread.join()
        server.server_close()
        _forget()


_held = 0
_holding = threading.Lock()


def _remember() -> None:
    global _held
    with _holding:
        _held += 1


def _forget() -> None:
    """moto keeps one account a process: it is emptied when the last emulator has ended."""
    global _held
    with _holding:
        _held -= 1
        if _held == 0:
            need("moto.moto_api._internal.models", extra="rehearsal").moto_api_backend.reset()


def _operation(request: Request, service: str) -> str:
    """Its name where the protocol says it; for S3 the HTTP method."""
    if target := request.headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    if service == "sagemaker":
        return {"invocations": "InvokeEndpoint", "async-invocations": "InvokeEndpointAsync"}.get(
            request.path.rpartition("/")[2], request.path
        )
    if service in ("sts", "iam"):
        body = request.get_data()
        request.environ["wsgi.input"] = io.BytesIO(body)  # for whoever reads it next
        return parse_qs(body.decode(errors="replace")).get("Action", [request.method])[0]
    return request.method


def _cut(environ: WSGIEnvironment) -> None:
    """The caller reads no answer, but the end of the connection."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def _quiet(handler: Any) -> Any:
    class Quiet(handler):  # type: ignore[misc]
        """Without a line a request on stderr."""

        def log(self, *_: object) -> None:
            """Nothing."""

    return Quiet
