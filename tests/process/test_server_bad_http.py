"""Invalid HTTP, invalid bodies and incomplete requests over real sockets: errors are reported, other clients served."""

import json
import socket
import struct
from collections.abc import Iterator

import pytest
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
    surviving,
)
from tests.support.service import Service


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with default timeouts, so that rejections have other reasons."""
    with surviving(tmp_path_factory.mktemp("log") / "patient.log") as running:
        yield running


# --- invalid ---------------------------------------------------------------------------------------------------------

CHUNKED = "Transfer-Encoding: chunked"
INVALID = {
    "garbage": b"\x00\x01\x02 what is this\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "HTTP/3.7": b"GET / HTTP/3.7\r\nHost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no target": b"GET http:// HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two lengths": head("Content-Length: 17", "Content-Length: 16") + REQUEST_BODY,
    "two equal lengths": head("Content-Length: 17", "Content-Length: 17") + REQUEST_BODY,
    "length and coding": head("Content-Length: 17", CHUNKED) + b"0\r\n\r\n",
    "coding and length": head(CHUNKED, "Content-Length: 17") + b"0\r\n\r\n",
    "another coding": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "coding twice": head(CHUNKED, CHUNKED) + b"0\r\n\r\n",
    "odd coding": head("Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "negative length": head("Content-Length: -1"),
    "list of lengths": head("Content-Length: 17, 17") + REQUEST_BODY,
    "endless length": head("Content-Length: 99999999999999999999999999"),
    "space before colon": head("Content-Length : 17") + REQUEST_BODY,
    "folded header": head("X: a", " b: c"),
    "bare line feeds": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "NUL in a value": head("X: a\0b"),
    "NUL in a name": head("X\0: a"),
    "chunk size": head(CHUNKED) + b"zz\r\n",
    "chunk size of 2**80": head(CHUNKED) + b"fffffffffffffffffffff\r\n",
    "chunk longer than its size": head(CHUNKED) + b"1\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("sent", INVALID.values(), ids=INVALID.keys())
def test_invalid_http_is_a_bad_request(patient: Service, sent: bytes) -> None:
    with other_clients_served(patient):
        check_refusal(exchange(patient, sent), 400)


@pytest.mark.parametrize("sent", INVALID.values(), ids=INVALID.keys())
def test_a_request_before_invalid_http_is_served_first(patient: Service, sent: bytes) -> None:
    with other_clients_served(patient):
        first, second = parsed(exchange(patient, request(REQUEST_BODY) + sent))
    assert (first[0], json.loads(first[2]), second[0]) == (200, EXPECTED, 400)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (REQUEST_BODY, None, 200),
        (b"[" * 100_000, None, 400),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", 400),
        (b'{"inputs": ["\xff"]}', "application/json", 400),
        (b'{"inputs": ["\xed\xa0\x80"]}', "application/json", 400),
        (b"text\r\n\xff\r\n", "text/csv", 400),
        (b"", None, 400),
        (REQUEST_BODY, "application/json; charset=none", 415),
    ],
)
def test_invalid_bodies_are_client_errors(patient: Service, body: bytes, content_type: str | None, status: int) -> None:
    lines = ["Connection: close", *([f"Content-Type: {content_type}"] if content_type else [])]
    with other_clients_served(patient):
        ((got, _, response),) = parsed(exchange(patient, request(body, *lines)))
    assert got == status
    assert json.loads(response) == EXPECTED if status == 200 else json.loads(response)["error_code"] == "BAD_REQUEST"


def test_an_upgrade_is_declined_and_the_request_served(patient: Service) -> None:
    offer = "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"
    with other_clients_served(patient):
        sent = request(REQUEST_BODY, *offer) * 3 + request(REQUEST_BODY, "Connection: close")
        responses = parsed(exchange(patient, sent))
    assert [(status, json.loads(body)) for status, _, body in responses] == [(200, EXPECTED)] * 4


# --- pipelined and aborted -------------------------------------------------------------------------------------------


def test_pipelined_requests_get_their_responses_in_order(patient: Service) -> None:
    texts = [f"text {i}" for i in range(500)]
    sent = b"".join(request(json.dumps({"inputs": [text]}).encode()) for text in texts)
    with other_clients_served(patient):
        responses = parsed(exchange(patient, sent + b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n"))
    assert [json.loads(body)["predictions"][0]["text"] for _, _, body in responses[:-1]] == [t.upper() for t in texts]
    assert (responses[-1][0], responses[-1][2]) == (200, b"\n")


@pytest.mark.parametrize("sent", [b"", b"POST /inv", head("Content-Length: 50"), head("Content-Length: 50") + b"abc"])
def test_a_client_that_half_closes_during_a_request_is_disconnected(patient: Service, sent: bytes) -> None:
    with other_clients_served(patient), connect(patient) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        assert rest(raw) == b""


@pytest.mark.parametrize("sent", [b"POST /inv", head("Content-Length: 50") + b"abc", request(REQUEST_BODY) * 50])
def test_connection_resets_do_not_affect_other_clients(patient: Service, sent: bytes) -> None:
    with other_clients_served(patient):
        for _ in range(50):
            with connect(patient) as raw:
                raw.sendall(sent)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
