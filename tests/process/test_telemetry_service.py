"""Traces of a real server at a real receiver, the header `Server-Timing`, and ids in the log."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from tests.support.models import upper_bundle
from tests.support.otlp import Collector, Span, check_job, collector
from tests.support.processes import until_async
from tests.support.service import Gate, Service, client_of, post_texts, ready, served, started

CALLER = "00f067aa0ba902b7"
SECRET = "confidential"  # part of every text


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    with collector() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def service(received: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("traced") / "server.log"
    with served(log, env=received.env, queue_tokens=100) as running:
        yield running


def parent(trace_id: str, sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{CALLER}-0{int(sampled)}"}


def post(service: Service, *texts: str, **headers: str) -> httpx.Response:
    body = {"inputs": [f"{SECRET} {text}" if text else text for text in texts]}
    return httpx.post(f"{service.url}/invocations", json=body, headers=headers)


def of(trace_id: str, spans: Sequence[Span]) -> list[Span]:
    return [span for span in spans if span.trace_id == trace_id]


def server_span(trace_id: str, received: Collector) -> Span:
    """The span of the request with this trace, as soon as it has been received."""
    received.wait(lambda spans: any(span.kind == 2 for span in of(trace_id, spans)))
    (found,) = (span for span in of(trace_id, received.spans) if span.kind == 2)
    return found


def test_a_request_has_a_span_with_its_wait_its_run_and_a_link_to_its_window(
    service: Service, received: Collector
) -> None:
    trace_id, before = "1" * 32, time.time_ns()
    assert post(service, "one two", "three", **parent(trace_id)).status_code == 200
    span = server_span(trace_id, received)
    assert (span.name, span.parent_id, span.failed) == ("POST /invocations", CALLER, False)
    assert span.resource["service.name"] == "likewise"
    expected = {
        "http.request.method": "POST",
        "http.route": "/invocations",
        "url.path": "/invocations",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "server.address": service.address[0],
        "server.port": service.address[1],
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "likewise.windows": 1,
        "likewise.tokens": 5,
        "likewise.cache": "2 miss",
    }
    assert span.attributes == expected
    children = {each.name: each for each in of(trace_id, received.spans) if each is not span and each.kind == 1}
    assert children.keys() == {"queue", "engine"}
    assert {each.parent_id for each in children.values()} == {span.span_id}
    queue, engine = children["queue"], children["engine"]
    assert before < span.start <= queue.start <= queue.end <= engine.start <= engine.end <= span.end < time.time_ns()
    (window,) = (each for each in received.spans if (each.trace_id, each.span_id) in span.links)
    assert (window.name, window.parent_id, window.failed) == ("window", "", False)
    attributes = {"items": 2, "tokens": 5, "padded_tokens": 6, "engine": "plain/none", "bundle": "sha256:abc"}
    assert window.attributes == {f"likewise.{name}": value for name, value in attributes.items()}
    assert abs(window.start - engine.start) < 1_000_000


def test_requests_in_one_window_link_to_the_same_span(service: Service, received: Collector, tmp_path: Path) -> None:
    traces = [f"2{number}".ljust(32, "0") for number in range(3)]

    async def meet() -> None:
        gate = Gate(tmp_path)
        async with client_of(service) as client:
            blocked = post_texts(client, gate.text)
            await gate.reached()
            bodies = [{"inputs": [f"{SECRET} {each}"]} for each in traces]
            posts = [
                asyncio.create_task(client.post("/invocations", json=body, headers=parent(trace_id)))
                for body, trace_id in zip(bodies, traces, strict=True)
            ]
            await until_async(lambda: service.metric("likewise_queue_items") == 3)
            gate.open()
            assert {each.status_code for each in await asyncio.gather(blocked, *posts)} == {200}

    asyncio.run(meet())
    spans = [server_span(trace_id, received) for trace_id in traces]
    assert len({tuple(span.links) for span in spans}) == 1
    (window,) = (each for each in received.spans if (each.trace_id, each.span_id) == spans[0].links[0])
    assert window.attributes["likewise.items"] == 3
    waits = [each for trace_id in traces for each in of(trace_id, received.spans) if each.name == "queue"]
    assert len(waits) == 3


def test_cached_rejected_and_failed_requests(service: Service, received: Collector, tmp_path: Path) -> None:
    post(service, "cached")
    assert post(service, "cached", **parent("3" * 32)).status_code == 200
    hit = server_span("3" * 32, received)
    assert (hit.attributes["likewise.cache"], hit.links, len(of("3" * 32, received.spans))) == ("hit", [], 1)

    body = {"inputs": [f"bad {SECRET}"]}
    assert httpx.post(f"{service.url}/invocations", json=body, headers=parent("4" * 32)).status_code == 422
    rejected = server_span("4" * 32, received)
    assert (rejected.attributes["error.type"], rejected.failed) == ("MODEL_RAISED", False)
    assert len(rejected.links) == 1

    async def shed() -> int:
        gate = Gate(tmp_path)
        async with client_of(service) as client:
            blocked = post_texts(client, gate.text)
            await gate.reached()
            many = {"inputs": [f"{number}" for number in range(120)]}
            response = await client.post("/invocations", json=many, headers=parent("5" * 32))
            gate.open()
            await blocked
            return response.status_code

    status = asyncio.run(shed())
    full = server_span("5" * 32, received)
    assert full.attributes["http.response.status_code"] == status in (429, 503)
    assert (full.links, full.failed) == ([], status >= 500)

    unknown = f"{service.url}/v2/models/{SECRET}/infer"
    assert httpx.post(unknown, json={}, headers=parent("6" * 32)).status_code == 404
    assert server_span("6" * 32, received).attributes["url.path"] == "/v2/models/{model}/infer"


def test_the_callers_decision_holds_and_no_other_route_is_traced(service: Service, received: Collector) -> None:
    assert post(service, "unsampled", **parent("7" * 32, sampled=False)).status_code == 200
    assert httpx.get(f"{service.url}/ready", headers=parent("8" * 32)).status_code == 200
    post(service, "last", **parent("9" * 32))
    server_span("9" * 32, received)
    assert not of("7" * 32, received.spans) + of("8" * 32, received.spans)


def test_server_timing_is_sent_if_the_client_requests_it(service: Service) -> None:
    timed = {"X-Likewise-Timing": "1"}
    assert "Server-Timing" not in post(service, "timed").headers
    assert post(service, "timed", **timed).headers["Server-Timing"] == 'cache;desc="hit"'
    value = post(service, "timed once", **timed).headers["Server-Timing"]
    found = re.fullmatch(r'queue;dur=([\d.]+), engine;dur=([\d.]+), cache;desc="miss", tokens;desc="3"', value)
    assert found
    assert all(0 <= float(each) < 10_000 for each in found.groups())
    mixed = post(service, "timed", "a b", "a b", "c", **timed).headers["Server-Timing"]
    assert mixed.endswith('cache;desc="1 hit 2 miss 1 shared", tokens;desc="5"')


def test_no_text_of_rows_is_exported_and_the_log_has_the_ids(service: Service, received: Collector) -> None:
    post(service, "logged", **parent("a" * 32))
    span = server_span("a" * 32, received)
    assert service.stop() == 0
    (line,) = (line for line in service.log_lines() if line.get("trace_id") == "a" * 32)
    assert line["span_id"] == span.span_id
    sent = b"".join(received.bodies)
    assert SECRET.encode() not in sent
    assert b"gate" not in sent


def test_stopping_exports_the_last_spans(received: Collector, tmp_path: Path) -> None:
    env = {**received.env, "OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_RESOURCE_ATTRIBUTES": "service.name=named,a=b"}
    with served(tmp_path / "log", "upper", env=env) as running:
        post(running, "before the end", **parent("b" * 32))
        assert running.stop() == 0
    assert server_span("b" * 32, received).resource.items() >= {"service.name": "named", "a": "b"}.items()


def test_a_collector_that_does_not_respond_is_logged_once_and_delays_nothing(tmp_path: Path) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "10"}
    with served(tmp_path / "log", "upper", env={**os.environ, **endpoint}) as running:
        for number in range(30):
            began = time.monotonic()
            assert post(running, f"text {number}").status_code == 200
            assert time.monotonic() - began < 1
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 10
    lines = (tmp_path / "log").read_text().splitlines()
    messages = [line for line in lines if "likewise.telemetry" in line]
    assert messages
    assert len(messages) == len({re.sub(r"[\d.]+", "", line) for line in messages}) <= 3


def test_nothing_is_imported_unless_the_environment_requests_traces(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1", "OTEL_TRACES_EXPORTER": "none"}
    log = tmp_path / "log"
    with started(log, "upper", env={**env, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as process:
        running = ready(process)
        assert post(running, "plain", **parent("c" * 32)).status_code == 200
        assert running.stop() == 0
    text = log.read_text()
    assert "likewise.server.app" in text
    assert "opentelemetry" not in text
    line = json.loads(next(line for line in text.splitlines() if "/invocations" in line))
    assert (line["trace_id"], "span_id" in line) == ("c" * 32, False)


def test_a_local_job_and_the_log_in_json(tmp_path: Path) -> None:
    bundle, source = upper_bundle(tmp_path / "bundle"), tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"{SECRET} {row}\n" for row in range(250)))
    caller = f"00-{'d' * 32}-{'e' * 16}-01"
    cli = [sys.executable, "-m", "likewise.cli"]
    with collector() as received:
        words = ["score", bundle, source, "-o", tmp_path / "out", "--trust", "--window", "100"]
        subprocess.run([*cli, *words], env={**received.env, "TRACEPARENT": caller}, check=True, capture_output=True)
        assert len(check_job(received, caller, "local", 250, SECRET)) == 3
    words = ["serve", tmp_path / "nothing", "--log-format", "json"]
    failed = subprocess.run([*cli, *words], capture_output=True, text=True, check=False)
    *notes, error = map(json.loads, failed.stderr.splitlines())
    assert {note["level"] for note in notes} <= {"info"}
    assert (error["level"], error["error_code"]) == ("error", "MODEL_NOT_FOUND")
