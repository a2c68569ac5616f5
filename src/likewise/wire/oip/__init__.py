"""Open Inference Protocol v2 over HTTP: `infer` requests and responses, with binary tensors, and model metadata."""

from likewise.wire.oip.call import InferCall
from likewise.wire.oip.declared import model_metadata
from likewise.wire.oip.decode import HEADER_LENGTH, decode_infer
from likewise.wire.oip.encode import encode_infer

__all__ = ["HEADER_LENGTH", "InferCall", "decode_infer", "encode_infer", "model_metadata"]
