"""Spans of batch jobs: one of the job, and one of each chunk in the process that scores it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from likewise.core.errors import LikewiseError
from likewise.telemetry.switch import open_tracer

if TYPE_CHECKING:
    from likewise.telemetry.tracer import Started, Tracer

logger = logging.getLogger("likewise.telemetry")

FLUSH_S = 2.0  # how long a job or a task waits for a collector
CALLER = ("TRACEPARENT", "TRACESTATE")  # variables by which a program that starts the job passes on its trace


@dataclass(eq=False)
class JobSpan:
    """A span in progress.  traceparent: by which other processes continue it; empty if there is no trace.

    attributes: may be added until it ends.
    """

    traceparent: str = ""
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict)


@contextmanager
def job_span(**attributes: str) -> Iterator[JobSpan]:
    """The span `score` around a job; below the caller's, if the environment names one.  Raises as `open_tracer`."""
    parent, state = (os.environ.get(name, "") for name in CALLER)
    tracer = process_tracer()
    started = tracer.start("score", parent or None, state or None) if tracer else None
    if tracer is None or started is None:
        yield JobSpan(parent if tracer is None else "")  # executors may export what this process does not
        return
    with _ended(tracer, started, "score", JobSpan(started.traceparent, {**attributes})) as span:
        yield span
    tracer.flush(FLUSH_S)


@contextmanager
def chunk_span(parent: str, *, flush: bool = False) -> Iterator[JobSpan]:
    """The span `chunk` of a part of the job with this traceparent, if the environment of this process requests traces.

    flush: export it at once, because the process of a task may be killed when the task has ended.
    """
    tracer = _task_tracer() if parent else None
    started = tracer.start("chunk", parent) if tracer else None
    if tracer is None or started is None:
        yield JobSpan()
        return
    with _ended(tracer, started, "chunk", JobSpan(started.traceparent)) as span:
        yield span
    if flush:
        tracer.flush(FLUSH_S)


@contextmanager
def _ended(tracer: Tracer, started: Started, name: str, span: JobSpan) -> Iterator[JobSpan]:
    """End the span with the block, as failed if that raises."""
    began, failed = time.time(), True
    try:
        yield span
        failed = False
    except BaseException as error:
        span.attributes["error.type"] = error.code if isinstance(error, LikewiseError) else type(error).__name__
        raise
    finally:
        attributes = {f"likewise.{key}" if "." not in key else key: value for key, value in span.attributes.items()}
        tracer.end(started, name, (began, time.time()), attributes, failed=failed)
        if failed:
            tracer.flush(FLUSH_S)


process_tracer = cache(open_tracer)


@cache
def _task_tracer() -> Tracer | None:
    """The same in a task, which does not fail because its traces cannot be exported."""
    try:
        return process_tracer()
    except LikewiseError as error:
        logger.warning("no traces from this process: %s; %s", error.cause, error.remedy)
    except Exception as error:  # noqa: BLE001  a node may have other versions of the libraries
        logger.warning("no traces from this process: %s: %s", type(error).__name__, error)
    return None
