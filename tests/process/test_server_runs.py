"""`likewise serve` with a model whose rows hang, crash and raise: only they fail, and `/ready` reports the truth."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.processes import LIKEWISE, PATIENCE, children, running, until, until_async
from tests.support.service import Service, client_of, post_texts

from likewise.testing.models import upper_bundle

TIMEOUT_S = 2.0
TRICKS = """if text == "hang": time.sleep(3600)
    if text == "slow": time.sleep(0.5)
    if text == "crash": os._exit(9)
    if text == "segfault": __import__("ctypes").string_at(0)
    if text == "exit": raise SystemExit(3)
    if text == "panic": raise type("PanicException", (BaseException,), {})("index out of bounds")
    if text == "interrupt": raise KeyboardInterrupt
    if text == "unspeakable": raise type("E", (Exception,), {"__str__": lambda self: 1 / 0})"""
STATUSES = {"crash": 422, "segfault": 422, "exit": 422, "panic": 422, "interrupt": 422, "unspeakable": 422}


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[Service]:
    model = upper_bundle(folder / "bundle", "", predicting=TRICKS)
    home = {"LIKEWISE_CONFIG_HOME": str(folder / "config"), "LIKEWISE_CACHE_HOME": str(folder / "cache")}
    command = [*LIKEWISE, "serve", model, "-p", "0", "--trust", "--json", "--run-timeout", str(TIMEOUT_S), *words]
    with running(command, folder / "server.log", env=os.environ | home) as process:
        document = process.document()
        yield Service(process, document["url"], document["bundle"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("one"), "--workers", "1") as started:
        yield started


async def window(service: Service, bad: str) -> tuple[httpx.Response, list[httpx.Response]]:
    """The response to `bad`, and to neighbours that were run together with it."""
    async with client_of(service) as client:
        slow = post_texts(client, "slow")
        await until_async(lambda: service.metric("likewise_queue_items") == 0)
        sent = [post_texts(client, text) for text in ("a", "b", bad, "c", "d")]
        responses = await asyncio.gather(*sent)
        assert (await slow).status_code == 200
    return responses.pop(2), responses


def check_neighbours(responses: list[httpx.Response]) -> None:
    assert [response.status_code for response in responses] == [200] * 4, [each.text for each in responses]
    assert [response.json()["predictions"] for response in responses] == [["A"], ["B"], ["C"], ["D"]]


def ready(service: Service) -> int:
    return httpx.get(f"{service.url}/ready", timeout=PATIENCE).status_code


def test_hung_row_fails_alone_and_new_callers_are_served_meanwhile(service: Service) -> None:
    async def scenario() -> None:
        async with client_of(service) as client:
            hanging = asyncio.create_task(window(service, "hang"))
            await until_async(lambda: ready(service) == 503)
            sent = time.monotonic()
            response = await client.post("/invocations", json={"inputs": ["new"]})
            assert response.json() == {"predictions": ["NEW"]}
            assert time.monotonic() - sent < TIMEOUT_S / 2 + 1
            bad, others = await hanging
            check_neighbours(others)
            assert bad.status_code == 504, bad.text
            assert bad.json()["error_code"] == "DEADLINE_EXCEEDED"

    until(lambda: service.metric("likewise_workers") == 1)  # the additional one has left
    before = service.metric("likewise_ended_runs_total", reason="timeout")
    repeated = service.metric("likewise_repeated_items_total")
    asyncio.run(scenario())
    assert service.metric("likewise_ended_runs_total", reason="timeout") == before + 1
    assert service.metric("likewise_repeated_items_total") == repeated + 5
    until(lambda: ready(service) == 200)


@pytest.mark.parametrize("bad", list(STATUSES))
def test_row_that_raises_or_crashes_fails_alone(service: Service, bad: str) -> None:
    response, others = asyncio.run(window(service, bad))
    check_neighbours(others)
    assert response.status_code == STATUSES[bad], response.text
    assert "row 0: " in response.json()["message"]
    until(lambda: ready(service) == 200)


def test_request_of_one_hung_row_is_not_repeated(service: Service) -> None:
    started = time.monotonic()
    response = httpx.post(f"{service.url}/invocations", json={"inputs": ["hang"]}, timeout=PATIENCE)
    assert response.status_code == 504
    assert time.monotonic() - started < TIMEOUT_S + 1
    after = httpx.post(f"{service.url}/invocations", json={"inputs": ["a"]}, timeout=PATIENCE)
    assert after.json() == {"predictions": ["A"]}


def test_workers_are_the_default_for_a_model_with_code(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        count = min(4, len(os.sched_getaffinity(0)))
        until(lambda: len(children(service.pid, "likewise.workers.child")) == count)
        until(lambda: service.metric("likewise_workers") == count)
        assert "in the server process" not in service.log.read_text()


def test_in_process_a_hung_row_is_reported_because_it_cannot_be_ended(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        async with client_of(service) as client:
            hanging = post_texts(client, "hang")
            await until_async(lambda: service.metric("likewise_queue_items") == 0)
            waiting = post_texts(client, "a")
            assert (await hanging).status_code == 504
            for response in (await waiting, await client.post("/invocations", json={"inputs": ["b"]})):
                assert response.status_code == 503
                assert "cannot be interrupted" in response.json()["message"]
                assert "--in-process" in response.json()["remedy"]
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/v2/health/live")).status_code == 200

    with serving(tmp_path, "--in-process") as service:
        assert not children(service.pid, "likewise.workers.child")
        assert "the model's code runs in the server process" in service.log.read_text()
        asyncio.run(scenario(service))
        assert service.metric("likewise_ended_runs_total", reason="overdue") == 1
