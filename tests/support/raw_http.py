"""Raw requests over sockets, for misbehaving clients, and an ordinary client that runs at the same time."""

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

GROWTH = 64 * 1024 * 1024  # bytes: more than twice the body limit; buffering everything sent here would take gigabytes
REQUEST_BODY = b'{"inputs": ["a"]}'
EXPECTED = {"predictions": [{"text": "A"}]}


@contextlib.contextmanager
def surviving(log: Path, **options: object) -> Iterator[Service]:
    """Serve the model `upper`, and check that the process is still alive at the end."""
    with served(log, "upper", **options) as service:
        yield service
        assert service.process.poll() is None


def connect(service: Service) -> socket.socket:
    raw = socket.create_connection(service.address)
    raw.settimeout(PATIENCE)
    return raw


def exchange(service: Service, *parts: bytes) -> bytes:
    """Send `parts` on one connection; returns everything received until the server closes it."""
    with connect(service) as raw:
        for part in parts:
            raw.sendall(part)
        return rest(raw)


@contextlib.contextmanager
def other_clients_served(service: Service) -> Iterator[None]:
    """Check that an ordinary client is served at the same time, and that the server's memory stays bounded."""
    before, peak, wrong, completed = resident_bytes(service.pid), 0, list[str](), 0
    over = threading.Event()

    def ordinary() -> None:
        nonlocal peak, completed
        with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
            while not (over.is_set() and completed):
                try:
                    response = client.post("/invocations", content=REQUEST_BODY)
                    if response.json() != EXPECTED:
                        wrong.append(response.text)
                except httpx.HTTPError as error:
                    wrong.append(repr(error))
                completed += 1
                peak = max(peak, resident_bytes(service.pid))
                over.wait(0.02)

    client_thread = threading.Thread(target=ordinary)
    client_thread.start()
    try:
        yield
    finally:
        over.set()
        client_thread.join(PATIENCE)
    assert completed
    assert not wrong, wrong[:3]
    assert peak - before < GROWTH


def rest(raw: socket.socket) -> bytes:
    received = bytearray()
    while data := raw.recv(65_536):
        received += data
    return bytes(received)


def send_until_cut(raw: socket.socket, data: bytes) -> None:
    """Send repeatedly until the server cuts the connection; TimeoutError if it neither reads nor cuts."""
    with contextlib.suppress(ConnectionError):
        while True:
            raw.sendall(data)


def parsed(received: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers (lower-case names) and body of each response on a connection."""
    responses = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        responses.append((int(status.split()[1]), headers, received[:length]))
        received = received[length:]
    return responses


def check_refusal(received: bytes, status: int, message: str = "") -> None:
    """Check for a single error response in the service's format, with its headers, and a closed connection."""
    ((got, headers, body),) = parsed(received)
    error = json.loads(body)
    assert (got, error["error_code"]) == (status, "BAD_REQUEST")
    assert message in error["message"]
    assert error["remedy"]
    assert (headers["x-likewise-bundle"], headers["x-likewise-engine"]) == ("sha256:abc", "plain/none")
    assert headers["x-request-id"]
    assert headers["connection"] == "close"


def head(*lines: str, path: str = "/invocations") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


def request(body: bytes, *lines: str) -> bytes:
    return head(f"Content-Length: {len(body)}", *lines) + body
