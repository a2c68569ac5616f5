"""The user's record of deployments, in one SQLite file."""

from likewise.receipts.store import Receipts, Run, data_home

__all__ = ["Receipts", "Run", "data_home"]
