"""How `POST /invocations` reads a request and writes its answer; whoever keeps another contract brings its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers

from likewise.core.signature import Signature
from likewise.wire import JSON, DecodedRequest, Decoder, encode

RawHeaders = tuple[tuple[bytes, bytes], ...]


class Encoded(NamedTuple):
    """An answer's body, its content type and what other headers it has."""

    body: bytes
    media_type: bytes = JSON.encode()
    headers: RawHeaders = ()


Encoder = Callable[[object], Encoded]
"""From the predictions of one call to its answer."""

Codec = Callable[[bytes, Headers], tuple[DecodedRequest, Encoder]]
"""From a request's body and headers to the call, and to the encoder of its answer; both may run in any thread."""


def mlflow_codec(signature: Signature) -> Codec:
    """MLflow's scoring protocol: answered as JSON, in the form of the request."""
    decode = Decoder(signature)

    def read(body: bytes, headers: Headers) -> tuple[DecodedRequest, Encoder]:
        call = decode(body, headers.get("content-type"))
        return call, lambda predictions: Encoded(encode(call.form, predictions))

    return read
