"""Slow and endless clients over real sockets: other clients are served, and memory stays bounded."""

import asyncio
import contextlib
import gzip
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from tests.support.processes import PATIENCE
from tests.support.raw_http import (
    EXPECTED,
    REQUEST_BODY,
    check_refusal,
    connect,
    exchange,
    head,
    other_clients_served,
    parsed,
    request,
    rest,
    send_until_cut,
    surviving,
)
from tests.support.service import Service

from likewise.server import ServerOptions
from likewise.server.protocol import limited_protocol


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with default timeouts, so that rejections have other reasons."""
    with surviving(tmp_path_factory.mktemp("log") / "patient.log") as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("log") / "strict.log"
    with surviving(log, header_timeout_s=1, read_timeout_s=1) as running:
        yield running


# --- slow ------------------------------------------------------------------------------------------------------------


def dribble(raw: socket.socket, data: bytes) -> bytes:
    """Send byte by byte until the server responds or closes; returns its response."""
    raw.settimeout(0.1)
    for byte in data:
        with contextlib.suppress(OSError):
            raw.sendall(bytes([byte]))
        try:
            first = raw.recv(65_536)
        except TimeoutError:
            continue
        raw.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):  # the last byte arrived after the server had closed
            return first + rest(raw) if first else b""
        return first
    raise AssertionError("the server accepted all data")


def test_connections_that_send_headers_slowly_are_closed_without_blocking_others(strict: Service) -> None:
    header = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 600
    responses: list[bytes] = []

    def attack() -> None:
        with connect(strict) as raw:
            responses.append(dribble(raw, header))

    attackers = [threading.Thread(target=attack) for _ in range(200)]
    with other_clients_served(strict):
        for attacker in attackers:
            attacker.start()
        for attacker in attackers:
            attacker.join(PATIENCE)
    assert len(responses) == 200
    for response in responses:
        check_refusal(response, 408, "did not arrive within 1 s")


def test_an_idle_new_connection_is_closed_without_a_response(strict: Service) -> None:
    with other_clients_served(strict):
        assert exchange(strict) == b""


def test_the_headers_of_a_later_request_have_their_own_timeout(strict: Service) -> None:
    with other_clients_served(strict):
        first, second = parsed(exchange(strict, request(REQUEST_BODY), b"POST /invocations HTTP/1.1\r\nHost:"))
    assert (first[0], json.loads(first[2])) == (200, EXPECTED)
    assert second[0] == 408


@pytest.mark.parametrize("sent", [b"", b'{"inputs"'])
def test_an_incomplete_body_is_a_timeout(strict: Service, sent: bytes) -> None:
    with other_clients_served(strict):
        ((status, headers, body),) = parsed(exchange(strict, head("Content-Length: 50"), sent))
    assert (status, json.loads(body)["error_code"]) == (408, "BAD_REQUEST")
    assert f"incomplete after 1 s; {len(sent)} bytes arrived" in json.loads(body)["message"]
    assert headers["x-request-id"]


def test_the_body_timeout_applies_to_the_whole_body(strict: Service) -> None:
    with other_clients_served(strict), connect(strict) as raw:
        raw.sendall(head("Content-Length: 5000"))
        assert parsed(dribble(raw, b"x" * 600))[0][0] == 408


def test_an_unread_body_does_not_delay_closing_the_connection(strict: Service) -> None:
    with other_clients_served(strict):
        ((status, _, _),) = parsed(exchange(strict, head("Content-Length: 50", path="/nothing"), b"abc"))
    assert status == 404


def test_a_client_that_reads_no_responses_is_disconnected(strict: Service) -> None:
    with other_clients_served(strict), connect(strict) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        requests = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
        send_until_cut(raw, requests)


# --- endless and large -----------------------------------------------------------------------------------------------


def test_a_body_in_very_many_chunks_is_accepted(patient: Service) -> None:
    text = "x" * 100_000
    body = json.dumps({"inputs": [text]}).encode()
    chunks = b"".join(b"1;note=none\r\n%c\r\n" % byte for byte in body)
    with other_clients_served(patient):
        sent = head("Transfer-Encoding: chunked", "Connection: close") + chunks + b"0\r\n\r\n"
        ((status, _, response),) = parsed(exchange(patient, sent))
    assert (status, json.loads(response)) == (200, {"predictions": [{"text": text.upper()}]})


def test_a_trailer_is_not_treated_as_a_header(patient: Service) -> None:
    chunked = b"%x\r\n%s\r\n0\r\nContent-Type: text/plain\r\n\r\n" % (len(REQUEST_BODY), REQUEST_BODY)
    with other_clients_served(patient):
        ((status, _, _),) = parsed(exchange(patient, head("Transfer-Encoding: chunked", "Connection: close") + chunked))
    assert status == 200


@pytest.mark.parametrize("endless", [b"0\r\nX-Trailer: ", b"1;"])
def test_an_endless_trailer_or_chunk_extension_is_rejected(patient: Service, endless: bytes) -> None:
    with other_clients_served(patient):
        check_refusal(exchange(patient, head("Transfer-Encoding: chunked"), endless, b"a" * 2_000_000), 431, "65,536")


def test_a_gzip_bomb_is_rejected_and_a_valid_gzip_body_accepted(patient: Service) -> None:
    bomb = gzip.compress(bytes(64_000_000)) * 64  # four gigabytes
    with other_clients_served(patient):
        lines = "Content-Encoding: gzip", "Connection: close"
        ((status, _, body),) = parsed(exchange(patient, request(bomb, *lines)))
        assert (status, json.loads(body)["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
        ((status, _, body),) = parsed(exchange(patient, request(gzip.compress(REQUEST_BODY), *lines)))
        assert (status, json.loads(body)) == (200, EXPECTED)


def test_a_client_that_sends_an_oversized_body_completely_gets_413(patient: Service) -> None:
    body = b"x" * 26_300_000
    with other_clients_served(patient), httpx.Client(base_url=patient.url, timeout=PATIENCE) as client:
        for content in (body, iter([body[:1_000_000]] * 27)):
            response = client.post("/invocations", content=content)
            assert (response.status_code, response.json()["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
        assert client.post("/invocations", content=REQUEST_BODY).json() == EXPECTED
        ((status, _, _),) = parsed(exchange(patient, request(body, "Connection: close")))
        assert status == 413


def test_a_client_that_expects_100_continue_gets_413_before_sending(patient: Service) -> None:
    with other_clients_served(patient), connect(patient) as raw:
        raw.sendall(head("Content-Length: 30000000", "Expect: 100-continue", "Connection: close"))
        assert parsed(rest(raw))[0][0] == 413
    with connect(patient) as raw:
        raw.sendall(head(f"Content-Length: {len(REQUEST_BODY)}", "Expect: 100-continue", "Connection: close"))
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(REQUEST_BODY)
        assert parsed(rest(raw))[0][0] == 200


@pytest.mark.parametrize("path", ["/invocations", "/nothing"])
@pytest.mark.parametrize("length", ["Content-Length: 900000000000", "Transfer-Encoding: chunked"])
def test_an_endless_body_gets_a_response_and_is_then_cut(strict: Service, path: str, length: str) -> None:
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with other_clients_served(strict), connect(strict) as raw:
        raw.sendall(head(length, path=path))
        send_until_cut(raw, chunk)


def test_endless_pipelined_requests_need_no_memory(patient: Service) -> None:
    flood = b"GET /ping HTTP/1.1\r\n\r\n" * 50_000  # a megabyte
    connections = [connect(patient) for _ in range(50)]

    def send(raw: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed below
            raw.sendall(flood)

    senders = [threading.Thread(target=send, args=(raw,)) for raw in connections]
    with other_clients_served(patient):
        for sender in senders:
            sender.start()
        starts = [raw.recv(15) for raw in connections]
        for raw in connections:
            raw.shutdown(socket.SHUT_RDWR)
            raw.close()
        for sender in senders:
            sender.join(PATIENCE)
    assert starts == [b"HTTP/1.1 200 OK"] * 50


def test_too_large_or_too_many_headers_are_rejected(patient: Service) -> None:
    with other_clients_served(patient):
        check_refusal(exchange(patient, head("X-Large: " + "a" * 65_536)), 431, "65,536")
        check_refusal(exchange(patient, head(*[f"X-{i}: {'a' * 600}" for i in range(120)])), 431, "65,536")
        check_refusal(exchange(patient, head(*["A: b"] * 200)), 431, "128")
        check_refusal(exchange(patient, head(path="/" + "a" * 70_000)), 431, "65,536")
        check_refusal(exchange(patient, b"GET / HTTP/1.1\r\nX: ", b"a" * 30_000_000), 431, "65,536")
        check_refusal(exchange(patient, b"\r\n" * 1_000_000), 431)
        ((status, _, _),) = parsed(
            exchange(patient, request(REQUEST_BODY, "X-Large: " + "a" * 65_000, "Connection: close"))
        )
        assert status == 200


@pytest.mark.parametrize(("size", "status"), [(65_536, 200), (65_537, 431)])
def test_the_limit_of_a_head_is_exact(patient: Service, size: int, status: int) -> None:
    lines = f"Content-Length: {len(REQUEST_BODY)}", "Connection: close", "X-Pad: "
    padding = "a" * (size - len(head(*lines).removesuffix(b"\r\n")))
    with other_clients_served(patient):
        ((got, _, _),) = parsed(exchange(patient, head(*lines[:2], lines[2] + padding) + REQUEST_BODY))
    assert got == status


# --- delays in the server --------------------------------------------------------------------------------------------


def test_a_timely_request_is_served_although_the_event_loop_was_blocked() -> None:
    async def block_loop(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/block":
            time.sleep(0.5)  # like a model that holds the GIL
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    refused: list[int] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        protocol = limited_protocol(ServerOptions(header_timeout_s=0.2), list, refused.append)
        config = uvicorn.Config(block_loop, http=protocol, ws="none", log_config=None)
        state = uvicorn.Server(config).server_state
        server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        while not state.connections:
            await asyncio.sleep(0)
        blocking_reader, blocking = await asyncio.open_connection(*address)
        blocking.write(b"GET /block HTTP/1.1\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await blocking_reader.readline()).startswith(b"HTTP/1.1 204")
        assert (await reader.readline()).startswith(b"HTTP/1.1 204")
        writer.close()
        blocking.close()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
    assert not refused


def file_limit(service: Service) -> int:
    """The process's limit of open files."""
    lines = Path(f"/proc/{service.pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if "open files" in line).split()[3])


def test_the_server_raises_its_limit_of_open_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with surviving(tmp_path / "log") as running:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))  # this process may have many files open
            connections = [connect(running) for _ in range(200)]
            with other_clients_served(running):
                assert file_limit(running) == min(hard, 10_240)
            for raw in connections:
                raw.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
