"""Stores receipts and unfinished runs of plans in one file, which several processes may use concurrently.

A run is recorded before each of its steps, so that an interrupted run can be resumed or rolled back.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from likewise.core.errors import OutputRefused
from likewise.core.private_files import make_private, own_folder

TIMEOUT_S = 10.0  # to wait for another process's transaction
TABLES = """
CREATE TABLE IF NOT EXISTS receipts (target TEXT, name TEXT, receipt TEXT NOT NULL, PRIMARY KEY (target, name));
CREATE TABLE IF NOT EXISTS runs (target TEXT, name TEXT, plan TEXT NOT NULL, outputs TEXT NOT NULL,
                                 PRIMARY KEY (target, name));
"""


def data_home() -> Path:
    """The folder for Likewise's data: `LIKEWISE_DATA_HOME`, else `likewise` in the user's data folder."""
    home = os.environ.get("LIKEWISE_DATA_HOME")
    return Path(home) if home else user_data_path("likewise")


@dataclass(frozen=True, slots=True)
class Run:
    """An unfinished run of a plan.  outputs: by id, of the steps that were started; None if not yet completed."""

    plan: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any] | None]


class Receipts:
    """The store.  Each call is a separate transaction; all raise OutputRefused if the file cannot be used."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or data_home() / "receipts.db"

    @property
    def folder(self) -> Path:
        """The folder that contains the file, created if missing; OutputRefused if others may write to it."""
        return own_folder(
            self._path.parent, remedy="set LIKEWISE_DATA_HOME to a folder that belongs to you and only you can write to"
        )

    def get(self, target: str, name: str) -> dict[str, Any] | None:
        """The receipt of a deployment as JSON, None if there is none."""
        rows = self._read("SELECT receipt FROM receipts WHERE target = ? AND name = ?", target, name)
        return rows[0][0] if rows else None

    def all(self) -> list[dict[str, Any]]:
        """All receipts as JSON, ordered by name and target."""
        return [receipt for (receipt,) in self._read("SELECT receipt FROM receipts ORDER BY name, target")]

    def unfinished(self, target: str, name: str) -> Run | None:
        """The unfinished run for this deployment, None if there is none."""
        rows = self._read("SELECT plan, outputs FROM runs WHERE target = ? AND name = ?", target, name)
        return Run(*rows[0]) if rows else None

    def record(self, target: str, name: str, run: Run) -> None:
        """Record the progress of a run."""
        row = (target, name, json.dumps(run.plan), json.dumps(run.outputs))
        with self._connected() as database:
            database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", row)

    def finish(self, target: str, name: str, receipt: Mapping[str, Any] | None, *, keep: bool = False) -> None:
        """Record the end of a run.  receipt: the new receipt, None to delete it; keep: leave the receipt unchanged."""
        with self._connected() as database:
            database.execute("DELETE FROM runs WHERE target = ? AND name = ?", (target, name))
            if keep:
                return
            database.execute("DELETE FROM receipts WHERE target = ? AND name = ?", (target, name))
            if receipt is not None:
                database.execute("INSERT INTO receipts VALUES (?, ?, ?)", (target, name, json.dumps(receipt)))

    def _read(self, query: str, *values: str) -> list[list[Any]]:
        with self._connected() as database:
            return [list(map(json.loads, row)) for row in database.execute(query, values)]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.folder / self._path.name, timeout=TIMEOUT_S)) as database:
                database.executescript(TABLES)
                make_private(self._path)  # SQLite gives its journals the same mode
                with database:  # commits, or rolls back
                    yield database
        except (OSError, sqlite3.Error) as error:
            raise OutputRefused(
                f"{self._path}: {error}",
                remedy="check the file and its folder, or set LIKEWISE_DATA_HOME to another folder",
            ) from error
