"""Fuzzing of the server's process: responses match the OpenAPI document, for valid and mostly invalid requests.

Schemathesis generates requests from the service's OpenAPI document; hypothesis mutates valid bodies.
"""

import gzip
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from tests.support.model_server import MODELS
from tests.support.processes import PATIENCE, resident_bytes
from tests.support.service import Service, served

PARTS = 15  # raw requests per example
GROWTH = 12 * 1024 * 1024  # bytes by which memory may grow during the measured requests
CACHE = 1024 * 1024

checks.load_all_checks()
CHECKS = checks.CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)
thorough = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))

# --- mutated bodies --------------------------------------------------------------------------------------------------

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[\[\]{},:]|[^,\r\n"]+')
ODD = (
    b"null true false 0 -0 -1 1.5 1e308 1e999 -1e999 NaN Infinity 9223372036854775807 9223372036854775808 1e400 0x10 "
    b'18446744073709551616 "" "1" "1e999" "NaN" "true" "null" "\\ud800" "\\u0000" "\xff" [] [[]] [null] {} {"":1} '
    b'[[[[[[[[[[]]]]]]]]]] {"a":{"a":{"a":{}}}} "2026-01-31" "9999999999-01-01" "AAAA" "A===" 1,1 1:1 ] } , : \\ " '
    b'"x":1 "params":{} "params":[] "id":5 "datatype":"FP64" "shape":[-1] "shape":[1e9] "inputs":[] "binary_data_size":'
).split()
ODD += [b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b'"' + b"a" * 70_000 + b'"', b" " * 100]
EDITS = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from(ODD) | st.binary(max_size=8), st.booleans()), min_size=0, max_size=3
)
CONTENT_TYPES = (
    *(None, "application/json", "text/csv", "application/json; format=pandas-split", "application/octet-stream"),
    *("application/json; format=pandas-records", "application/json; charset=utf-16", "application/json; charset=x"),
    *("application/vnd.apache.parquet", "application/x-parquet", "text/csv; charset=latin-1", "APPLICATION/JSON;;", ""),
)
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
USUAL = st.sampled_from([None, "application/json"])
TYPES = USUAL | USUAL | st.sampled_from(CONTENT_TYPES) | st.text(st.characters(min_codepoint=32, max_codepoint=126))


def edited(body: bytes, edits: list[tuple[int, bytes, bool]]) -> bytes:
    """`body` with some tokens replaced, or truncated there."""
    for index, text, cut in edits:
        tokens = list(TOKEN.finditer(body))
        if tokens:
            at = tokens[index % len(tokens)]
            body = body[: at.start()] + text + (b"" if cut and index % 7 == 0 else body[at.end() :])
    return body


def requests(bodies: dict[str, list[bytes]]) -> st.SearchStrategy[tuple[str, bytes, dict[str, str]]]:
    """Path, body and headers of requests, from valid `bodies` by path."""
    good = st.sampled_from([(path, body) for path, valid in bodies.items() for body in valid])
    broken = st.builds(lambda pair, edits: (pair[0], edited(pair[1], edits)), good, EDITS)
    raw = st.tuples(st.sampled_from(list(bodies)), st.binary(max_size=300))
    packing = st.sampled_from([None] * 8 + ["gzip", "deflate", "not gzip", "br"])
    length = st.sampled_from([None] * 8 + ["0", "1", "50", "-1", "x", "99999999999999999999"])
    return st.builds(request, broken | broken | broken | raw, TYPES, packing, length)


def request(
    target: tuple[str, bytes], content_type: str | None, packing: str | None, length: str | None
) -> tuple[str, bytes, dict[str, str]]:
    path, body = target
    headers = {"Inference-Header-Content-Length": length} if length and path != "/invocations" else {}
    if content_type is not None:
        headers["Content-Type"] = content_type.strip()
    if packing is not None:
        headers["Content-Encoding"] = packing.removeprefix("not ")
        body = gzip.compress(body) if packing == "gzip" else body
    return path, body, headers


def good_bodies(document: dict[str, Any], model: str) -> dict[str, list[bytes]]:
    """The example bodies in the OpenAPI document, by path."""
    paths = {"/invocations": "/invocations", "/v2/models/{model}/infer": f"/v2/models/{model}/infer"}
    bodies: dict[str, list[bytes]] = {}
    for template, path in paths.items():
        contents = document["paths"][template]["post"]["requestBody"]["content"].values()
        values = [example["value"] for content in contents for example in content.get("examples", {}).values()]
        bodies[path] = [
            v.encode() if isinstance(v, str) else httpx.Request("POST", "/", json=v).content for v in values
        ]
        assert bodies[path]
    return bodies


# --- requests --------------------------------------------------------------------------------------------------------


def send_described(schema: Any, *, times: int) -> None:
    @given(case=schema.as_strategy())
    @settings(thorough, max_examples=times)
    def each(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=PATIENCE)

    each()


def send_raw(schema: Any, running: Service, model: str, *, times: int) -> None:
    operations = {
        "/invocations": schema["/invocations"]["POST"],
        f"/v2/models/{model}/infer": schema["/v2/models/{model}/infer"]["POST"],
    }
    some = st.lists(requests(good_bodies(schema.raw_schema, model)), min_size=PARTS, max_size=PARTS)

    with httpx.Client(base_url=running.url, timeout=PATIENCE) as client:

        @given(some)
        @settings(thorough, max_examples=times)
        def each(batch: list[tuple[str, bytes, dict[str, str]]]) -> None:
            for path, body, headers in batch:
                response = client.post(path, content=body, headers=headers)
                assert response.status_code < 500, response.text
                assert str(response.status_code) in operations[path].definition.raw["responses"]
                operations[path].validate_response(response)

        each()


@pytest.mark.parametrize("times", [10, pytest.param(125, marks=pytest.mark.long)])
@pytest.mark.parametrize("model", [name for name in MODELS if name != "upper"])  # equivalent to `text`
def test_responses_match_the_openapi_document(tmp_path: Path, model: str, times: int) -> None:
    """With 125 times and five models, more than 10,000 requests in total."""
    with served(tmp_path / "server.log", model, cache_bytes=CACHE) as running:
        schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
        send_described(schema, times=2 * times)
        send_raw(schema, running, model, times=times // 5)
        httpx.post(f"{running.url}/invocations", content=b"PAR1", headers=PARQUET)  # loads the Parquet libraries once
        before = resident_bytes(running.pid)
        send_raw(schema, running, model, times=times)
        assert resident_bytes(running.pid) - before < GROWTH
        assert running.metric("likewise_requests_total") > 16 * times
        for status in ("200", "400"):
            assert running.metric("likewise_requests_total", route="/invocations", status=status) > 0.8 * times
        for status in ("500", "502", "503", "504", "0"):
            assert running.metric("likewise_requests_total", status=status) == 0
        assert httpx.get(f"{running.url}/ready").status_code == 200
        assert running.stop() == 0
    assert len(running.log_lines()) > 16 * times
