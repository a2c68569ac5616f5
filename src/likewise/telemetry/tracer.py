"""Creates spans after the fact and exports them in a thread.  Imports OpenTelemetry; `switch` imports it if needed."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from likewise.telemetry.parent import Parent

logger = logging.getLogger("likewise.telemetry")

Attributes = Mapping[str, str | int | float | bool]
MAX_LINKS = 128  # of a span; the limit of OpenTelemetry
REPEAT_S = 600.0  # in which a message of OpenTelemetry is logged once

_OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_SAMPLED, _UNSAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags()
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)


@dataclass(frozen=True, eq=False, slots=True)
class Started:
    """A span that has started, and its parent, if any."""

    context: SpanContext
    parent: SpanContext | None = None

    @property
    def trace_id(self) -> str:
        return f"{self.context.trace_id:032x}"

    @property
    def span_id(self) -> str:
        return f"{self.context.span_id:016x}"

    @property
    def traceparent(self) -> str:
        """The header by which another process continues the trace."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class Tracer:
    """Exports spans by `exporters` (`otlp`, `console`); their settings, the resource and the sampler are the SDK's.

    A collector that does not respond delays only the exporting thread: spans that do not fit into its queue are lost,
    which is logged.  traces_per_s: the most spans per second that `start` here, instead of the SDK's sampler; those
    that the caller does not sample never do.
    """

    def __init__(self, exporters: Sequence[str], traces_per_s: float | None = None) -> None:
        _log_once()
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._sampler, self._ids, self._resource = provider.sampler, provider.id_generator, provider.resource
        self._scope = InstrumentationScope("likewise", version("likewise"))
        self._rate = None if traces_per_s is None else _Rate(traces_per_s)
        self._processors = [BatchSpanProcessor(_exporter(name)) for name in exporters]
        self._gave_up = False  # whether a flush has not finished in time

    def may_start(self) -> bool:
        """Whether the limit allows another span now: a cheap check, before anything is read or built for one."""
        return self._rate is None or self._rate.left() >= 1

    def start(self, name: str, traceparent: str | None = None, tracestate: str | None = None) -> Started | None:
        """Start the span of a request or a job, a child of the caller's; None if it is not sampled."""
        sender = Parent.of(traceparent)
        if self._rate is not None and ((sender is not None and not sender.sampled) or not self._rate.allows()):
            return None
        if sender is None:
            parent, trace_id, state = None, self._ids.generate_trace_id(), None
        else:
            trace_id, state = int(sender.trace_id, 16), _trace_state(tracestate)
            flags = _SAMPLED if sender.sampled else _UNSAMPLED
            parent = SpanContext(trace_id, int(sender.span_id, 16), True, flags, state)
        if self._rate is None:
            context = set_span_in_context(NonRecordingSpan(parent), Context()) if parent is not None else None
            sampled = self._sampler.should_sample(context, trace_id, name)
            if sampled.decision is not Decision.RECORD_AND_SAMPLE:
                return None
            state = sampled.trace_state
        return Started(SpanContext(trace_id, self._ids.generate_span_id(), False, _SAMPLED, state), parent)

    def root(self) -> Started:
        """The root span of a new trace, whatever the sampler decides."""
        return Started(SpanContext(self._ids.generate_trace_id(), self._ids.generate_span_id(), False, _SAMPLED))

    def child(self, of: Started) -> Started:
        """A span below `of`."""
        parent = of.context
        span_id = self._ids.generate_span_id()
        return Started(SpanContext(parent.trace_id, span_id, False, _SAMPLED, parent.trace_state), parent)

    def end(
        self,
        span: Started,
        name: str,
        seconds: tuple[float, float],
        attributes: Attributes,
        *,
        links: Sequence[Started] = (),
        server: bool = False,
        failed: bool = False,
    ) -> None:
        """Export a span.  seconds: its start and end, by `time.time`.  server: whether it serves a request."""
        ended = ReadableSpan(
            name,
            span.context,
            span.parent,
            self._resource,
            attributes,
            links=[Link(each.context) for each in links[:MAX_LINKS]],
            kind=SpanKind.SERVER if server else SpanKind.INTERNAL,
            status=_ERROR if failed else _UNSET,
            start_time=int(seconds[0] * 1e9),
            end_time=int(seconds[1] * 1e9),
            instrumentation_scope=self._scope,
        )
        for processor in self._processors:
            processor.on_end(ended)

    def flush(self, timeout_s: float) -> None:
        """Export what has ended, waiting at most `timeout_s`; does not wait again after a time-out."""
        if self._gave_up:
            return
        flushing = threading.Thread(target=self._flush, name="likewise-flush", daemon=True)
        flushing.start()
        flushing.join(timeout_s)
        self._gave_up = flushing.is_alive()

    def close(self) -> None:
        """Export what has ended, and stop; may wait for the collector as long as the SDK does."""
        for processor in self._processors:
            processor.shutdown()  # type: ignore[no-untyped-call]

    def _flush(self) -> None:
        for processor in self._processors:
            processor.force_flush()


def now_minus_counter() -> float:
    """The difference between `time.time` and `time.perf_counter`, to convert times of the latter."""
    return time.time() - time.perf_counter()


class _Rate:
    """Allows `most` events per second on average, and as many at once."""

    def __init__(self, most: float) -> None:
        self._most = self._left = most
        self._at = time.monotonic()

    def left(self) -> float:
        """How many events are allowed now."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._most)
        self._at = now
        return self._left

    def allows(self) -> bool:
        """Whether one more is allowed; it is counted then."""
        if self.left() < 1:
            return False
        self._left -= 1
        return True


class _Once(logging.Handler):
    """Passes each message of OpenTelemetry on to our log once per REPEAT_S: a failing export repeats it every second.

    Without the exception's traceback, which lists a dozen frames of the HTTP client.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        key, now = str(record.msg), time.monotonic()
        if now - self._last.get(key, -REPEAT_S) < REPEAT_S:
            return
        self._last[key] = now
        logger.log(record.levelno, "traces: %s (further ones are not logged for %g s)", record.getMessage(), REPEAT_S)


def _trace_state(header: str | None) -> TraceState | None:
    """The parsed header; None if it is longer than 512 characters, the least that W3C's Trace Context requires."""
    return TraceState.from_header([header]) if header and len(header) <= 512 else None


def _log_once() -> None:
    theirs = logging.getLogger("opentelemetry")
    if not any(isinstance(each, _Once) for each in theirs.handlers):
        theirs.addHandler(_Once())
        theirs.propagate = False


def _resource() -> Resource:
    """The environment's resource attributes; the service's name is `likewise`, unless they name it."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return _HashedOnce.of(Resource.create({} if named else {"service.name": "likewise"}))


class _HashedOnce(Resource):
    """A resource that keeps its hash: the exporter groups spans by resource, and each hash writes it as JSON."""

    @classmethod
    def of(cls, resource: Resource) -> _HashedOnce:
        kept = cls(resource.attributes, resource.schema_url)
        kept._kept = hash(resource)
        return kept

    def __hash__(self) -> int:
        return self._kept

    _kept = 0


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)
    exporter: SpanExporter = import_module(_OTLP).OTLPSpanExporter()
    return exporter
