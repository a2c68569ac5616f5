"""The app, asked without a socket: routes, forms, headers, errors, readiness, hang-ups."""

import asyncio
import json
import logging
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
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
from likewise.server import ServerOptions
from likewise.server.port import listen

JSON = {"Content-Type": "application/json"}
Scenario = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


def ask(scenario: Scenario, app: Starlette | None = None, *, wait: bool = True) -> None:
    async def whole() -> None:
        async with client_of(app or upper_app(), wait=wait) as client:
            await scenario(client)

    asyncio.run(whole())


def check_error(answer: httpx.Response, status: int, code: str, said: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (status, code)
    assert said in body["message"]
    assert body["remedy"]
    check_headers(answer)


def check_headers(answer: httpx.Response) -> None:
    assert answer.headers["X-Likewise-Bundle"] == "sha256:abc"
    assert answer.headers["X-Likewise-Engine"] in ("upper/none", "loading")
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("body", "content_type", "wanted"),
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
def test_each_form_is_answered_in_its_own(body: str, content_type: str | None, wanted: object, row_wise: bool) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        headers = {"Content-Type": content_type} if content_type else {}
        answer = await client.post("/invocations", content=body, headers=headers)
        assert answer.json() == wanted
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        check_headers(answer)

    ask(scenario, upper_app(lambda: Upper(row_wise=row_wise)))


def test_a_large_body_is_answered() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        texts = [f"text {i} {'x' * 50}" for i in range(5000)]
        answer = await client.post("/invocations", json={"inputs": texts})
        assert answer.json()["predictions"] == [{"text": text.upper()} for text in texts]

    ask(scenario)


def test_errors_are_json_with_code_message_and_remedy() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        check_error(await client.get("/nothing"), 404, "ENDPOINT_NOT_FOUND", "/nothing")
        check_error(await client.post("/invocations/", json=[]), 404, "ENDPOINT_NOT_FOUND", "/invocations/")
        answer = await client.get("/invocations")
        check_error(answer, 405, "BAD_REQUEST", "does not take GET")
        assert answer.headers["Allow"] == "POST"
        check_error(await client.post("/invocations", content=b"{"), 400, "BAD_REQUEST", "not valid JSON")
        check_error(await client.post("/invocations", json=[{"txt": "a"}]), 400, "BAD_REQUEST", "'text' is missing")
        for headers, said in (({"Content-Type": "text/plain"}, "text/plain"), ({"Content-Encoding": "br"}, "br")):
            check_error(await client.post("/invocations", content=b"{}", headers=headers), 415, "BAD_REQUEST", said)

    ask(scenario)


def test_a_row_that_fails_is_named_and_a_broken_model_is_500() -> None:
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
            "whatever it is asked",
        )

    ask(scenario)


@pytest.mark.parametrize("example", [None, "good", "bad"])
def test_a_whole_request_that_raises_is_refused_unless_the_models_own_example_raises_too(example: str | None) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for rows in (["bad"], ["good", "bad"], [f"bad {i}" for i in range(5)]):
            answer = await client.post("/invocations", json={"inputs": rows})
            if example == "bad":
                check_error(answer, 500, "INTERNAL_ERROR", "the model raised ValueError")
                assert "mend the model" in answer.json()["remedy"]
            else:
                check_error(answer, 422, "INVALID_PARAMETER_VALUE", "is bad")

    body = None if example is None else json.dumps({"inputs": [example]}).encode()
    ask(scenario, upper_app(lambda: Upper(row_wise=False), example=body))


def test_a_whole_request_that_the_model_refuses_is_refused_however_many_rows() -> None:
    class Refusing(Upper):
        def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
            return [Failed(RowRefused("row 1: too long", remedy="shorten it")) for _ in items]

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/invocations", json={"inputs": ["a", "b"]})
        check_error(answer, 422, "INVALID_PARAMETER_VALUE", "row 1: too long")

    ask(scenario, upper_app(lambda: Refusing(row_wise=False)))


def test_a_message_that_is_no_unicode_is_escaped() -> None:
    class Corrupt(Upper):
        def run(self, work: Sequence[Work]) -> list[Result]:
            raise RuntimeError("weights \ud800 corrupt")

    async def scenario(client: httpx.AsyncClient) -> None:
        one, several = [await client.post("/invocations", json={"inputs": rows}) for rows in (["a"], ["a", "b"])]
        check_error(one, 422, "INVALID_PARAMETER_VALUE", "weights \\ud800 corrupt")
        check_error(several, 500, "INTERNAL_ERROR", "weights \\ud800 corrupt")

    ask(scenario, upper_app(lambda: Corrupt()))


def test_a_body_over_the_limit_is_read_to_its_end_and_refused() -> None:
    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        for _ in range(7):
            sent += 1
            yield b"x" * 1000

    async def scenario(client: httpx.AsyncClient) -> None:
        check_error(await client.post("/invocations", content=chunks()), 413, "REQUEST_LIMIT_EXCEEDED", "1,500 bytes")
        assert sent == 7

    ask(scenario, upper_app(options=ServerOptions(body_limit_bytes=1500)))


