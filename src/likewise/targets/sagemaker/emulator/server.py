"""One address for all: SageMaker is answered here, any other service by moto, as a call is signed for one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
from likewise.targets.sagemaker.emulator.runtime import ANSWER_S, Runtime
from likewise.targets.sagemaker.emulator.transforms import Transforms
from likewise.targets.sagemaker.emulator.wire import (
    RUNTIME,
    AwsError,
    AwsRequest,
    answer,
    error_answer,
    read_request,
    scope,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)
_running: list[Emulator] = []
_changing = threading.Lock()


class Region:
    """What the emulator keeps of one region."""

    def __init__(
        self, url: str, name: str, runner: ContainerRunner, most_wait_s: float | None, answer_s: float
    ) -> None:
        self.account = Account(url, name)
        self.fleet = Fleet(self.account, runner, most_wait_s)
        catalog = Catalog(self.account)
        endpoints = Endpoints(catalog, self.fleet)
        self._runtime = Runtime(self.account, endpoints, answer_s)
        self._control = (catalog, endpoints, Transforms(catalog, self.fleet))

    def do(self, asked: AwsRequest) -> Response:
        """The operation's answer; AwsError."""
        name = xform_name(asked.operation)
        rooms = (self._runtime,) if asked.service == RUNTIME else self._control
        room = next((each for each in rooms if hasattr(each, name)), None)
        if room is None:
            raise AwsError("UnknownOperationException", f"The rehearsal does not know {asked.operation}.")
        said = getattr(room, name)(asked.params)
        return said if isinstance(said, Response) else answer(asked, said)

    def close(self) -> None:
        """No container is left."""
        _, endpoints, transforms = self._control
        self.fleet.give_up()
        transforms.close()
        endpoints.close()
        self._runtime.close()
        self.fleet.stop_all()


class Emulator:
    """A WSGI application, which `rehearsal` runs.  url: the `--endpoint-url` of every service.

    registry: HOST:PORT of the registry that stands for ECR, so that what ECR answers names it.
    most_wait_s: seconds in which a container must be ready at most, whatever an endpoint allows it.
    answer_s: seconds in which a container must answer.
    """

    def __init__(
        self,
        runner: ContainerRunner,
        registry: str | None = None,
        most_wait_s: float | None = None,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.url = ""
        self._runner = runner
        self._registry = registry
        self._waits = most_wait_s, answer_s
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        answered: Iterable[bytes] = self._application(request, *scope(request))(environ, start_response)
        return answered

    def close(self) -> None:
        """No container is left."""
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
            asked = read_request(request)
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


class _Quiet(MotoRequestHandler):  # type: ignore[misc]
    """Without a line a request on stderr."""

    def log(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def rehearsal(emulator: Emulator) -> Iterator[Emulator]:
    """It answers, until the end of `with`; no container is left then.

    moto keeps one account a process: it is emptied when the last emulator has ended.
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
