"""Decoding of `POST /invocations` requests and encoding of their responses; other contracts supply their own codec."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers

from likewise.core.signature import Signature
from likewise.wire import JSON, Cells, DecodedRequest, Decoder, encode
from likewise.wire.jsontext import SHOWN

RawHeaders = tuple[tuple[bytes, bytes], ...]

IGNORED = b"x-likewise-ignored-params"
NAMED = 10  # of them, each with at most as many characters as an error message shows


class Encoded(NamedTuple):
    """A response's body, content type and additional headers."""

    body: bytes
    media_type: bytes = JSON.encode()
    headers: RawHeaders = ()


Encoder = Callable[[object], Encoded]
"""Encodes the predictions of one request as its response."""

Codec = Callable[[bytes, Headers], tuple[DecodedRequest, Encoder]]
"""Maps a request's body and headers to the decoded request and its response encoder; both may run in any thread."""


def mlflow_codec(signature: Signature, cells_limit: int) -> Codec:
    """MLflow's scoring protocol: the response is JSON, in the form that matches the request."""
    decode = Decoder(signature, cells=Cells(cells_limit))

    def read(body: bytes, headers: Headers) -> tuple[DecodedRequest, Encoder]:
        call = decode(body, headers.get("content-type"))
        return call, lambda predictions: Encoded(encode(call.form, predictions))

    return read


def naming_ignored(call: DecodedRequest, response: Encoded) -> Encoded:
    """`response` with a header that has the params of `call` that were ignored, as an ASCII JSON list, if any were."""
    if not call.ignored:
        return response
    names = json.dumps([name[:SHOWN] for name in call.ignored[:NAMED]]).encode()
    return response._replace(headers=(*response.headers, (IGNORED, names)))
