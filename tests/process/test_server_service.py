"""The service as a separate process: metrics, access log, ids, overload, many concurrent requests."""

import asyncio
import json
import resource
import time
from pathlib import Path

import httpx
import pytest
from tests.support.processes import PATIENCE, until_async
from tests.support.service import Gate, Service, check_error, client_of, post_texts, served

SECRET = "xyzzy-s3cr3t"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


# --- metrics ---------------------------------------------------------------------------------------------------------

COUNTED = {
    "likewise_batch_items_count": 3,  # the warm-up and two of the requests below
    "likewise_batch_items_sum": 4,
    "likewise_batch_tokens_sum": 7,
    "likewise_padding_efficiency_sum": 1 + 4 / 6 + 1,
    "likewise_queue_seconds_count": 4,
    "likewise_compute_seconds_count": 3,
    "likewise_cache_hits_total": 1,
    "likewise_cache_misses_total": 4,
    "likewise_poison_items_total": 1,
    "likewise_shared_items_total": 0,
    "likewise_dropped_items_total": 0,
    "likewise_queue_items": 0,
    "likewise_queue_tokens": 0,
    "likewise_worker_restarts": 0,
}


def test_requests_and_runs_are_counted(tmp_path: Path) -> None:
    with served(tmp_path / "server.log") as running, httpx.Client(base_url=running.url) as client:
        for texts in (["one", "two more words"], ["one"], ["bad text"]):
            client.post("/invocations", json={"inputs": texts})
        assert {name: running.metric(name) for name in COUNTED} == pytest.approx(COUNTED)
        client.post("/invocations", content="{")
        client.get("/nothing")
        client.post("/v2/models/text/versions/3/infer", content="{")
        expected = {
            ("/invocations", "200"): 2,
            ("/invocations", "422"): 1,
            ("/invocations", "400"): 1,
            ("other", "404"): 1,
            ("/v2/models/{model}/versions/{version}/infer", "400"): 1,
            ("/metrics", "200"): len(COUNTED) + 5,  # above and in this loop
        }
        for (route, status), count in expected.items():
            assert running.metric("likewise_requests_total", route=route, status=status) == count
        assert running.metric("likewise_request_seconds_count", route="/invocations") == 4


def test_queue_metrics_and_single_computation_of_equal_texts(tmp_path: Path) -> None:
    async def scenario(running: Service) -> None:
        gate = Gate(tmp_path)
        async with client_of(running) as client:
            first = post_texts(client, gate.text)
            await gate.reached()
            equal = [post_texts(client, "same", "same") for _ in range(50)]
            left = post_texts(client, "left")
            await until_async(lambda: running.metric("likewise_shared_items_total") == 99)
            await until_async(lambda: running.metric("likewise_queue_items") == 2)
            assert running.metric("likewise_queue_tokens") >= 2
            left.cancel()
            await until_async(lambda: running.metric("likewise_dropped_items_total") == 1)
            assert running.metric("likewise_queue_items") == 1
            gate.open()
            assert (await first).status_code == 200
            for response in await asyncio.gather(*equal):
                assert response.json() == {"predictions": [{"text": "SAME", "times": 1}] * 2}
            assert (await post_texts(client, "left")).json() == {"predictions": [{"text": "LEFT", "times": 1}]}
            await until_async(lambda: running.metric("likewise_requests_total", status="499") == 1)

    with served(tmp_path / "server.log") as running:
        asyncio.run(scenario(running))


# --- overload and deadlines ------------------------------------------------------------------------------------------


def test_requests_beyond_the_queue_limit_are_rejected_immediately(tmp_path: Path) -> None:
    async def scenario(running: Service) -> None:
        gate = Gate(tmp_path)
        async with client_of(running) as client:
            first = post_texts(client, gate.text)
            await gate.reached()
            waiting = [post_texts(client, f"waiting {i}") for i in range(2)]
            await until_async(lambda: running.metric("likewise_queue_items") == 2)
            for path, body in (
                ("/invocations", {"inputs": [f"row {i}" for i in range(20)]}),
                ("/v2/models/text/infer", tensor_of([f"row {i}" for i in range(20)])),
            ):
                refused = await client.post(path, json=body)
                check_error(refused, 503, "TEMPORARILY_UNAVAILABLE", "tokens are waiting; the limit is 20")
                assert int(refused.headers["Retry-After"]) >= 1
            gate.open()
            assert {response.status_code for response in await asyncio.gather(first, *waiting)} == {200}
            assert (
                await post_texts(client, *(f"row {i}" for i in range(20)))
            ).status_code == 200  # the queue is empty again
        assert running.metric("likewise_shed_total", reason="queue") == 2

    with served(tmp_path / "server.log", queue_tokens=20) as running:
        asyncio.run(scenario(running))


def tensor_of(texts: list[str]) -> dict[str, object]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}


