"""Wire formats: bytes in, a `Table` and params out; predictions in, bytes out. Knows no HTTP and no model."""

from likewise.wire.call import DecodedRequest, Form
from likewise.wire.content import JSON, PARQUET
from likewise.wire.decode import Decoder, decode
from likewise.wire.encode import encode

__all__ = ["JSON", "PARQUET", "DecodedRequest", "Decoder", "Form", "decode", "encode"]
