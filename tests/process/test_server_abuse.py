"""Clients that are slow or endless, over real sockets: the others are served, and memory stays bounded."""

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
    ANSWERED,
    ASKED,
    check_refusal,
    connect,
    exchange,
    head,
    others_are_served,
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
    """With the usual time-outs: what it refuses is refused for another reason."""
    with surviving(tmp_path_factory.mktemp("log") / "patient.log") as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("log") / "strict.log"
    with surviving(log, header_timeout_s=1, read_timeout_s=1) as running:
        yield running


# --- slow ------------------------------------------------------------------------------------------------------------


def dribble(raw: socket.socket, data: bytes) -> bytes:
    """Send byte after byte until the server answers or closes; what it said."""
    raw.settimeout(0.1)
    for byte in data:
        with contextlib.suppress(OSError):
            raw.sendall(bytes([byte]))
        try:
            first = raw.recv(65_536)
        except TimeoutError:
            continue
        raw.settimeout(PATIENCE)
        return first + rest(raw) if first else b""
    raise AssertionError("it took all that there was to send")


def test_connections_that_dribble_headers_are_closed_and_hold_nobody_up(strict: Service) -> None:
    header = b"GET / HTTP/1.1\r\nHost: here\r\nX-Slow: " + b"a" * 600
    answers: list[bytes] = []

    def attack() -> None:
        with connect(strict) as raw:
            answers.append(dribble(raw, header))

    attackers = [threading.Thread(target=attack) for _ in range(200)]
    with others_are_served(strict):
        for attacker in attackers:
            attacker.start()
        for attacker in attackers:
            attacker.join(PATIENCE)
    assert len(answers) == 200
    for answer in answers:
        check_refusal(answer, 408, "did not arrive within 1 s")


def test_a_connection_that_sends_nothing_is_closed_without_a_word(strict: Service) -> None:
    with others_are_served(strict):
        assert exchange(strict) == b""


def test_the_headers_of_a_later_request_have_their_own_time(strict: Service) -> None:
    with others_are_served(strict):
        first, second = parsed(exchange(strict, request(ASKED), b"POST /invocations HTTP/1.1\r\nHost:"))
    assert (first[0], json.loads(first[2])) == (200, ANSWERED)
    assert second[0] == 408


@pytest.mark.parametrize("sent", [b"", b'{"inputs"'])
def test_a_body_that_stops_is_a_timeout(strict: Service, sent: bytes) -> None:
    with others_are_served(strict):
        ((status, headers, body),) = parsed(exchange(strict, head("Content-Length: 50"), sent))
    assert (status, json.loads(body)["error_code"]) == (408, "BAD_REQUEST")
    assert f"{len(sent)} bytes arrived within 1 s" in json.loads(body)["message"]
    assert headers["x-request-id"]


def test_a_body_that_dribbles_has_its_time_in_all(strict: Service) -> None:
    with others_are_served(strict), connect(strict) as raw:
        raw.sendall(head("Content-Length: 5000"))
        assert parsed(dribble(raw, b"x" * 600))[0][0] == 408


def test_a_body_that_nobody_reads_is_not_waited_for(strict: Service) -> None:
    with others_are_served(strict):
        ((status, _, _),) = parsed(exchange(strict, head("Content-Length: 50", path="/nothing"), b"abc"))
    assert status == 404


def test_a_client_that_takes_no_answers_is_cut(strict: Service) -> None:
    with others_are_served(strict), connect(strict) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 1000
        send_until_cut(raw, asking)


# --- endless and large -----------------------------------------------------------------------------------------------


def test_a_body_in_very_many_chunks_is_read(patient: Service) -> None:
    text = "x" * 100_000
    body = json.dumps({"inputs": [text]}).encode()
    chunks = b"".join(b"1;note=none\r\n%c\r\n" % byte for byte in body)
    with others_are_served(patient):
        sent = head("Transfer-Encoding: chunked", "Connection: close") + chunks + b"0\r\n\r\n"
        ((status, _, answer),) = parsed(exchange(patient, sent))
    assert (status, json.loads(answer)) == (200, {"predictions": [{"text": text.upper()}]})


def test_a_trailer_is_no_header(patient: Service) -> None:
    chunked = b"%x\r\n%s\r\n0\r\nContent-Type: text/plain\r\n\r\n" % (len(ASKED), ASKED)
    with others_are_served(patient):
        ((status, _, _),) = parsed(exchange(patient, head("Transfer-Encoding: chunked", "Connection: close") + chunked))
    assert status == 200


@pytest.mark.parametrize("endless", [b"0\r\nX-Trailer: ", b"1;"])
def test_a_trailer_or_chunk_extension_without_end_is_refused(patient: Service, endless: bytes) -> None:
    with others_are_served(patient):
        check_refusal(exchange(patient, head("Transfer-Encoding: chunked"), endless, b"a" * 2_000_000), 431, "65,536")


