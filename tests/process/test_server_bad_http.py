"""What is no HTTP, no rows, or half a request, over real sockets: each gets its answer, and the others are served."""

import json
import socket
import struct
from collections.abc import Iterator

import pytest
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
    surviving,
)
from tests.support.service import Service


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With the usual time-outs: what it refuses is refused for another reason."""
    with surviving(tmp_path_factory.mktemp("log") / "patient.log") as running:
        yield running


# --- wrong -----------------------------------------------------------------------------------------------------------

CHUNKED = "Transfer-Encoding: chunked"
WRONG = {
    "garbage": b"\x00\x01\x02 what is this\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: here\r\n\r\n",
    "HTTP/3.7": b"GET / HTTP/3.7\r\nHost: here\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT here:80 HTTP/1.1\r\nHost: here\r\n\r\n",
    "no target": b"GET http:// HTTP/1.1\r\nHost: here\r\n\r\n",
    "two lengths": head("Content-Length: 17", "Content-Length: 16") + ASKED,
    "two equal lengths": head("Content-Length: 17", "Content-Length: 17") + ASKED,
    "length and coding": head("Content-Length: 17", CHUNKED) + b"0\r\n\r\n",
    "coding and length": head(CHUNKED, "Content-Length: 17") + b"0\r\n\r\n",
    "another coding": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "coding twice": head(CHUNKED, CHUNKED) + b"0\r\n\r\n",
    "odd coding": head("Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "negative length": head("Content-Length: -1"),
    "list of lengths": head("Content-Length: 17, 17") + ASKED,
    "endless length": head("Content-Length: 99999999999999999999999999"),
    "space before colon": head("Content-Length : 17") + ASKED,
    "folded header": head("X: a", " b: c"),
    "bare line feeds": b"GET / HTTP/1.1\nHost: here\n\n",
    "NUL in a value": head("X: a\0b"),
    "NUL in a name": head("X\0: a"),
    "chunk size": head(CHUNKED) + b"zz\r\n",
    "chunk size of 2**80": head(CHUNKED) + b"fffffffffffffffffffff\r\n",
    "chunk longer than said": head(CHUNKED) + b"1\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("sent", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_http_is_a_bad_request(patient: Service, sent: bytes) -> None:
    with others_are_served(patient):
        check_refusal(exchange(patient, sent), 400)


@pytest.mark.parametrize("sent", WRONG.values(), ids=WRONG.keys())
def test_what_came_before_it_is_answered_first(patient: Service, sent: bytes) -> None:
    with others_are_served(patient):
        first, second = parsed(exchange(patient, request(ASKED) + sent))
    assert (first[0], json.loads(first[2]), second[0]) == (200, ANSWERED, 400)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (ASKED, None, 200),
        (b"[" * 100_000, None, 400),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", 400),
        (b'{"inputs": ["\xff"]}', "application/json", 400),
        (b'{"inputs": ["\xed\xa0\x80"]}', "application/json", 400),
        (b"text\r\n\xff\r\n", "text/csv", 400),
        (b"", None, 400),
        (ASKED, "application/json; charset=none", 415),
    ],
)
def test_bodies_that_are_no_rows_are_the_client_s_fault(
    patient: Service, body: bytes, content_type: str | None, status: int
) -> None:
    lines = ["Connection: close", *([f"Content-Type: {content_type}"] if content_type else [])]
    with others_are_served(patient):
        ((got, _, answer),) = parsed(exchange(patient, request(body, *lines)))
    assert got == status
    assert json.loads(answer) == ANSWERED if status == 200 else json.loads(answer)["error_code"] == "BAD_REQUEST"


def test_another_protocol_that_is_offered_is_declined_and_the_request_answered(patient: Service) -> None:
    offer = "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"
    with others_are_served(patient):
        sent = request(ASKED, *offer) * 3 + request(ASKED, "Connection: close")
        answers = parsed(exchange(patient, sent))
    assert [(status, json.loads(body)) for status, _, body in answers] == [(200, ANSWERED)] * 4


# --- odd, and gone ---------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(patient: Service) -> None:
    texts = [f"text {i}" for i in range(500)]
    sent = b"".join(request(json.dumps({"inputs": [text]}).encode()) for text in texts)
    with others_are_served(patient):
        answers = parsed(exchange(patient, sent + b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n"))
    assert [json.loads(body)["predictions"][0]["text"] for _, _, body in answers[:-1]] == [t.upper() for t in texts]
    assert (answers[-1][0], answers[-1][2]) == (200, b"\n")


@pytest.mark.parametrize("sent", [b"", b"POST /inv", head("Content-Length: 50"), head("Content-Length: 50") + b"abc"])
def test_who_closes_a_half_before_the_request_is_whole_is_let_go(patient: Service, sent: bytes) -> None:
    with others_are_served(patient), connect(patient) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        assert rest(raw) == b""


@pytest.mark.parametrize("sent", [b"POST /inv", head("Content-Length: 50") + b"abc", request(ASKED) * 50])
def test_who_resets_the_connection_is_let_go(patient: Service, sent: bytes) -> None:
    with others_are_served(patient):
        for _ in range(50):
            with connect(patient) as raw:
                raw.sendall(sent)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
