"""The model's lifecycle behind the app: it is loaded in a thread, warmed up, ready, draining, and then closed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from enum import Enum

from likewise.core.engine import ContainedEngine, Engine, counters
from likewise.core.errors import LikewiseError, ModelCrashed, ModelFailed, ModelRaised, NotReady, RunTimeout, WorkerDied
from likewise.core.isolation import traceback_of
from likewise.core.memory import private_memory
from likewise.core.results import Failed, Result
from likewise.dataplane import DaemonThread, DataPlane, Observer, PlaneOptions, Timing
from likewise.server.model import ServedModel
from likewise.server.slices import ROWS, submit_sliced
from likewise.wire import DecodedRequest, Decoder

logger = logging.getLogger("likewise.server")

Headers = tuple[tuple[bytes, bytes], ...]

FAILURES = 10  # different requests on which a model must fail, without any success, to count as broken
NOTE_S = 60.0  # between log lines about rows on which the model raises
RELEASE_S = 1.0  # how long a stopping server waits for an engine run whose result no client needs


class ServiceState(Enum):
    """Lifecycle state of the service; after a failed load it stays LOADING and `failure` is set."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


_SEND_FRAME = (
    "the model has no signature, so it gets the records as they are sent, in a list; if it takes a DataFrame, send "
    "them as `dataframe_records`, or a CSV file"
)


