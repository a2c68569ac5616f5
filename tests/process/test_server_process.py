"""The server as a separate process: ports, readiness, draining, and every request form over a real socket."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
from tests.support.processes import PATIENCE
from tests.support.service import Gate, Service, ready, served, started


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


FORMS: list[tuple[bytes, str | None, object]] = [
    (
        b'{"dataframe_split": {"columns": ["text"], "data": [["a"]]}}',
        "application/json",
        {"predictions": [{"text": "A"}]},
    ),
    (b'{"dataframe_records": [{"text": "a"}]}', "application/json", {"predictions": [{"text": "A"}]}),
    (b'{"inputs": ["a"]}', "application/json", {"predictions": [{"text": "A"}]}),
    (b'{"instances": [{"text": "a"}]}', "application/json", {"predictions": [{"text": "A"}]}),
    (b"text\r\na\r\n", "text/csv", {"predictions": [{"text": "A"}]}),
    (b'{"columns": ["text"], "data": [["a"]]}', "application/json", [{"text": "A"}]),
    (b'{"columns": ["text"], "data": [["a"]]}', "application/json; format=pandas-split", [{"text": "A"}]),
    (b'[{"text": "a"}]', "application/json; format=pandas-records", [{"text": "A"}]),
    (b'"{\\"text\\":{\\"0\\":\\"a\\"}}"', "application/json", [{"text": "A"}]),
    (b'{"columns": ["text"], "data": [["a"]]}', None, [{"text": "A"}]),
]


def test_every_form_is_served_and_invalid_requests_are_rejected(log: Path) -> None:
    with served(log, "upper") as running, httpx.Client(base_url=running.url) as client:
        for body, content_type, expected in FORMS:
            headers = {"Content-Type": content_type} if content_type else {}
            assert client.post("/invocations", content=body, headers=headers).json() == expected
        assert client.get("/ready").status_code == 200
        large = client.post("/invocations", content=b"x" * 26_300_000)
        assert (large.status_code, large.json()["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
        assert client.post("/invocations", content=b"\xff").status_code == 400
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw:
            raw.sendall(b"\x00 no http\r\n\r\n")
            assert b"400" in raw.recv(1000)
        assert client.get("/ping").status_code == 200
        for host, status in (("localhost:1", 200), (running.authority, 200), ("rebound.example", 421)):
            assert client.get("/", headers={"Host": host}).status_code == status
        assert running.stop() == 0
        assert running.event("closed") == "engine"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_the_model_loads_the_server_lives_but_is_not_ready_and_a_signal_stops_it(
    log: Path, sent: signal.Signals
) -> None:
    with started(log, "upper", "--load", "600") as running:
        url = running.event("listening")
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        for path in ("/ping", "/health", "/ready"):
            response = httpx.get(f"{url}{path}")
            assert (response.status_code, response.headers["X-Likewise-Engine"]) == (503, "loading")
        assert running.stop(sent) == 0


def test_a_port_in_use_is_reported_immediately_with_its_process(log: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with started(log, "upper", "--load", "600", port=port) as running:
            error = running.event("error")
            assert error["code"] == "PORT_TAKEN"
            assert f"process {os.getpid()}" in error["cause"]
            assert f"-p {port + 1}" in error["remedy"]
            assert running.process.wait(PATIENCE) == 1


def test_an_address_of_another_host_is_wrong_usage(log: Path) -> None:
    with started(log, "upper", host="192.0.2.1") as running:
        assert running.event("error")["code"] == "WRONG_USAGE"
        assert running.process.wait(PATIENCE) == 2


def test_an_engine_that_does_not_load_stops_the_process_with_its_error(log: Path) -> None:
    with started(log, "upper", "--fail") as running:
        running.event("listening")
        assert running.event("error")["code"] == "ENGINE_UNAVAILABLE"
        assert running.process.wait(PATIENCE) == 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_in_flight_is_completed_and_ready_is_503_while_draining(log: Path, sent: signal.Signals) -> None:
    async def scenario(running: Service) -> None:
        async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE) as client:
            request = asyncio.create_task(client.post("/invocations", json={"inputs": ["a"]}))
            assert (await client.get("/ready")).status_code == 200
            running.process.send_signal(sent)
            while (await client.get("/ready")).status_code == 200:
                await asyncio.sleep(0.01)
            response = await request
            assert (response.status_code, response.json()) == (200, {"predictions": [{"text": "A"}]})

    with served(log, "upper", "--delay", "0.5") as running:
        asyncio.run(scenario(running))
        assert running.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("drain_timeout", "signals"), [(1, [signal.SIGTERM]), (600, [signal.SIGTERM, signal.SIGINT])])
def test_an_endless_run_delays_the_exit_only_until_the_drain_timeout_or_a_second_ctrl_c(
    log: Path, drain_timeout: int, signals: list[signal.Signals]
) -> None:
    async def scenario(running: Service) -> None:
        async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE) as client:
            gate = Gate(log.parent)
            request = asyncio.create_task(client.post("/invocations", json={"inputs": [gate.text]}))
            await gate.reached()
            for sent in signals:
                assert not request.done()
                running.process.send_signal(sent)
                while sent == signal.SIGTERM and (await client.get("/ready")).status_code == 200:
                    await asyncio.sleep(0.01)
            response = await request
            assert (response.status_code, response.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
            assert "stopped before" in response.json()["message"]

    with started(log, "upper", drain_timeout_s=drain_timeout) as running:
        asyncio.run(scenario(ready(running)))
        assert running.process.wait(10) == 0


async def keep_sending(client: httpx.AsyncClient, name: str, stopping: asyncio.Event) -> list[str]:
    """Send requests until the server accepts no more connections; returns the failures of accepted requests."""
    wrong: list[str] = []
    for i in range(1_000_000):
        before_signal = not stopping.is_set()
        try:
            response = await client.post("/invocations", json={"inputs": [f"{name}.{i}"]})
        except httpx.ConnectError:
            if before_signal and not stopping.is_set():
                wrong.append(f"{name}.{i}: no connection before the signal")
            return wrong
        except httpx.TransportError as error:
            wrong.append(f"{name}.{i}: {error!r}, started {'before' if before_signal else 'after'} the signal")
            return wrong
        if response.status_code != 200 or response.json() != {"predictions": [{"text": f"{name}.{i}".upper()}]}:
            wrong.append(f"{name}.{i}: {response.status_code} {response.text}")
    return wrong


@pytest.mark.parametrize("attempt", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 5))])
def test_sigterm_under_load_drops_no_request(log: Path, attempt: int) -> None:
    async def scenario(running: Service) -> None:
        stopping = asyncio.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20 if attempt % 2 else 0)
        async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE, limits=limits) as client:
            clients = [asyncio.create_task(keep_sending(client, f"c{i}", stopping)) for i in range(12)]
            started_at = time.monotonic()
            while (await client.get("/ready")).status_code == 200 and time.monotonic() < started_at + 0.5:
                await asyncio.sleep(0.01)
            stopping.set()
            running.process.send_signal(signal.SIGTERM)
            wrong = [line for lines in await asyncio.gather(*clients) for line in lines]
        assert wrong == []

    with served(log, "upper", "--delay", "0.02") as running:
        asyncio.run(scenario(running))
        assert running.process.wait(PATIENCE) == 0
