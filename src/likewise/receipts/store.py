"""Stores receipts, revisions and unfinished runs of plans in a file, which several processes may use concurrently.

A run is recorded before each of its steps, so that an interrupted run can be resumed or rolled back.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from platformdirs import user_data_path

from likewise.core.errors import OutputRefused
from likewise.core.private_files import make_private, own_folder

TIMEOUT_S = 10.0  # to wait for another process's transaction
TABLES = """
CREATE TABLE IF NOT EXISTS receipts (target TEXT, name TEXT, receipt TEXT NOT NULL, PRIMARY KEY (target, name));
CREATE TABLE IF NOT EXISTS runs (target TEXT, name TEXT, plan TEXT NOT NULL, outputs TEXT NOT NULL,
                                 PRIMARY KEY (target, name));
CREATE TABLE IF NOT EXISTS revisions (target TEXT, name TEXT, number INTEGER, revision TEXT NOT NULL,
                                      PRIMARY KEY (target, name, number));
"""
ADD_REVISION = """
INSERT INTO revisions SELECT ?1, ?2, 1 + coalesce(max(number), 0), ?3 FROM revisions WHERE target = ?1 AND name = ?2
"""
RECORDS = """
SELECT target, name, receipt, plan, outputs
FROM (SELECT target, name FROM receipts UNION SELECT target, name FROM runs)
LEFT JOIN receipts USING (target, name) LEFT JOIN runs USING (target, name) ORDER BY name, target
"""
COLUMNS = ("receipt", "plan", "outputs")


def data_home() -> Path:
    """The folder for Likewise's data: `LIKEWISE_DATA_HOME`, else `likewise` in the user's data folder."""
    home = os.environ.get("LIKEWISE_DATA_HOME")
    return Path(home) if home else user_data_path("likewise")


@dataclass(frozen=True, slots=True)
class Run:
    """An unfinished run of a plan.  outputs: by id, of the steps that were started; None if not yet completed."""

    plan: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that is stored about a deployment.

    receipt: as JSON.  run: that has not finished.  unreadable: why some of it cannot be read; empty if all of it can.
    """

    target: str
    name: str
    receipt: dict[str, Any] | None = None
    run: Run | None = None
    unreadable: str = ""


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
        """The receipt of a deployment as JSON, None if there is none that can be read."""
        return self.record_of(target, name).receipt

    def all(self) -> list[dict[str, Any]]:
        """All receipts that can be read, as JSON, ordered by name and target."""
        return [record.receipt for record in self.records() if record.receipt is not None]

    def unfinished(self, target: str, name: str) -> Run | None:
        """The unfinished run for this deployment, None if there is none that can be read."""
        return self.record_of(target, name).run

    def record_of(self, target: str, name: str) -> Record:
        """What is stored about a deployment."""
        records = (each for each in self.records() if (each.target, each.name) == (target, name))
        return next(records, Record(target, name))

    def records(self) -> list[Record]:
        """What is stored about each deployment, ordered by name and target."""
        with self._connected() as database:
            return [_record(*row) for row in database.execute(RECORDS)]

    def record(self, target: str, name: str, run: Run) -> None:
        """Record the progress of a run."""
        row = (target, name, json.dumps(run.plan), json.dumps(run.outputs))
        with self._connected() as database:
            database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", row)

    def revisions(self, target: str, name: str) -> list[tuple[int, dict[str, Any]]]:
        """Number and JSON of each revision of a deployment that can be read, the newest last."""
        query = "SELECT number, revision FROM revisions WHERE target = ? AND name = ? ORDER BY number"
        with self._connected() as database:
            rows = [(int(row[0]), _document("revision", row[1], [])) for row in database.execute(query, (target, name))]
        return [(number, document) for number, document in rows if document is not None]

    def finish(
        self,
        target: str,
        name: str,
        receipt: Mapping[str, Any] | None,
        *,
        keep: bool = False,
        revisions: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Record the end of a run.  receipt: the new receipt, None to delete it; keep: leave the receipt unchanged.

        revisions: added to the deployment's history, which is deleted with the receipt.
        """
        with self._connected() as database:
            database.execute("DELETE FROM runs WHERE target = ? AND name = ?", (target, name))
            if not keep:
                database.execute("DELETE FROM receipts WHERE target = ? AND name = ?", (target, name))
                if receipt is None:
                    database.execute("DELETE FROM revisions WHERE target = ? AND name = ?", (target, name))
                else:
                    database.execute("INSERT INTO receipts VALUES (?, ?, ?)", (target, name, json.dumps(receipt)))
            for each in revisions:
                database.execute(ADD_REVISION, (target, name, json.dumps(each)))

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.folder / self._path.name, timeout=TIMEOUT_S)) as database:
                database.text_factory = _text
                database.executescript(TABLES)
                make_private(self._path)  # SQLite gives its journals the same mode
                with database:  # commits, or rolls back
                    yield database
        except (OSError, sqlite3.Error) as error:
            raise OutputRefused(
                f"{self._path}: {error}",
                remedy="check the file and its folder, or set LIKEWISE_DATA_HOME to another folder",
            ) from error


def _record(target: object, name: object, receipt: object, plan: object, outputs: object) -> Record:
    """The record in a row of RECORDS, however damaged it is."""
    problems: list[str] = []
    documents = [
        _document(column, text, problems) for column, text in zip(COLUMNS, (receipt, plan, outputs), strict=True)
    ]
    run = None if documents[1] is None or documents[2] is None else Run(documents[1], documents[2])
    return Record(str(target), str(name), documents[0], run, "; ".join(problems))


def _document(column: str, text: object, problems: list[str]) -> dict[str, Any] | None:
    """The JSON object in a column; None if the column is empty, or is damaged, which is added to `problems`."""
    if text is None:
        return None
    try:
        document = json.loads(cast(str, text))  # a damaged file may hold anything; then this raises TypeError
        if not isinstance(document, dict):
            raise TypeError("not a JSON object")
    except (ValueError, TypeError, RecursionError) as error:
        problems.append(f"its {column} is damaged: {error}")
        return None
    return document


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