def test_a_sane_request_id_is_kept_and_any_other_replaced() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        async def id_for(sent: str) -> str:
            return (await client.get("/ping", headers={"X-Request-Id": sent})).headers["X-Request-Id"]

        assert await id_for("job-7.a:b_c") == "job-7.a:b_c"
        for odd in ("", "a b", "<x>", "x" * 129):
            assert re.fullmatch(r"[0-9a-f]{32}", await id_for(odd))

    ask(scenario)


def test_the_small_routes() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for path in ("/ping", "/health", "/ready"):
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (200, "\n")
            check_headers(answer)
        assert (await client.get("/version")).text == version("mlflow")

    ask(scenario)


def test_the_page_says_what_is_served_and_escapes_it() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        page = (await client.get("/")).text
        for said in ("&lt;upper&gt;", "sha256:abc", "upper/none", "<td>text<td>string<td>", "&lt;b&gt;"):
            assert said in page
        assert "<upper>" not in page
        assert "curl http://test/invocations" in page

    ask(scenario, upper_app(example=json.dumps({"inputs": ["it's <b>"]}).encode()))


def test_ready_comes_after_the_warm_up_and_ping_before() -> None:
    engine, opened = Upper(), threading.Event()

    def open_engine() -> Engine:
        assert opened.wait(10)
        return engine

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get("/ping")).status_code == 200
        check_error(await client.get("/ready"), 503, "TEMPORARILY_UNAVAILABLE", "being loaded")
        answer = await client.post("/invocations", json={"inputs": ["a"]})
        check_error(answer, 503, "TEMPORARILY_UNAVAILABLE", "being loaded")
        assert answer.headers["Retry-After"] == "1"
        engine.gate.clear()
        opened.set()
        assert (await client.get("/ready")).status_code == 503  # loaded or not, the warm-up has not ended
        engine.gate.set()
        async with asyncio.timeout(10):
            while (await client.get("/ready")).status_code != 200:
                await asyncio.sleep(0.001)
        assert engine.seen == ["warm"]

    ask(scenario, upper_app(open_engine, example=b'{"inputs": ["warm"]}'), wait=False)
    assert engine.closed


def test_a_warm_up_that_fails_keeps_it_from_being_ready() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        check_error(await client.get("/ready"), 503, "TEMPORARILY_UNAVAILABLE", "bad is bad")
        assert (await client.post("/invocations", json={"inputs": ["a"]})).status_code == 200

    ask(scenario, upper_app(example=b'{"inputs": ["bad"]}'))


@pytest.mark.parametrize("problem", [EngineUnavailable("no such engine", remedy="x"), OSError("broken"), SystemExit(3)])
def test_an_engine_that_does_not_load_is_told(problem: BaseException) -> None:
    def open_engine() -> Engine:
        raise problem

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get("/ping")).status_code == 200
        check_error(await client.get("/ready"), 503, "TEMPORARILY_UNAVAILABLE", "the model cannot answer")

    ask(scenario, upper_app(open_engine))


def test_while_draining_requests_are_answered_but_ready_is_not() -> None:
    app = upper_app()

    async def scenario(client: httpx.AsyncClient) -> None:
        app.state.service.drain()
        check_error(await client.get("/ready"), 503, "TEMPORARILY_UNAVAILABLE", "stopping")
        answer = await client.post("/invocations", json={"inputs": ["a"]})
        assert answer.status_code == 200
        assert answer.headers["Connection"] == "close"

    ask(scenario, app)


def test_work_of_a_client_that_hangs_up_is_dropped() -> None:
    engine = Upper()
    app = upper_app(lambda: engine)

    async def hang_up(text: str) -> None:
        """An ASGI client that sends its body, and then leaves."""
        left = asyncio.Event()
        messages = iter([{"type": "http.request", "body": json.dumps({"inputs": [text]}).encode()}])

        async def receive() -> dict[str, object]:
            if (message := next(messages, None)) is None:
                await left.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            raise AssertionError(f"answered to nobody: {message}")

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/invocations",
            "headers": [],
            "query_string": b"",
            "app": app,
        }
        asking = asyncio.create_task(app(scope, receive, send))
        async with asyncio.timeout(10):
            while app.state.service._plane.waiting_items < 1:
                await asyncio.sleep(0.001)
        left.set()
        await asking

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

    ask(scenario, app)


def test_a_bug_of_ours_is_a_500_in_json_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = upper_app()

    async def scenario(client: httpx.AsyncClient) -> None:
        app.state.service.predictions = None
        with caplog.at_level(logging.ERROR):
            answer = await client.post("/invocations", json={"inputs": ["a"]}, headers={"X-Request-Id": "r1"})
        check_error(answer, 500, "INTERNAL_ERROR", "TypeError")
        assert "r1" in caplog.text

    ask(scenario, app)


def test_every_option_has_a_help_text() -> None:
    assert all(field.metadata["help"] for field in fields(ServerOptions))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_reach_is_refused_unless_told(host: str) -> None:
    with pytest.raises(WrongUsage, match="other machines") as caught:
        listen(host, 0)
    assert "--insecure" in caught.value.remedy
    listen(host, 0, guarded=True).close()
