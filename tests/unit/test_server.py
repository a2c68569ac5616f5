"""The app, called without a socket: routes, forms, headers, errors, readiness, disconnects."""

import asyncio
import json
import logging
import re
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from tests.support.server_app import Upper, client_of, upper_app

from likewise.core.engine import Engine, Work
from likewise.core.errors import EngineUnavailable, RowRefused, WrongUsage
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.core.signature import Signature
from likewise.server import ServerOptions
from likewise.server.port import listen

JSON = {"Content-Type": "application/json"}
Scenario = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


def run_scenario(scenario: Scenario, app: Starlette | None = None, *, wait: bool = True) -> None:
    async def main() -> None:
        async with client_of(app or upper_app(), wait=wait) as client:
            await scenario(client)

    asyncio.run(main())


def check_error(response: httpx.Response, status: int, code: str, message: str) -> None:
    body = response.json()
    assert (response.status_code, body["error_code"]) == (status, code)
    assert message in body["message"]
    assert body["remedy"]
    check_headers(response)


def check_headers(response: httpx.Response) -> None:
    assert response.headers["X-Likewise-Bundle"] == "sha256:abc"
    assert response.headers["X-Likewise-Engine"] in ("upper/none", "loading")
    assert response.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ('{"columns": ["text"], "data": [["a"], ["b"]]}', "application/json", [{"text": "A"}, {"text": "B"}]),
        ('[{"text": "a"}]', None, [{"text": "A"}]),
        ('{"inputs": ["a"]}', "application/json", {"predictions": [{"text": "A"}]}),
        ('{"dataframe_records": [{"text": "a"}]}', "application/json", {"predictions": [{"text": "A"}]}),
        ("text\na\n", "text/csv", {"predictions": [{"text": "A"}]}),
        ('{"dataframe_split": {"columns": ["text"], "data": []}}', "application/json", {"predictions": []}),
    ],
)
@pytest.mark.parametrize("row_wise", [True, False])
def test_the_response_has_the_form_of_the_request(
    body: str, content_type: str | None, expected: object, row_wise: bool
) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        headers = {"Content-Type": content_type} if content_type else {}
        response = await client.post("/invocations", content=body, headers=headers)
        assert response.json() == expected
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        check_headers(response)

    run_scenario(scenario, upper_app(lambda: Upper(row_wise=row_wise)))


def test_a_large_body_is_served() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        texts = [f"text {i} {'x' * 50}" for i in range(5000)]
        response = await client.post("/invocations", json={"inputs": texts})
        assert response.json()["predictions"] == [{"text": text.upper()} for text in texts]

    run_scenario(scenario)


def test_paths_of_the_inference_protocol_may_end_in_a_slash() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
            assert (await client.get(f"{path}/")).json() == (await client.get(path)).json()
        check_error(await client.get("/v2//"), 404, "ENDPOINT_NOT_FOUND", "/v2/")
        check_error(await client.get("/ping/"), 404, "ENDPOINT_NOT_FOUND", "/ping/")

    run_scenario(scenario)


def test_errors_are_json_with_code_message_and_remedy() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        check_error(await client.get("/nothing"), 404, "ENDPOINT_NOT_FOUND", "/nothing")
        check_error(await client.post("/invocations/", json=[]), 404, "ENDPOINT_NOT_FOUND", "/invocations/")
        response = await client.get("/invocations")
        check_error(response, 405, "BAD_REQUEST", "does not support GET")
        assert response.headers["Allow"] == "POST"
        check_error(await client.post("/invocations", content=b"{"), 400, "BAD_REQUEST", "not valid JSON")
        check_error(await client.post("/invocations", json=[{"txt": "a"}]), 400, "BAD_REQUEST", "'text' is missing")
        for headers, message in (({"Content-Type": "text/plain"}, "text/plain"), ({"Content-Encoding": "br"}, "br")):
            check_error(await client.post("/invocations", content=b"{}", headers=headers), 415, "BAD_REQUEST", message)

    run_scenario(scenario)


def test_a_failing_row_is_reported_and_a_broken_model_is_500() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        post = client.post
        refused = await post("/invocations", json={"inputs": ["a", "bad 1", "b", "bad 2"]})
        check_error(refused, 422, "INVALID_PARAMETER_VALUE", "row 1: the model raised ValueError: bad 1 is bad (1 more")
        check_error(await post("/invocations", json=[{"text": "bad"}]), 422, "INVALID_PARAMETER_VALUE", "row 0")
        check_error(await post("/invocations", json={"inputs": ["bad"] * 3}), 422, "INVALID_PARAMETER_VALUE", "row 0")
        check_error(
            await post("/invocations", json={"inputs": ["bad 1", "bad 2"]}),
            500,
            "INTERNAL_ERROR",
            "fails on every input",
        )

    run_scenario(scenario)


OPTIONAL = Signature.parse({"inputs": [{"name": "text", "type": "string", "required": False}]})