def test_a_gzip_bomb_is_too_large_and_a_good_gzip_is_read(patient: Service) -> None:
    bomb = gzip.compress(bytes(64_000_000)) * 64  # four gigabytes
    with others_are_served(patient):
        lines = "Content-Encoding: gzip", "Connection: close"
        ((status, _, body),) = parsed(exchange(patient, request(bomb, *lines)))
        assert (status, json.loads(body)["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
        ((status, _, body),) = parsed(exchange(patient, request(gzip.compress(ASKED), *lines)))
        assert (status, json.loads(body)) == (200, ANSWERED)


def test_a_body_too_large_is_told_to_a_client_that_sends_all_of_it_first(patient: Service) -> None:
    body = b"x" * 26_300_000
    with others_are_served(patient), httpx.Client(base_url=patient.url, timeout=PATIENCE) as client:
        for content in (body, iter([body[:1_000_000]] * 27)):
            answer = client.post("/invocations", content=content)
            assert (answer.status_code, answer.json()["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
        assert client.post("/invocations", content=ASKED).json() == ANSWERED
        ((status, _, _),) = parsed(exchange(patient, request(body, "Connection: close")))
        assert status == 413


def test_who_asks_before_sending_too_much_is_told_before_sending(patient: Service) -> None:
    with others_are_served(patient), connect(patient) as raw:
        raw.sendall(head("Content-Length: 30000000", "Expect: 100-continue", "Connection: close"))
        assert parsed(rest(raw))[0][0] == 413
    with connect(patient) as raw:
        raw.sendall(head(f"Content-Length: {len(ASKED)}", "Expect: 100-continue", "Connection: close"))
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(ASKED)
        assert parsed(rest(raw))[0][0] == 200


@pytest.mark.parametrize("path", ["/invocations", "/nothing"])
@pytest.mark.parametrize("length", ["Content-Length: 900000000000", "Transfer-Encoding: chunked"])
def test_a_body_without_end_is_answered_and_then_cut(strict: Service, path: str, length: str) -> None:
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with others_are_served(strict), connect(strict) as raw:
        raw.sendall(head(length, path=path))
        send_until_cut(raw, chunk)


def test_pipelined_requests_without_end_take_no_memory(patient: Service) -> None:
    flood = b"GET /ping HTTP/1.1\r\n\r\n" * 50_000  # a megabyte
    connections = [connect(patient) for _ in range(50)]

    def send(raw: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed below
            raw.sendall(flood)

    senders = [threading.Thread(target=send, args=(raw,)) for raw in connections]
    with others_are_served(patient):
        for sender in senders:
            sender.start()
        answered = [raw.recv(15) for raw in connections]
        for raw in connections:
            raw.shutdown(socket.SHUT_RDWR)
            raw.close()
        for sender in senders:
            sender.join(PATIENCE)
    assert answered == [b"HTTP/1.1 200 OK"] * 50


def test_headers_too_large_or_too_many_are_refused(patient: Service) -> None:
    with others_are_served(patient):
        check_refusal(exchange(patient, head("X-Large: " + "a" * 65_536)), 431, "65,536")
        check_refusal(exchange(patient, head(*[f"X-{i}: {'a' * 600}" for i in range(120)])), 431, "65,536")
        check_refusal(exchange(patient, head(*["A: b"] * 200)), 431, "128")
        check_refusal(exchange(patient, head(path="/" + "a" * 70_000)), 431, "65,536")
        check_refusal(exchange(patient, b"GET / HTTP/1.1\r\nX: ", b"a" * 30_000_000), 431, "65,536")
        check_refusal(exchange(patient, b"\r\n" * 1_000_000), 431)
        ((status, _, _),) = parsed(exchange(patient, request(ASKED, "X-Large: " + "a" * 65_000, "Connection: close")))
        assert status == 200


@pytest.mark.parametrize(("size", "status"), [(65_536, 200), (65_537, 431)])
def test_the_limit_of_a_head_is_exact(patient: Service, size: int, status: int) -> None:
    lines = f"Content-Length: {len(ASKED)}", "Connection: close", "X-Pad: "
    padding = "a" * (size - len(head(*lines).removesuffix(b"\r\n")))
    with others_are_served(patient):
        ((got, _, _),) = parsed(exchange(patient, head(*lines[:2], lines[2] + padding) + ASKED))
    assert got == status


# --- the server's own fault ------------------------------------------------------------------------------------------


def test_who_has_sent_all_in_time_is_answered_though_the_loop_was_held_up() -> None:
    async def hold_up(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/hold":
            time.sleep(0.5)  # as a model that keeps Python's lock does
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    refused: list[int] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        protocol = limited_protocol(ServerOptions(header_timeout_s=0.2), list, refused.append)
        config = uvicorn.Config(hold_up, http=protocol, ws="none", log_config=None)
        state = uvicorn.Server(config).server_state
        server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        while not state.connections:
            await asyncio.sleep(0)
        holding_reader, holding = await asyncio.open_connection(*address)
        holding.write(b"GET /hold HTTP/1.1\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await holding_reader.readline()).startswith(b"HTTP/1.1 204")
        assert (await reader.readline()).startswith(b"HTTP/1.1 204")
        writer.close()
        holding.close()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
    assert not refused


def file_limit(service: Service) -> int:
    """Files that the process may have open."""
    lines = Path(f"/proc/{service.pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if "open files" in line).split()[3])


def test_the_server_takes_as_many_connections_as_the_system_allows(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with surviving(tmp_path / "log") as running:
            connections = [connect(running) for _ in range(200)]
            with others_are_served(running):
                assert file_limit(running) == min(hard, 10_240)
            for raw in connections:
                raw.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
