"""The memory of requests in flight: what is admitted, what is rejected, and that all of it is given back."""

import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers
from tests.support.server_app import Upper, client_of, upper_app
from tests.unit.test_server_body import Client

from likewise.core.errors import Overloaded
from likewise.server import ServerOptions
from likewise.server.body import read_body
from likewise.server.in_flight import ALWAYS_BYTES, InFlight

LIMIT = 10 * ALWAYS_BYTES


def in_flight(refused: list[int] | None = None) -> InFlight:
    return InFlight(LIMIT, lambda: None if refused is None else refused.append(1))


def read(all_requests: InFlight, client: Client, **headers: str) -> bytes:
    named = Headers({name.replace("_", "-"): value for name, value in headers.items()})

    async def reading() -> bytes:
        with all_requests.share() as share:
            return await read_body(client.receive, named, limit=100 * LIMIT, timeout_s=30, share=share)

    return asyncio.run(reading())


def test_a_body_is_rejected_by_its_length_before_it_is_read() -> None:
    refused: list[int] = []
    all_requests = in_flight(refused)
    client = Client([b"x"] * 3)
    with all_requests.share() as other:
        other.grow(LIMIT // 2)
        with pytest.raises(Overloaded, match=f"{LIMIT:,}") as error:
            read(all_requests, client, content_length=str(LIMIT), expect="100-continue")
        assert error.value.retry_after_s
        assert client.sent == 0
        assert refused == [1]
    assert all_requests.used == 0


def test_a_body_without_a_length_is_rejected_when_it_has_grown_too_large() -> None:
    all_requests = in_flight()
    with all_requests.share() as other:
        other.grow(LIMIT // 2)
        with pytest.raises(Overloaded):
            read(all_requests, Client([b"x" * ALWAYS_BYTES] * 6))
        assert all_requests.used == LIMIT // 2


def test_a_compressed_body_counts_as_it_unfolds() -> None:
    all_requests = in_flight()
    bomb = gzip.compress(bytes(LIMIT))
    assert len(bomb) < ALWAYS_BYTES
    with all_requests.share() as other:
        other.grow(LIMIT // 2)
        with pytest.raises(Overloaded):
            read(all_requests, Client([bomb]), content_encoding="gzip", content_length=str(len(bomb)))
    assert read(all_requests, Client([bomb]), content_encoding="gzip") == bytes(LIMIT)


def test_a_request_alone_and_small_ones_are_always_admitted() -> None:
    all_requests = in_flight()
    with all_requests.share() as alone:
        alone.grow(100 * LIMIT)
        with all_requests.share() as small:
            small.grow(ALWAYS_BYTES)
            with pytest.raises(Overloaded):
                small.grow(ALWAYS_BYTES + 1)
    assert all_requests.used == 0


def test_bodies_that_are_announced_and_never_sent_shut_out_nobody() -> None:
    all_requests = in_flight()

    async def scenario() -> bytes:
        announced = Headers({"content-length": str(LIMIT)})
        shares = [all_requests.share() for _ in range(8)]
        waiting = [
            asyncio.create_task(
                read_body(Client([b"x"], end="silent").receive, announced, limit=LIMIT, timeout_s=30, share=share)
            )
            for share in shares
        ]
        await asyncio.sleep(0)
        with all_requests.share() as share:
            body = await read_body(
                Client([bytes(LIMIT // 2)]).receive, Headers(), limit=LIMIT, timeout_s=30, share=share
            )
        for task in waiting:
            task.cancel()
        return body

    assert asyncio.run(scenario()) == bytes(LIMIT // 2)


def texts(rows: int) -> dict[str, Any]:
    return {"inputs": [f"text {row} {'x' * 50}" for row in range(rows)]}


def test_a_request_over_the_limit_gets_503_and_is_counted_until_it_is_answered() -> None:
    engine = Upper()

    async def main() -> None:
        app = upper_app(lambda: engine, options=ServerOptions(in_flight_bytes=1_000_000))
        async with client_of(app) as client:
            engine.gate.clear()
            first = asyncio.create_task(client.post("/invocations", json=texts(5000)))
            while await gauge(client) < 500_000:
                await asyncio.sleep(0.01)
            refused = await client.post("/invocations", json=texts(8000))
            small = asyncio.create_task(client.post("/invocations", json=texts(1)))
            engine.gate.set()
            assert (await first).json()["predictions"][4999]["text"].startswith("TEXT 4999")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "1,000,000" in refused.json()["message"]
            assert (await small).status_code == 200
            assert await gauge(client) == 0
            assert 'likewise_shed_total{bundle="sha256:abc",reason="in_flight"} 1.0' in await metrics(client)

    asyncio.run(main())


async def metrics(client: httpx.AsyncClient) -> str:
    return (await client.get("/metrics")).text


async def gauge(client: httpx.AsyncClient) -> float:
    lines = (await metrics(client)).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("likewise_in_flight_bytes{"))


def test_a_request_with_too_many_cells_gets_413() -> None:
    async def main() -> None:
        app = upper_app(options=ServerOptions(cells_limit=1000))
        async with client_of(app) as client:
            rejected = await client.post("/invocations", content=json.dumps(texts(1001)))
            assert (rejected.status_code, rejected.json()["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
            assert "1,003 cells; the limit is 1,000" in rejected.json()["message"]
            infer = {"name": "text", "datatype": "BYTES", "shape": [1001], "data": ["a"] * 1001}
            name = app.state.service.model.model_name
            assert (await client.post(f"/v2/models/{name}/infer", json={"inputs": [infer]})).status_code == 413

    asyncio.run(main())


def test_rows_of_a_long_request_keep_their_order_and_their_numbers() -> None:
    async def main() -> None:
        async with client_of(upper_app(options=ServerOptions(access_log=False))) as client:
            answer = await client.post("/invocations", json=texts(4321))
            assert answer.json()["predictions"] == [{"text": text.upper()} for text in texts(4321)["inputs"]]
            rows = texts(4321)["inputs"]
            rows[3210] = "bad row"
            failed = await client.post("/invocations", json={"inputs": rows})
            assert failed.status_code == 422
            assert failed.json()["message"].startswith("row 3210: ")

    asyncio.run(main())


def test_a_large_body_is_answered_by_the_deadline_whatever_the_engine_does() -> None:
    engine = Upper()

    async def main() -> None:
        app = upper_app(lambda: engine, options=ServerOptions(deadline_s=0.3))
        async with client_of(app) as client:
            engine.gate.clear()
            answer = await client.post("/invocations", json=texts(5000))
            assert (answer.status_code, answer.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
            engine.gate.set()
            assert await gauge(client) == 0

    asyncio.run(main())


def test_a_long_request_is_admitted_or_rejected_as_a_whole() -> None:
    async def main() -> None:
        engine = Upper()
        app = upper_app(lambda: engine, options=ServerOptions(queue_tokens=4000))
        async with client_of(app) as client:
            engine.gate.clear()
            first = asyncio.create_task(client.post("/invocations", json=texts(1)))
            while not engine_is_running(app):
                await asyncio.sleep(0.001)
            refused = await client.post("/invocations", json=texts(5000))
            assert (refused.status_code, len(engine.seen)) == (503, 0)
            engine.gate.set()
            assert (await first).status_code == 200

    asyncio.run(main())


def engine_is_running(app: Any) -> bool:
    return bool(app.state.service._plane._busy)