@pytest.mark.parametrize(
    ("signature", "body", "remedy"),
    [
        (OPTIONAL, {"dataframe_records": [{"txet": "a"}, {"other": "b"}]}, "optional column 'text'"),
        (Signature(), {"inputs": [{"text": "bad 1"}, {"text": "bad 2"}]}, "`dataframe_records`"),
    ],
)
def test_a_request_whose_form_the_model_does_not_expect_does_not_make_it_broken(
    signature: Signature, body: Mapping[str, object], remedy: str
) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        response = await client.post("/invocations", json=body)
        check_error(response, 422, "INVALID_PARAMETER_VALUE", "the model raised")
        assert remedy in response.json()["remedy"]

    run_scenario(scenario, upper_app(signature=signature))


@pytest.mark.parametrize("example", [None, "good", "bad"])
def test_a_failing_request_is_422_unless_the_models_own_example_fails_too(example: str | None) -> None:
    """Without an example, the model is broken if it fails on ten different requests and has never predicted."""

    async def scenario(client: httpx.AsyncClient) -> None:
        different = [[f"bad {i}"] for i in range(6)]
        for rows in (["bad"], ["bad"], ["good", "bad"], [f"bad {i}" for i in range(5)], *different, ["bad at last"]):
            response = await client.post("/invocations", json={"inputs": rows})
            if example == "bad" or (example is None and rows == ["bad at last"]):
                check_error(response, 500, "INTERNAL_ERROR", "the model raised ValueError")
                assert "fix the model" in response.json()["remedy"]
            else:
                check_error(response, 422, "INVALID_PARAMETER_VALUE", "is bad")
        assert (await client.post("/invocations", json={"inputs": ["good"]})).status_code == 200
        response = await client.post("/invocations", json={"inputs": ["bad, again"]})
        assert response.status_code == (500 if example == "bad" else 422)

    body = None if example is None else json.dumps({"inputs": [example]}).encode()
    run_scenario(scenario, upper_app(lambda: Upper(row_wise=False), example=body))


def test_exceptions_of_the_model_are_logged_without_their_messages(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await client.post("/invocations", json={"inputs": ["good", "bad and secret"]})

    run_scenario(scenario)
    (line,) = [each for each in caplog.messages if "ValueError" in each]
    assert line == "the model raised ValueError; rows since the last such line: 1"


def test_a_request_that_the_model_rejects_is_422_for_any_number_of_rows() -> None:
    class Refusing(Upper):
        def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
            return [Failed(RowRefused("row 1: too long", remedy="shorten it")) for _ in items]

    async def scenario(client: httpx.AsyncClient) -> None:
        response = await client.post("/invocations", json={"inputs": ["a", "b"]})
        check_error(response, 422, "INVALID_PARAMETER_VALUE", "row 1: too long")

    run_scenario(scenario, upper_app(lambda: Refusing(row_wise=False)))


def test_invalid_unicode_in_a_message_is_escaped() -> None:
    class Corrupt(Upper):
        def run(self, work: Sequence[Work]) -> list[Result]:
            raise RuntimeError("weights \ud800 corrupt")

    async def scenario(client: httpx.AsyncClient) -> None:
        one, several = [await client.post("/invocations", json={"inputs": rows}) for rows in (["a"], ["a", "b"])]
        check_error(one, 422, "INVALID_PARAMETER_VALUE", "weights \\ud800 corrupt")
        check_error(several, 500, "INTERNAL_ERROR", "weights \\ud800 corrupt")

    run_scenario(scenario, upper_app(lambda: Corrupt()))


def test_a_body_over_the_limit_is_read_to_its_end_and_rejected() -> None:
    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        for _ in range(7):
            sent += 1
            yield b"x" * 1000

    async def scenario(client: httpx.AsyncClient) -> None:
        check_error(await client.post("/invocations", content=chunks()), 413, "REQUEST_LIMIT_EXCEEDED", "1,500 bytes")
        assert sent == 7

    run_scenario(scenario, upper_app(options=ServerOptions(body_limit_bytes=1500)))


def test_a_valid_request_id_is_used_and_any_other_replaced() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        async def id_for(sent: str) -> str:
            return (await client.get("/ping", headers={"X-Request-Id": sent})).headers["X-Request-Id"]

        assert await id_for("job-7.a:b_c") == "job-7.a:b_c"
        for odd in ("", "a b", "<x>", "x" * 129):
            assert re.fullmatch(r"[0-9a-f]{32}", await id_for(odd))

    run_scenario(scenario)


def test_health_and_version_routes() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for path in ("/ping", "/health", "/ready"):
            response = await client.get(path)
            assert (response.status_code, response.text) == (200, "\n")
            check_headers(response)
        assert (await client.get("/version")).text == version("mlflow")

    run_scenario(scenario)


def test_the_page_and_its_facts_are_of_the_served_model() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        page = (await client.get("/")).text
        assert "&lt;b&gt;" in page
        assert "curl http://test/invocations" in page
        facts = (await client.get("/bundle.json")).json()
        assert (facts["uri"], facts["digest"], facts["engine"]) == ("<upper>", "sha256:abc", "upper/none")
        assert facts["signature"] == {"inputs": [{"type": "string", "name": "text", "required": True}]}

    run_scenario(scenario, upper_app(example=json.dumps({"inputs": ["it's <b>"]}).encode()))


@pytest.mark.parametrize("early", [False, True])
def test_ping_and_ready_succeed_after_the_warm_up_or_ping_early(early: bool) -> None:
    engine, opened = Upper(), threading.Event()

    def open_engine() -> Engine:
        assert opened.wait(10)
        return engine

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get("/v2/health/live")).status_code == 200
        for path in ("/ping", "/health"):
            assert (await client.get(path)).status_code == (200 if early else 503)
        check_error(await client.get("/ready"), 503, "TEMPORARILY_UNAVAILABLE", "being loaded")
        response = await client.post("/invocations", json={"inputs": ["a"]})
        check_error(response, 503, "TEMPORARILY_UNAVAILABLE", "being loaded")
        assert response.headers["Retry-After"] == "1"
        engine.gate.clear()
        opened.set()
        assert (await client.get("/ready")).status_code == 503  # loaded or not, the warm-up has not finished
        engine.gate.set()
        async with asyncio.timeout(10):
            while (await client.get("/ready")).status_code != 200:
                await asyncio.sleep(0.001)
        assert (await client.get("/ping")).status_code == 200
        assert engine.seen == ["warm"]

    options = ServerOptions(ping_early=early)
    run_scenario(scenario, upper_app(open_engine, example=b'{"inputs": ["warm"]}', options=options), wait=False)
    assert engine.closed


