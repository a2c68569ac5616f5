"""A receiver of traces: a server for OTLP over HTTP that keeps what it gets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.support.waiting import until

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


class Span:
    """A received span; ids in hexadecimal digits, times in nanoseconds."""

    def __init__(self, span: Any, resource: dict[str, Any]) -> None:
        self.name, self.kind, self.resource = span.name, span.kind, resource
        self.trace_id, self.span_id, self.parent_id = (
            each.hex() for each in (span.trace_id, span.span_id, span.parent_span_id)
        )
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.attributes = values_of(span.attributes)
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.failed = span.status.code == 2


def values_of(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


class Collector:
    """What has been received: the bodies of all requests."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.bodies: list[bytes] = []
        self.env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": self.url, **SOON}

    @property
    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in list(self.bodies)]
        return [
            Span(span, values_of(resource.resource.attributes))
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait(self, found: Callable[[Sequence[Span]], Any], seconds: float = 10) -> list[Span]:
        """The spans, as soon as `found` is true of them."""
        until(lambda: found(self.spans), seconds)
        return self.spans


@contextmanager
def collector() -> Iterator[Collector]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            received.bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Collector(server.server_port)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield received
        finally:
            server.shutdown()


def check_job(received: Collector, caller: str, runner: str, rows: int, text: str) -> list[Span]:
    """Check the spans of a job that a program with this traceparent has started; returns those of its chunks.

    text: part of every row.
    """
    _, trace_id, parent_id, _ = caller.split("-")
    received.wait(lambda spans: any(span.name == "score" for span in spans))
    received.wait(lambda spans: sum(s.attributes["likewise.rows"] for s in spans if s.name == "chunk") >= rows)
    (job,) = (span for span in received.spans if span.name == "score")
    chunks = [span for span in received.spans if span.name == "chunk"]
    assert {span.trace_id for span in received.spans} == {trace_id}
    assert (job.parent_id, {span.parent_id for span in chunks}) == (parent_id, {job.span_id})
    assert (job.attributes["likewise.runner"], job.attributes["likewise.rows"], job.failed) == (runner, rows, False)
    assert sum(span.attributes["likewise.rows"] for span in chunks) == rows
    assert all(job.start <= span.start <= span.end <= job.end for span in chunks)
    assert text.encode() not in b"".join(received.bodies)
    return chunks
