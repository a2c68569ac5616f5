"""The user's record of deployments, in one SQLite file."""

from likewise.receipts.store import Receipts, Record, Run, data_home

__all__ = ["Receipts", "Record", "Run", "data_home"]
