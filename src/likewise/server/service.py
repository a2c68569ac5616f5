"""The model's life behind the app: loading off the event loop, warm-up, ready, draining, closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum

from likewise.core.engine import Engine
from likewise.core.errors import LikewiseError, ModelFailed, ModelRaised, NotReady
from likewise.core.results import Failed, Result
from likewise.dataplane import DaemonThread, DataPlane, Observer, PlaneOptions
from likewise.server.model import ServedModel
from likewise.wire import DecodedRequest, Decoder

logger = logging.getLogger("likewise.server")

RELEASE_S = 1.0  # for what still runs in the engine when the server stops: nobody waits for it any more


class ServiceState(Enum):
    """Where the service stands."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class ModelService:
    """One engine, opened by `open_engine` in a thread of its own, behind a data plane.

    failure: why the engine did not load.  problem: why it is not ready although it did (its warm-up failed).
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        model: ServedModel,
        options: PlaneOptions | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.model = model
        self.decode = Decoder(model.signature)
        self.failure: LikewiseError | None = None
        self.problem: LikewiseError | None = None
        self.engine_label = "loading"
        self.state = ServiceState.LOADING
        self._open_engine = open_engine
        self._options = options
        self._observer = observer
        self._engine: Engine | None = None
        self._plane: DataPlane | None = None
        self._row_wise = False
        self.headers = self._headers()

    @property
    def gauges(self) -> dict[str, float]:
        """What the metrics show of this moment."""
        plane = self._plane
        return {
            "queue_items": plane.waiting_items if plane else 0,
            "queue_tokens": plane.waiting_tokens if plane else 0,
            "worker_restarts": getattr(self._engine, "restarts", 0),
        }

    async def start(self) -> None:
        """Load, warm up, be ready; keeps the reason where that fails."""
        loader = DaemonThread("likewise-load")
        try:
            engine = await asyncio.get_running_loop().run_in_executor(loader, _loaded, self._open_engine)
        except LikewiseError as error:
            self.failure = error
            return
        finally:
            loader.shutdown()
        self._engine = engine
        self._row_wise = engine.spec.row_wise
        self.engine_label = engine.spec.label
        self._plane = DataPlane(engine, self._options, observer=self._observer)
        self.problem = await self._warm_up()
        if self.problem is None and self.state is ServiceState.LOADING:
            self.state = ServiceState.READY
        self.headers = self._headers()

    def drain(self) -> None:
        """Not ready from now on; requests are answered until `stop`."""
        self.state = ServiceState.DRAINING
        self.headers = self._headers()

    async def stop(self) -> None:
        """Release the engine; one that is still running after RELEASE_S is left to the process's end."""
        self.drain()
        if self._plane is None:
            return
        try:
            await asyncio.wait_for(self._plane.close(), RELEASE_S)
        except TimeoutError:
            logger.warning("the engine is still running, and is left so")

    def check_ready(self) -> None:
        """NotReady, with the reason, unless the service is ready."""
        if self.state is ServiceState.READY:
            return
        if self.state is ServiceState.DRAINING:
            raise NotReady("the server is stopping", remedy="send requests to another server")
        known = self.failure or self.problem
        if known is not None:
            raise NotReady(f"the model cannot answer: {known.cause}", remedy=known.remedy)
        raise NotReady("the model is being loaded", remedy="ask again in a moment")

    async def predict(self, call: DecodedRequest) -> list[Result]:
        """One result a row where the call is answered by row, else one for the whole.  Raises NotReady."""
        if self._plane is None:
            self.check_ready()
            raise NotReady("the model is being loaded", remedy="ask again in a moment")
        return await self._plane.submit(call.items(self._row_wise))

    def predictions(self, call: DecodedRequest, results: list[Result]) -> object:
        """The predictions of one call; raises the error of the first row that has none.

        ModelFailed where the model raises on each of several different rows, or on the whole of them where it is not
        row-wise: then it is broken, not they.
        """
        values = []
        for row, result in enumerate(results):
            if isinstance(result, Failed):
                raise self._refusal(row, call, results)
            values.append(result.value)
        return values if call.by_row(self._row_wise) else values[0]

    def _refusal(self, row: int, call: DecodedRequest, results: list[Result]) -> LikewiseError:
        failed = [result.error for result in results if isinstance(result, Failed)]
        first = failed[0]
        raised = all(isinstance(result, Failed) and isinstance(result.error, ModelRaised) for result in results)
        if raised and self._broken(call):
            return ModelFailed(f"the model fails on whatever it is asked: {first.cause}", remedy="mend the model")
        if not call.by_row(self._row_wise):
            return first
        others = f" ({len(failed) - 1} more rows failed)" if len(failed) > 1 else ""
        return type(first)(f"row {row}: {first.cause}{others}", remedy=f"{first.remedy}; rows count from 0")

    def _broken(self, call: DecodedRequest) -> bool:
        """Whether a model that raised on a whole call is itself at fault.

        Several different rows cannot all be; of a request that is one item, only one row may be, so there the model's
        own example decides, which it was asked at the start.
        """
        if call.by_row(self._row_wise):
            return len({repr(values) for values in call.table.rows}) > 1
        return self.problem is not None

    def _headers(self) -> list[tuple[bytes, bytes]]:
        """Of every answer: what answered.  A stopping server closes its connections after the next answer, so that
        none is closed under a request just sent.
        """
        said = [("x-likewise-bundle", self.model.digest), ("x-likewise-engine", self.engine_label)]
        if self.state is ServiceState.DRAINING:
            said.append(("connection", "close"))
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in said]

    async def _warm_up(self) -> LikewiseError | None:
        if self.model.example is None:
            return None
        try:
            call = self.decode(self.model.example, None)
            self.predictions(call, await self.predict(call))
        except LikewiseError as error:
            logger.warning("the warm-up on the model's input example failed: %s", error.cause)
            return error
        return None


def _loaded(open_engine: Callable[[], Engine]) -> Engine:
    """`open_engine()`; any way in which it breaks is a LikewiseError."""
    try:
        return open_engine()
    except LikewiseError:
        raise
    except BaseException as error:
        logger.exception("the engine did not load")
        raise ModelFailed(
            f"the engine does not load: {type(error).__name__}: {error}", remedy="read the traceback in the log"
        ) from error