def test_the_server_is_not_ready_after_a_failed_warm_up() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        check_error(await client.get("/ready"), 503, "TEMPORARILY_UNAVAILABLE", "bad is bad")
        assert (await client.post("/invocations", json={"inputs": ["a"]})).status_code == 200

    run_scenario(scenario, upper_app(example=b'{"inputs": ["bad"]}'))


@pytest.mark.parametrize("problem", [EngineUnavailable("no such engine", remedy="x"), OSError("broken"), SystemExit(3)])
def test_an_engine_that_does_not_load_is_reported(problem: BaseException) -> None:
    def open_engine() -> Engine:
        raise problem

    async def scenario(client: httpx.AsyncClient) -> None:
        for path in ("/ping", "/ready"):
            check_error(await client.get(path), 503, "TEMPORARILY_UNAVAILABLE", "the model is not usable")

    run_scenario(scenario, upper_app(open_engine))


def test_while_draining_requests_are_served_but_ready_is_503() -> None:
    app = upper_app()

    async def scenario(client: httpx.AsyncClient) -> None:
        app.state.service.drain()
        check_error(await client.get("/ready"), 503, "TEMPORARILY_UNAVAILABLE", "stopping")
        response = await client.post("/invocations", json={"inputs": ["a"]})
        assert response.status_code == 200
        assert response.headers["Connection"] == "close"

    run_scenario(scenario, app)


def test_work_of_a_disconnected_client_is_dropped() -> None:
    engine = Upper()
    app = upper_app(lambda: engine)

    async def hang_up(text: str) -> None:
        """An ASGI client that sends its body and then disconnects."""
        left = asyncio.Event()
        messages = iter([{"type": "http.request", "body": json.dumps({"inputs": [text]}).encode()}])

        async def receive() -> dict[str, object]:
            if (message := next(messages, None)) is None:
                await left.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            raise AssertionError(f"response to a disconnected client: {message}")

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/invocations",
            "headers": [],
            "query_string": b"",
            "app": app,
        }
        request = asyncio.create_task(app(scope, receive, send))
        async with asyncio.timeout(10):
            while app.state.service._plane.waiting_items < 1:
                await asyncio.sleep(0.001)
        left.set()
        await request

    async def scenario(client: httpx.AsyncClient) -> None:
        engine.gate.clear()
        first = asyncio.create_task(client.post("/invocations", json={"inputs": ["first"]}))
        async with asyncio.timeout(10):
            while not app.state.service._plane._busy:
                await asyncio.sleep(0.001)
        await hang_up("left")
        engine.gate.set()
        assert (await first).status_code == 200
        await client.post("/invocations", json={"inputs": ["after"]})
        assert engine.seen == ["first", "after"]

    run_scenario(scenario, app)


def test_an_internal_error_is_a_json_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = upper_app()

    async def scenario(client: httpx.AsyncClient) -> None:
        app.state.service.predictions = None
        with caplog.at_level(logging.ERROR):
            response = await client.post("/invocations", json={"inputs": ["a"]}, headers={"X-Request-Id": "r1"})
        check_error(response, 500, "INTERNAL_ERROR", "TypeError")
        assert "r1" in caplog.text

    run_scenario(scenario, app)


def test_every_option_has_a_help_text() -> None:
    assert all(field.metadata["help"] for field in fields(ServerOptions))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_public_address_is_rejected_unless_insecure(host: str) -> None:
    with pytest.raises(WrongUsage, match="other machines") as caught:
        listen(host, 0)
    assert "--insecure" in caught.value.remedy
    listen(host, 0, guarded=True).close()
