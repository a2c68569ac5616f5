"""Reading a body: any split into parts, every supported coding, every limit."""

import asyncio
import contextlib
import gzip
import itertools
import tracemalloc
import zlib
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from likewise.core.errors import BadRequest, BodyTimeout, BodyTooLarge, UnsupportedContentType
from likewise.server.body import CHUNK_BYTES, DRAIN_FACTOR, MAX_MEMBERS, read_body
from likewise.server.in_flight import InFlight, Share

LIMIT = 1000
SOON = 0.01  # seconds; only for time-outs that must expire


class Client:
    """Sends `parts`, then stalls (`silent`), disconnects (`gone`) or completes the body."""

    def __init__(self, parts: Iterable[bytes], *, end: str = "end") -> None:
        self._parts = deque(parts)
        self._end = end
        self.sent = 0

    async def receive(self) -> dict[str, Any]:
        if self._parts:
            part = self._parts.popleft()
            self.sent += len(part)
            last = not self._parts and self._end == "end"
            return {"type": "http.request", "body": part, "more_body": not last}
        if self._end == "silent":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}


def read(client: Client, *, limit: int = LIMIT, timeout_s: float = 30, **headers: str) -> bytes:
    named = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return asyncio.run(read_body(client.receive, named, limit=limit, timeout_s=timeout_s, share=share()))


def share() -> Share:
    return InFlight(10**12, lambda: None).share()


def compressed(body: bytes, coding: str) -> bytes:
    return {"identity": bytes, "gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}[coding](body)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


CODINGS = st.sampled_from(["identity", "gzip", "x-gzip", "deflate"])
CUTS = st.lists(st.integers(0, 1200), max_size=8)


@given(st.binary(max_size=1200), CODINGS, CUTS)
def test_a_body_is_read_completely_for_any_split_and_rejected_above_the_limit(
    body: bytes, coding: str, cuts: list[int]
) -> None:
    client = Client(split(compressed(body, coding), cuts))
    if max(len(body), len(compressed(body, coding))) <= LIMIT:
        assert read(client, content_encoding=coding) == body
    else:
        with pytest.raises(BodyTooLarge, match="1,000"):
            read(client, content_encoding=coding)


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=5), CUTS)
def test_a_gzip_body_may_have_several_members(bodies: list[bytes], cuts: list[int]) -> None:
    client = Client(split(b"".join(map(gzip.compress, bodies)), cuts))
    assert read(client, content_encoding="GZip ") == b"".join(bodies)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]), st.data())
def test_a_corrupt_body_is_a_bad_request_or_unchanged(body: bytes, coding: str, data: st.DataObject) -> None:
    sent = compressed(body, coding)
    position = data.draw(st.integers(0, len(sent) - 1))
    flipped = sent[:position] + bytes([sent[position] ^ data.draw(st.integers(1, 255))]) + sent[position + 1 :]
    with contextlib.suppress(BadRequest):  # not raised if the byte does not affect the content
        assert read(Client([flipped]), limit=10**6, content_encoding=coding) == body
    with pytest.raises(BadRequest, match="is truncated"):
        read(Client([sent[:position]]), content_encoding=coding)


def test_data_after_a_compressed_body_is_rejected() -> None:
    for coding in ("gzip", "deflate"):
        with pytest.raises(BadRequest):
            read(Client([compressed(b"a", coding) + b"more"]), content_encoding=coding)
    members = gzip.compress(b"") * (MAX_MEMBERS + 1)
    with pytest.raises(BadRequest, match="members"):
        read(Client([members]), limit=len(members), content_encoding="gzip")


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip, identity", "deflate,br", "compress"])
def test_other_codings_are_rejected(coding: str) -> None:
    client = Client([b"a" * 10, b"b" * 10])
    with pytest.raises(UnsupportedContentType, match="content encoding"):
        read(client, content_encoding=coding)
    assert client.sent == 20


def test_codings_in_two_headers_are_a_list() -> None:
    headers = Headers(raw=[(b"content-encoding", b"identity"), (b"content-encoding", b"gzip")])
    with pytest.raises(UnsupportedContentType):
        asyncio.run(read_body(Client([b"a"]).receive, headers, limit=LIMIT, timeout_s=30, share=share()))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_decompression_bomb_is_rejected_without_being_inflated(coding: str) -> None:
    bomb = compressed(bytes(200_000_000), coding)
    limit = 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            read(Client([bomb]), limit=limit, content_encoding=coding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * limit + 4 * CHUNK_BYTES


def test_a_body_that_inflates_to_exactly_the_limit_is_accepted() -> None:
    body = bytes(4 * CHUNK_BYTES)
    assert read(Client([gzip.compress(body)]), limit=len(body), content_encoding="gzip") == body
    with pytest.raises(BodyTooLarge):
        read(Client([gzip.compress(body)]), limit=len(body) - 1, content_encoding="gzip")


@pytest.mark.slow
def test_tiny_parts_need_little_memory() -> None:
    size = 200_000
    client = Client([b"x"] * size)
    tracemalloc.start()
    try:
        assert len(read(client, limit=size)) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * size


def test_a_body_that_is_not_complete_in_time_is_a_timeout() -> None:
    with pytest.raises(BodyTimeout, match="3 bytes"):
        read(Client([b"abc"], end="silent"), timeout_s=SOON)


def test_a_disconnect_raises_client_disconnect() -> None:
    with pytest.raises(ClientDisconnect):
        read(Client([b"abc"], end="gone"))


@pytest.mark.parametrize(
    ("parts", "headers", "sent"),
    [
        ([b"x" * 600] * 4, {}, 2400),  # all of it, so that the client then reads the response
        ([b"x" * 600] * 4, {"content_length": "2400"}, 2400),
        ([b"x" * 600] * 100, {}, 600 * 14),  # until it exceeds DRAIN_FACTOR times the limit
        ([b"x" * 600] * 4, {"content_length": str(LIMIT * DRAIN_FACTOR + 1)}, 0),  # too long to drain
        ([b"x" * 600] * 4, {"content_length": "2400", "expect": "100-continue"}, 0),  # waits for 100 Continue
    ],
)
def test_an_oversized_body_is_drained_up_to_a_limit(parts: list[bytes], headers: dict[str, str], sent: int) -> None:
    client = Client(parts)
    with pytest.raises(BodyTooLarge):
        read(client, **headers)
    assert client.sent == sent


def test_draining_is_limited_by_the_bodys_timeout_and_keeps_the_error() -> None:
    with pytest.raises(BodyTooLarge):
        read(Client([b"x" * 600] * 2, end="silent"), timeout_s=SOON)
    with pytest.raises(ClientDisconnect):
        read(Client([b"x" * 600] * 2, end="gone"))
