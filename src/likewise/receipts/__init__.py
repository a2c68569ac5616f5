"""What is deployed where: one SQLite file of this user's."""

from likewise.receipts.store import Receipts, Run, data_home

__all__ = ["Receipts", "Run", "data_home"]