def test_a_late_request_is_504_and_one_that_would_be_late_is_rejected_immediately(tmp_path: Path) -> None:
    async def scenario(running: Service) -> None:
        gate = Gate(tmp_path)
        async with client_of(running) as client:
            check_error(await post_texts(client, gate.text), 504, "DEADLINE_EXCEEDED", "no prediction within 1 s")
            refused = await post_texts(client, "after it")  # the engine is still busy with the first request
            check_error(refused, 503, "TEMPORARILY_UNAVAILABLE", "of the deadline of 1 s")
            assert int(refused.headers["Retry-After"]) >= 1
            gate.open()
            await until_async(lambda: running.metric("likewise_compute_seconds_count") == 2)
            assert (await post_texts(client, "after it")).json() == {"predictions": [{"text": "AFTER IT", "times": 1}]}
        assert running.metric("likewise_shed_total", reason="deadline") == 1

    with served(tmp_path / "server.log", deadline_s=1) as running:
        asyncio.run(scenario(running))


# --- ids and the access log ------------------------------------------------------------------------------------------


def test_each_request_is_logged_as_one_json_line_with_its_ids_but_without_its_texts(tmp_path: Path) -> None:
    wrong = {"inputs": [{"text": SECRET, "extra": SECRET}, {"text": [SECRET]}]}
    with served(tmp_path / "server.log") as running, httpx.Client(base_url=running.url) as client:
        responses = [
            client.post(f"/invocations?q={SECRET}", json={"inputs": [SECRET]}, headers={"X-Request-Id": "job-7.a:b_c"}),
            client.post("/invocations", json=wrong, headers=TRACEPARENT),
            client.post(
                "/invocations", json={"inputs": [f"bad {SECRET}"]}, headers=TRACEPARENT | {"X-Request-Id": "i"}
            ),
            client.get(f"/{SECRET}"),
            client.get(f"/v2/models/{SECRET}/versions/{SECRET}/ready"),
            client.get("/ping", headers={"X-Request-Id": f"{SECRET} with a blank"}),
            client.get("/ping", headers={"X-Request-Id": f"<{SECRET}>", "traceparent": f"00-{SECRET}"}),
            client.get("/ping", headers={"X-Request-Id": "x" * 129, "Authorization": f"Bearer {SECRET}"}),
        ]
        ids = [response.headers["X-Request-Id"] for response in responses]
        assert running.stop() == 0
    lines = running.log_lines()
    assert SECRET not in running.log.read_text()
    assert [line["request_id"] for line in lines] == ids
    assert ids[:3] == ["job-7.a:b_c", TRACE, "i"]
    assert all(len(id_) == 32 and set(id_) <= set("0123456789abcdef") for id_ in ids[3:])
    assert len(set(ids)) == len(ids)
    assert [line["trace_id"] for line in lines] == [None, TRACE, TRACE, *[None] * 5]
    assert [line["status"] for line in lines] == [response.status_code for response in responses]
    assert [line["status"] for line in lines] == [200, 400, 422, 404, 404, 200, 200, 200]
    assert [line["bytes_out"] for line in lines] == [len(response.content) for response in responses]
    routes = ["/invocations"] * 3 + ["other", "/v2/models/{model}/versions/{version}/ready"] + ["/ping"] * 3
    assert [line["route"] for line in lines] == routes
    for line in lines:
        assert line["method"] in ("GET", "POST")
        assert line["client"] == "127.0.0.1"
        assert 0 <= line["seconds"] < PATIENCE
        assert abs(line["time"] - time.time()) < 600


# --- concurrency -----------------------------------------------------------------------------------------------------

EACH = (
    "POST /invocations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: r-{}\r\n"
    "Content-Length: {}\r\n\r\n"
)


async def one_of_many(address: tuple[str, int], i: int, connecting: asyncio.Semaphore) -> bytes:
    async with connecting:
        reader, writer = await asyncio.open_connection(*address)
    body = json.dumps({"inputs": [f"text {i}", f"again {i}"]})
    writer.write((EACH.format(i, len(body)) + body).encode())
    response = await reader.read(-1)
    writer.close()
    return response


@pytest.mark.parametrize("many", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_concurrent_requests_get_their_own_responses(tmp_path: Path, many: int) -> None:
    async def scenario(running: Service) -> list[bytes]:
        gate = Gate(tmp_path)
        connecting = asyncio.Semaphore(500)
        async with client_of(running) as client:
            first = post_texts(client, gate.text)
            await gate.reached()
            coroutines = (one_of_many(running.address, i, connecting) for i in range(many))
            rest = [asyncio.create_task(one) for one in coroutines]
            await until_async(lambda: running.metric("likewise_queue_items") == 2 * many)
            gate.open()
            assert (await first).status_code == 200
            return await asyncio.gather(*rest)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = many + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this system allows a process {hard} open files, but {needed} connections are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    with served(tmp_path / "server.log", keep_alive_s=600, header_timeout_s=PATIENCE) as running:
        responses = asyncio.run(scenario(running))
        assert running.stop() == 0
    for i, response in enumerate(responses):
        head, _, body = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"\r\nx-request-id: r-{i}\r\n".encode() in head + b"\r\n"
        expected = [{"text": f"TEXT {i}", "times": 1}, {"text": f"AGAIN {i}", "times": 1}]
        assert json.loads(body) == {"predictions": expected}
    logged = [line["request_id"] for line in running.log_lines() if line["request_id"].startswith("r-")]
    assert sorted(logged) == sorted(f"r-{i}" for i in range(many))
