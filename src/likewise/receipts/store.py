"""Receipts and the runs of plans that made them, in one file that several processes use at once.

A run is written down before its first step and after each, so that what a killed process left half done is known.
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

PATIENCE_S = 10.0  # for another process's write
TABLES = """
CREATE TABLE IF NOT EXISTS receipts (target TEXT, name TEXT, receipt TEXT NOT NULL, PRIMARY KEY (target, name));
CREATE TABLE IF NOT EXISTS runs (target TEXT, name TEXT, plan TEXT NOT NULL, outputs TEXT NOT NULL,
                                 PRIMARY KEY (target, name));
"""


def data_home() -> Path:
    """`LIKEWISE_DATA_HOME`, else the user's data folder."""
    home = os.environ.get("LIKEWISE_DATA_HOME")
    return Path(home) if home else user_data_path("likewise")


@dataclass(frozen=True, slots=True)
class Run:
    """A plan that was begun and has not ended. outputs: of the steps that were begun; None where one gave none yet."""

    plan: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any] | None]


class Receipts:
    """The store. Each call is a transaction of its own; OutputRefused where the file cannot be used."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or data_home() / "receipts.db"

    @property
    def folder(self) -> Path:
        """Where the file lies."""
        return self._path.parent

    def get(self, target: str, name: str) -> dict[str, Any] | None:
        """The receipt of a deployment."""
        rows = self._read("SELECT receipt FROM receipts WHERE target = ? AND name = ?", target, name)
        return rows[0][0] if rows else None

    def all(self) -> list[dict[str, Any]]:
        """Every receipt, by name and target."""
        return [receipt for (receipt,) in self._read("SELECT receipt FROM receipts ORDER BY name, target")]

    def unfinished(self, target: str, name: str) -> Run | None:
        """The run that was begun for this deployment and has not ended."""
        rows = self._read("SELECT plan, outputs FROM runs WHERE target = ? AND name = ?", target, name)
        return Run(*rows[0]) if rows else None

    def note(self, target: str, name: str, run: Run) -> None:
        """How far a run is."""
        said = (target, name, json.dumps(run.plan), json.dumps(run.outputs))
        with self._connected() as database:
            database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", said)

    def end(self, target: str, name: str, receipt: Mapping[str, Any] | None, *, keep: bool = False) -> None:
        """The run has ended: `receipt` is what stands there now, None for nothing; keep: as before the run."""
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
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=PATIENCE_S)) as database:
                database.executescript(TABLES)
                with database:  # commits, or rolls back
                    yield database
        except (OSError, sqlite3.Error) as error:
            raise OutputRefused(
                f"{self._path}: {error}", remedy="check the file and its folder, or set LIKEWISE_DATA_HOME to another"
            ) from error