class ModelService:
    """One engine behind a data plane; `open_engine` is called in a dedicated thread.

    failure: why the engine did not load.  problem: why the warm-up failed, if the engine loaded.
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
        self._observer = observer or Observer()
        self._engine: Engine | None = None
        self._plane: DataPlane | None = None
        self._row_wise = self._columns = False
        self._answered = False  # whether the model has made any prediction
        self._failures: set[int] = set()  # hashes of the first FAILURES requests on which it failed
        self._raised, self._noted = 0, -NOTE_S
        self.identity = self._identity()
        self.closing: Headers = ()  # headers of all responses

    @property
    def gauges(self) -> dict[str, float]:
        """Current values for the gauges of `Metrics`."""
        plane, pids = self._plane, getattr(self._engine, "pids", ())
        return {
            "ready": self.is_ready,
            "queue_items": plane.waiting_items if plane else 0,
            "queue_tokens": plane.waiting_tokens if plane else 0,
            "workers": len(pids),
            "worker_bytes": sum(map(private_memory, pids)),
            "worker_restarts": getattr(self._engine, "restarts", 0),
            **(counters(self._engine) if self._engine is not None else {}),
        }

    async def start(self) -> None:
        """Load the engine, warm it up and become ready; a failure is stored in `failure` or `problem`."""
        loader = DaemonThread("likewise-load")
        try:
            engine = await asyncio.get_running_loop().run_in_executor(loader, _loaded, self._open_engine)
        except LikewiseError as error:
            self.failure = error
            return
        finally:
            loader.shutdown()
        self._engine = engine
        self._row_wise, self._columns = engine.spec.row_wise, engine.spec.columns
        self.engine_label = engine.spec.label
        self._plane = DataPlane(engine, self._options, observer=self._observer)
        self.problem = await self._warm_up()
        if self.problem is None and self.state is ServiceState.LOADING:
            self.state = ServiceState.READY
        self.identity = self._identity()
        if isinstance(engine, ContainedEngine):
            engine.fill()

    @property
    def trouble(self) -> LikewiseError | None:
        """Why the model is not usable, if it failed to load or in the warm-up."""
        return self.failure or self.problem

    def drain(self) -> None:
        """Report not ready from now on; requests are still served until `stop`."""
        self.state = ServiceState.DRAINING
        self.close_connections()

    def close_connections(self) -> None:
        """Close each connection with its next response, so that none is closed under a new request."""
        self.closing = ((b"connection", b"close"),)

    async def stop(self) -> None:
        """Drain and close the engine; a run that takes longer than RELEASE_S is abandoned until the process exits."""
        self.drain()
        if self._plane is None:
            return
        try:
            await asyncio.wait_for(self._plane.close(), RELEASE_S)
        except TimeoutError:
            if self._plane.busy:
                logger.warning("the engine is still running; exiting without waiting for it")

    def check_ready(self) -> None:
        """Raise NotReady, with the reason, unless a request would be run now."""
        self.check_usable()
        if self._plane is not None:
            self._plane.check_free()

    @property
    def is_ready(self) -> bool:
        """Whether `check_ready` does not raise."""
        try:
            self.check_ready()
        except NotReady:
            return False
        return True

    def check_usable(self) -> None:
        """Raise NotReady, with the reason, unless requests are served at once, or as soon as a worker is replaced."""
        if self.state is ServiceState.READY and self._plane is not None:
            self._plane.check_usable()
            return
        if self.state is ServiceState.DRAINING:
            raise NotReady("the server is stopping", remedy="send requests to another server")
        known = self.trouble
        if known is not None:
            raise NotReady(f"the model is not usable: {known.cause}", remedy=known.remedy)
        raise NotReady("the model is being loaded", remedy="try again in a moment")

    async def predict(self, call: DecodedRequest, *, large: bool = False, timing: Timing | None = None) -> list[Result]:
        """One result per row if the request is processed by row, else a single result.  Raises NotReady.

        large: whether the request is too large to be hashed on the event loop.  timing: measures it.
        """
        if self._plane is None:
            self.check_ready()
            raise NotReady("the model is being loaded", remedy="try again in a moment")
        if call.by_row(self._row_wise) and len(call.table) > ROWS:
            return await submit_sliced(self._plane, call.table.split(call.params), len(call.table), timing)
        return await self._plane.submit(call.items(self._row_wise), large=large, timing=timing)

    def by_row(self, call: DecodedRequest) -> bool:
        """Whether `predict` returns one result per row of the request."""
        return call.by_row(self._row_wise)

    def predictions(self, call: DecodedRequest, results: list[Result]) -> object:
        """The predictions of one request; raises the error of the first row that failed.

        Raises ModelFailed if the model itself is at fault; see `_broken`.
        """
        values = []
        for row, result in enumerate(results):
            if isinstance(result, Failed):
                raise self._error(row, call, results)
            values.append(result.value)
        self._answered = True
        if not call.by_row(self._row_wise):
            return values[0]
        return _joined(values) if self._columns else values

    def _error(self, row: int, call: DecodedRequest, results: list[Result]) -> LikewiseError:
        failed = [result.error for result in results if isinstance(result, Failed)]
        first = failed[0]
        self._answered = self._answered or len(failed) < len(results)
        raised = all(isinstance(result, Failed) and isinstance(result.error, ModelRaised) for result in results)
        self._note(first, len(failed))
        broken = raised and self._broken(call)
        if raised and not self._never_worked and (hint := self._hint(call)):
            return type(first)(first.cause, remedy=hint)
        if broken:
            return ModelFailed(
                f"the model fails on every input: {first.cause}", remedy="fix the model, then build and deploy it again"
            )
        if not call.by_row(self._row_wise):
            return first
        others = f" ({len(failed) - 1} more rows failed)" if len(failed) > 1 else ""
        return type(first)(f"row {row}: {first.cause}{others}", remedy=f"{first.remedy}; rows count from 0")

    def _hint(self, call: DecodedRequest) -> str:
        """What to change in a request on which the model raised, if its form is the likely cause; else empty."""
        fields, table = self.model.signature.inputs, call.table
        if fields is None:
            sent_value = table.sent.value if table.sent else None
            records = isinstance(sent_value, list) and any(isinstance(each, dict) for each in sent_value)
            return _SEND_FRAME if records else ""
        sent = table.columns or ()
        absent = [repr(each.name) for each in fields if each.name and not each.required and each.name not in sent]
        return f"send a value for the optional column {' and '.join(absent)}, or correct the row" if absent else ""

    def _broken(self, call: DecodedRequest) -> bool:
        """Whether the model itself is at fault, after it raised on all items of a request.

        It is if it failed on several different rows.  If the request is a single item, one row may have caused the
        failure, so the model counts as broken only if its warm-up on its own example failed too, or if it has failed on
        several different requests and never made a prediction.
        """
        by_row = call.by_row(self._row_wise)
        undecided = not self._answered and len(self._failures) < FAILURES
        if by_row or undecided:  # else the rows make no difference
            rows = {repr(values) for values in call.table.rows}
            if undecided:
                self._failures.add(hash(frozenset(rows)))
            if by_row and len(rows) > 1:
                return True
        return self._never_worked

    @property
    def _never_worked(self) -> bool:
        """Whether the model failed on its own example, or on FAILURES requests without any success."""
        return self.problem is not None or (not self._answered and len(self._failures) == FAILURES)

    def _note(self, error: LikewiseError, rows: int) -> None:
        """Count the failure, and log that the model raised; see `_without_values`."""
        if not isinstance(error, (ModelRaised, RunTimeout, WorkerDied)):
            return
        cause = _without_values(error)
        self._observer.failed(cause)
        if not isinstance(error, ModelRaised):
            return
        self._raised += rows
        if (now := time.monotonic()) - self._noted >= NOTE_S:
            logger.warning("%s; rows since the last such line: %d", cause, self._raised)
            self._raised, self._noted = 0, now

    def _identity(self) -> Headers:
        """Headers that name the model that responds."""
        values = {"bundle": self.model.digest, "build": self.model.build, "engine": self.engine_label}
        return tuple(
            (f"x-likewise-{name}".encode(), text.encode("latin-1", "replace")) for name, text in values.items()
        )

    async def _warm_up(self) -> LikewiseError | None:
        if self.model.example is None:
            return None
        try:
            call = self.decode(self.model.example, None)
            self.predictions(call, await self.predict(call))
        except LikewiseError as error:
            logger.warning("the warm-up on the model's input example failed: %s", error.cause)
            return ModelFailed(
                f"the model fails on its own input example: {error.cause}",
                remedy="fix the model, or log it with an example that it can predict",
            )
        return None


def _without_values(error: LikewiseError) -> str:
    """The cause in one line; of an exception only its kind, because its message may contain values of the row."""
    raised = isinstance(error, ModelRaised) and not isinstance(error, ModelCrashed)
    return error.cause.partition(":")[0] if raised else error.cause.partition("\n")[0]


def _joined(rows: list[object]) -> object:
    """A list per output of the rows' predictions, as a model returns that predicts them together."""
    records = [row for row in rows if isinstance(row, dict)]
    return {name: [record[name] for record in records] for name in records[0]} if records else rows


def _loaded(open_engine: Callable[[], Engine]) -> Engine:
    """Call `open_engine`, converting any exception to a LikewiseError."""
    try:
        return open_engine()
    except LikewiseError as error:
        if raised := traceback_of(error):
            logger.error("the model did not load:\n%s", raised.rstrip())
        raise
    except BaseException as error:
        logger.exception("the engine did not load")
        raise ModelFailed(
            f"the engine could not be loaded: {type(error).__name__}: {error}", remedy="read the traceback in the log"
        ) from error
