"""Sends the same rows to several backends that run a model and compares their predictions."""

from likewise.parity.check import verify
from likewise.parity.compare import Difference
from likewise.parity.result import BackendParity, Parity
from likewise.parity.verify_options import VerifyOptions

__all__ = ["BackendParity", "Difference", "Parity", "VerifyOptions", "verify"]
