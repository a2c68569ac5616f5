"""The emulator's HTTP server: handles requests signed for SageMaker, and passes those for other services to moto."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from likewise.targets.sagemaker.emulator.account import AGENT, Account
from likewise.targets.sagemaker.emulator.catalog import Catalog
from likewise.targets.sagemaker.emulator.containers import ContainerRunner
from likewise.targets.sagemaker.emulator.ecr import Ecr
from likewise.targets.sagemaker.emulator.endpoints import Endpoints
from likewise.targets.sagemaker.emulator.fleet import Fleet
from likewise.targets.sagemaker.emulator.proxy import AWS_DOMAINS, tunnel
from likewise.targets.sagemaker.emulator.runtime import RESPONSE_TIMEOUT_S, Runtime
from likewise.targets.sagemaker.emulator.transforms import Transforms
from likewise.targets.sagemaker.emulator.wire import (
    RUNTIME,
    AwsError,
    AwsRequest,
    control_response,
    error_response,
    read_request,
    scope,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)
_running: list[Emulator] = []
_changing = threading.Lock()


class Region:
    """The emulator's state of one region."""

    def __init__(
        self, url: str, name: str, runner: ContainerRunner, max_startup_s: float | None, response_timeout_s: float
    ) -> None:
        self.account = Account(url, name)
        self.fleet = Fleet(self.account, runner, max_startup_s)
        catalog = Catalog(self.account)
        endpoints = Endpoints(catalog, self.fleet)
        self._runtime = Runtime(self.account, endpoints, response_timeout_s)
        self._control = (catalog, endpoints, Transforms(catalog, self.fleet))

    def do(self, aws_request: AwsRequest) -> Response:
        """Execute an operation and return its response; raises AwsError."""
        name = xform_name(aws_request.operation)
        services = (self._runtime,) if aws_request.service == RUNTIME else self._control
        service = next((each for each in services if hasattr(each, name)), None)
        if service is None:
            raise AwsError("UnknownOperationException", f"The rehearsal does not support {aws_request.operation}.")
        output = getattr(service, name)(aws_request.params)
        return output if isinstance(output, Response) else control_response(aws_request, output)

    def close(self) -> None:
        """Stop all jobs, endpoints and containers."""
        _, endpoints, transforms = self._control
        self.fleet.abort_startups()
        transforms.close()
        endpoints.close()
        self._runtime.close()
        self.fleet.stop_all()


class Emulator:
    """A WSGI application, which `rehearsal` runs.  url: the `--endpoint-url` of every service.

    registry: HOST:PORT of the registry that takes the place of ECR; ECR's responses contain its address.
    max_startup_s: an upper limit of the seconds until a container must be ready, in addition to the endpoint's own.
    response_timeout_s: seconds in which a container must respond.  tls: for requests to AWS's own addresses, with the
    emulator as the proxy; see `proxy`.
    """

    def __init__(
        self,
        runner: ContainerRunner,
        registry: str | None = None,
        max_startup_s: float | None = None,
        response_timeout_s: float = RESPONSE_TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = ""
        self.tls = tls
        self._runner = runner
        self._registry = registry
        self._timeouts = max_startup_s, response_timeout_s
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        response: Iterable[bytes] = self._application(request, *scope(request))(environ, start_response)
        return response

    def close(self) -> None:
        """Stop all containers of all regions."""
        for region in list(self._regions.values()):
            region.close()

    def _application(self, request: Request, service: str, region: str) -> Any:
        if service == "sagemaker":
            return self._sagemaker(request, region)
        if service == "logs" and AGENT not in request.headers.get("User-Agent", ""):
            self._region(region).account.flush()
        if service == "ecr" and self._registry is not None:
            return Ecr(self._moto, self._region(region).account, self._registry)
        return self._moto

    def _sagemaker(self, request: Request, region: str) -> Response:
        try:
            aws_request = read_request(request)
            return self._region(region).do(aws_request)
        except AwsError as error:
            return error_response(error)
        except Exception:
            logger.exception("internal error of the rehearsal at %s", request.headers.get("X-Amz-Target", request.path))
            return error_response(
                AwsError("InternalFailure", "Internal error of the rehearsal; see its log.", status=500)
            )

    def _region(self, name: str) -> Region:
        with self._lock:
            if name not in self._regions:
                self._regions[name] = Region(self.url, name, self._runner, *self._timeouts)
            return self._regions[name]


class _Quiet(MotoRequestHandler):  # type: ignore[misc]
    """A request handler that does not log requests to stderr, and is also a proxy for HTTPS."""

    def do_CONNECT(self) -> None:  # noqa: N802  the name is the library's
        """Answer requests to AWS as those to the emulator's URL, and pass others on."""
        self.close_connection = True
        tls: ssl.SSLContext | None = self.server.app.tls
        if tls is None or not self.path.rpartition(":")[0].lower().endswith(AWS_DOMAINS):
            try:
                tunnel(self.connection, self.path)
            except (OSError, ValueError) as error:
                self.send_error(502, f"cannot connect to {self.path}: {error}")
            return
        self.send_response_only(200)
        self.end_headers()
        with suppress(OSError), tls.wrap_socket(self.connection, server_side=True) as self.request:
            self.setup()
            self.handle_one_request()

    def log(self, *_: object) -> None:
        """Discard the line."""


@contextmanager
def rehearsal(emulator: Emulator) -> Iterator[Emulator]:
    """Run the emulator's server until the end of `with`, and then stop all containers.

    moto has one account per process: it is reset when the last emulator has stopped.
    """
    with _changing:
        _running.append(emulator)
    server = make_server("127.0.0.1", 0, emulator, threaded=True, request_handler=_Quiet)
    emulator.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="likewise-rehearsal-server", daemon=True)
    thread.start()
    try:
        yield emulator
    finally:
        emulator.close()
        server.shutdown()
        thread.join()
        server.server_close()
        with _changing:
            _running.remove(emulator)
            if not _running:
                moto_api_backend.reset()
