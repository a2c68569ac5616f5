"""Responses are compressed for clients that prefer gzip."""

import asyncio
import gzip
import json

import httpx
import pytest
from tests.support.server_app import client_of, upper_app

from likewise.server.compression import LEAST_BYTES, OFF_LOOP_BYTES, accepts_gzip

TEXT = "many words, " * 10


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("x-gzip", True),
        ("GZip;Q=0.5", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("*", True),
        ("identity;q=0.5, gzip", True),
        ("identity, gzip;q=0.5", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("identity", False),
        ("br", False),
        ("", False),
        ("gzip;q=x", False),
        ("gzip;q=nan", False),
        ("a," * 1000 + "gzip", False),
    ],
)
def test_the_clients_preference_counts(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) == accepted


async def post(client: httpx.AsyncClient, rows: int, accepted: str) -> httpx.Response:
    """The response with its body as sent."""
    body = {"inputs": [f"{i} {TEXT}" for i in range(rows)]}
    request = client.build_request("POST", "/invocations", json=body, headers={"Accept-Encoding": accepted})
    response = await client.send(request, stream=True)
    response.extensions["sent"] = b"".join([chunk async for chunk in response.aiter_raw()])
    return response


def test_predictions_of_any_size_are_the_same_compressed_and_not() -> None:
    async def main() -> None:
        async with client_of(upper_app()) as client:
            for rows in (1, LEAST_BYTES // len(TEXT) + 1, 10 * OFF_LOOP_BYTES // len(TEXT)):
                plain, packed = await post(client, rows, "identity"), await post(client, rows, "gzip")
                expected: bytes = plain.extensions["sent"]
                assert json.loads(expected)["predictions"][0] == {"text": f"0 {TEXT}".upper()}
                sent: bytes = packed.extensions["sent"]
                assert int(packed.headers.get("Content-Length", len(sent))) == len(sent)  # a large one is sent in parts
                if rows == 1:
                    assert sent == expected
                    assert "Content-Encoding" not in packed.headers
                    continue
                assert packed.headers["Content-Encoding"] == "gzip"
                assert gzip.decompress(sent) == expected
                assert len(sent) < len(expected) / 2
                assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"

    asyncio.run(main())


def test_pages_and_assets_are_compressed_and_revalidated() -> None:
    async def main() -> None:
        async with client_of(upper_app()) as client:
            for path in ("/", "/openapi.json", "/metrics", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"):
                plain = await client.get(path, headers={"Accept-Encoding": "identity"})
                packed = await client.get(path, headers={"Accept-Encoding": "gzip"})
                assert packed.headers["Content-Encoding"] == "gzip"
                assert path == "/metrics" or packed.content == plain.content
            tag = packed.headers["ETag"]
            assert tag.startswith("W/")
            again = await client.get(path, headers={"Accept-Encoding": "gzip", "If-None-Match": tag})
            assert (again.status_code, again.content) == (304, b"")
            head = await client.head(path, headers={"Accept-Encoding": "gzip"})
            assert (head.status_code, head.headers.get("Content-Encoding")) == (200, None)
            part = await client.get(path, headers={"Accept-Encoding": "gzip", "Range": "bytes=0-2000"})
            assert (part.status_code, part.content) == (206, plain.content[:2001])

    asyncio.run(main())
