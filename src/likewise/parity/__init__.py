"""The same rows through every backend where a model answers, and the answers compared."""

from likewise.parity.check import Parity, PlaceParity, verify
from likewise.parity.compare import Difference
from likewise.parity.verify_options import VerifyOptions

__all__ = ["Difference", "Parity", "PlaceParity", "VerifyOptions", "verify"]
