"""Wire formats: decode request bodies to a `Table` and params, encode predictions. Independent of HTTP and models."""

from likewise.wire.call import DecodedRequest, Form
from likewise.wire.cells import Cells
from likewise.wire.content import JSON, PARQUET
from likewise.wire.decode import Decoder, decode
from likewise.wire.encode import encode

__all__ = ["JSON", "PARQUET", "Cells", "DecodedRequest", "Decoder", "Form", "decode", "encode"]
