"""The environment's settings for traces, parents of traces, the header `Server-Timing`, and the log in JSON."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.errors import WrongUsage
from likewise.core.json_log import JsonLines
from likewise.dataplane import Timing
from likewise.server.server_timing import server_timing
from likewise.telemetry import Parent, open_tracer
from likewise.telemetry.switch import TRACES_PER_S, exporters

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "a"}, ()),
        (ENDPOINT, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ("console", "otlp")),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, ()),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("console",)),
    ],
)
def test_traces_are_requested_by_the_standard_variables(environment: dict[str, str], expected: tuple[str, ...]) -> None:
    assert exporters(environment) == expected


@pytest.mark.parametrize(
    "more", [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}], ids=str
)
def test_unsupported_settings_are_errors(more: dict[str, str]) -> None:
    with pytest.raises(WrongUsage) as caught:
        exporters({**ENDPOINT, **more})
    assert next(iter(more.values())) in caught.value.cause


def test_a_missing_package_is_an_error_with_the_command_that_installs_it() -> None:
    code = """
import sys
sys.modules["opentelemetry.exporter.otlp"] = None
from likewise.core.errors import MissingExtra
from likewise.telemetry import open_tracer
try:
    open_tracer()
except MissingExtra as error:
    print(error.cause, error.remedy)
"""
    env = {**os.environ, **ENDPOINT}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "opentelemetry.exporter.otlp" in done.stdout
    assert "telemetry]" in done.stdout
    assert "pip install" in done.stdout


@pytest.mark.parametrize("caller", [None, f"00-{'1' * 32}-{'2' * 16}-01"])
def test_requests_that_are_traced_are_limited_whether_or_not_their_caller_samples_them(
    caller: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
    began = time.monotonic()
    tracer = open_tracer(limited=True)
    assert tracer is not None
    try:
        assert tracer.start("unsampled", f"00-{'1' * 32}-{'2' * 16}-00") is None
        spans = [span for _ in range(1000) if tracer.may_start() and (span := tracer.start("span", caller))]
        assert TRACES_PER_S <= len(spans) <= TRACES_PER_S * (1 + time.monotonic() - began)
        assert not caller or {(span.trace_id, span.parent is not None) for span in spans} == {("1" * 32, True)}
    finally:
        tracer.close()


def test_a_sampler_replaces_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    tracer = open_tracer(limited=True)
    assert tracer is not None
    try:
        assert all(tracer.may_start() and tracer.start("span") for _ in range(1000))
        assert tracer.start("unsampled", f"00-{'1' * 32}-{'2' * 16}-00") is None
    finally:
        tracer.close()


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 255))
def test_parents(trace: bytes, span: bytes, flags: int) -> None:
    parent = Parent.of(f"00-{trace.hex()}-{span.hex()}-{flags:02x}")
    valid = any(trace) and any(span)
    assert parent == ((trace.hex(), span.hex(), bool(flags & 1)) if valid else None)


@pytest.mark.parametrize(
    "text", [None, "", "00-1-2-01", f"ff-{'1' * 32}-{'2' * 16}-01", f"00-{'G' * 32}-{'2' * 16}-01"]
)
def test_invalid_parents(text: str | None) -> None:
    assert Parent.of(text) is None


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (Timing(), ""),
        (Timing(hits=1), 'cache;desc="hit"'),
        (Timing((1, 1.0012), (2, 2.5), runs=1, items=1, tokens=1), "queue;dur=1.200, engine;dur=500.000"),
        (
            Timing((1, 1), (2, 2), runs=2, items=3, tokens=9, hits=2, misses=1, shared=2),
            'queue;dur=0.000, engine;dur=0.000, cache;desc="2 hit 1 miss 2 shared", tokens;desc="9"',
        ),
    ],
)
def test_server_timing(timing: Timing, expected: str) -> None:
    assert server_timing(timing) == expected


def test_records_as_json() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        raised = sys.exc_info()
    record = logging.LogRecord("a.b", logging.ERROR, "", 1, "%s\nfailed", ("http://user:pass@host/é",), raised)
    record.request_id, record.trace_id = "r", None
    text = JsonLines().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert (line["level"], line["logger"], line["request_id"]) == ("error", "a.b", "r")
    assert line["message"] == "http://host/é\nfailed"
    assert line["exception"].endswith("ValueError: no")
    assert "trace_id" not in line
