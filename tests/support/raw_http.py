"""Requests as bytes over sockets, for clients that misbehave, and an ordinary client beside them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
from tests.support.processes import PATIENCE, resident_bytes
from tests.support.service import Service, served

GROWTH = 64 * 1024 * 1024  # bytes: more than twice a body's limit; what is sent here would take gigabytes
ASKED = b'{"inputs": ["a"]}'
ANSWERED = {"predictions": [{"text": "A"}]}


@contextlib.contextmanager
def surviving(log: Path, **options: object) -> Iterator[Service]:
    """The model `upper` served by a process that lives to the end."""
    with served(log, "upper", **options) as service:
        yield service
        assert service.process.poll() is None


def connect(service: Service) -> socket.socket:
    raw = socket.create_connection(service.address)
    raw.settimeout(PATIENCE)
    return raw


def exchange(service: Service, *parts: bytes) -> bytes:
    """All that comes back on one connection until the server closes it."""
    with connect(service) as raw:
        for part in parts:
            raw.sendall(part)
        return rest(raw)


@contextlib.contextmanager
def others_are_served(service: Service) -> Iterator[None]:
    """Meanwhile an ordinary client asks all the time and is answered; memory is looked at as often."""
    before, most, wrong, answered = resident_bytes(service.pid), 0, list[str](), 0
    over = threading.Event()

    def ordinary() -> None:
        nonlocal most, answered
        with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
            while not (over.is_set() and answered):
                try:
                    answer = client.post("/invocations", content=ASKED)
                    if answer.json() != ANSWERED:
                        wrong.append(answer.text)
                except httpx.HTTPError as error:
                    wrong.append(repr(error))
                answered += 1
                most = max(most, resident_bytes(service.pid))
                over.wait(0.02)

    asking = threading.Thread(target=ordinary)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join(PATIENCE)
    assert answered
    assert not wrong, wrong[:3]
    assert most - before < GROWTH


def rest(raw: socket.socket) -> bytes:
    received = bytearray()
    while data := raw.recv(65_536):
        received += data
    return bytes(received)


def send_until_cut(raw: socket.socket, data: bytes) -> None:
    """Send, again and again; a server that neither reads nor cuts fails by TimeoutError."""
    with contextlib.suppress(ConnectionError):
        while True:
            raw.sendall(data)


def parsed(answers: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers (lower-case names) and body of each answer on a connection."""
    found = []
    while answers:
        head, _, answers = answers.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        found.append((int(status.split()[1]), headers, answers[:length]))
        answers = answers[length:]
    return found


def check_refusal(answers: bytes, status: int, message: str = "") -> None:
    """One answer: an error in the service's own form, with its own headers, on a connection that it then closed."""
    ((got, headers, body),) = parsed(answers)
    error = json.loads(body)
    assert (got, error["error_code"]) == (status, "BAD_REQUEST")
    assert message in error["message"]
    assert error["remedy"]
    assert (headers["x-likewise-bundle"], headers["x-likewise-engine"]) == ("sha256:abc", "plain/none")
    assert headers["x-request-id"]
    assert headers["connection"] == "close"


def head(*lines: str, path: str = "/invocations") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: here", *lines, "", ""]).encode("latin-1")


def request(body: bytes, *lines: str) -> bytes:
    return head(f"Content-Length: {len(body)}", *lines) + body
