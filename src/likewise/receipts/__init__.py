"""What is deployed where: one SQLite file of this user's."""

from likewise.receipts.store import Receipts, Run, receipts_file

__all__ = ["Receipts", "Run", "receipts_file"]
