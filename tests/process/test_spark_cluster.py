"""A standalone cluster whose executors know nothing of Likewise: the same answers, whatever is killed on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.process.spark_cluster import (
    Cluster,
    ClusterJob,
    answers_of_driver,
    below,
    children,
    cluster,
    command_of,
    kill,
)
from tests.process.spark_room import logging_bundle, predicted

from likewise import api
from likewise.batch import ScoreOptions

pytest_plugins = ("tests.process.spark_fixtures",)
pytestmark = pytest.mark.slow
ROWS, WINDOW, SLOTS = 1600, 64, 2
Victims = Callable[[Cluster], list[int]]
TEXTS = [f"movie {n} is {'good ' * (n % 9)}" for n in range(300)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as ready:
        yield ready


@dataclass
class Rows:
    """An input with bad rows in it, and what the local runner makes of it."""

    source: Path
    rows: bytes
    quarantine: list[dict[str, Any]]
    bad: int


def local_rows(folder: Path, model: api.Bundle, poison: str, rows: int) -> Rows:
    """Lines of JSON, one in a hundred no Unicode and one with the text `poison`."""
    source = folder / "in.jsonl"
    with source.open("wb") as stream:
        for row in range(rows):
            text = poison if row % 100 == 43 else f"{'word ' * (row % 40)} number {row}"
            line = json.dumps({"id": row, "text": text}).encode()
            stream.write((b"broken \xff" if row % 100 == 7 else line) + b"\n")
    report = api.score(model, source, folder / "local", options=ScoreOptions(window=WINDOW))
    return Rows(source, *output_of(folder / "local"), report.rows_quarantined)


def output_of(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    (part,) = folder.glob("part-*")
    return part.read_bytes(), pq.read_table(folder / "_quarantine.parquet").to_pylist()


def check(report: Mapping[str, Any], output: Path, rows: Rows, count: int) -> None:
    assert (report["rows_in"], report["rows_quarantined"]) == (count, rows.bad)
    assert report["rows_ok"] == count - rows.bad
    found, quarantine = output_of(output)
    assert found == rows.rows
    assert quarantine == rows.quarantine


def test_the_udf_answers_where_nothing_is_installed(made: Cluster, text_model: api.Bundle, tmp_path: Path) -> None:
    told = answers_of_driver(made, text_model.path, TEXTS, tmp_path)
    assert told["answers"] == dict(zip(TEXTS, predicted(text_model, TEXTS), strict=True))
    cache = str(made.folder / "executors-cache")
    assert told["workers"]
    for python, package in told["workers"]:
        assert python == str(made.python)
        assert package == "none" or package.startswith(cache)


def test_whatever_is_killed_at_whatever_point(made: Cluster, text_model: api.Bundle, tmp_path: Path) -> None:
    """The driver at 10, 50 and 90 %; a Python worker, an executor and a Python worker soon after each of these."""
    rows = local_rows(tmp_path, text_model, "no poison", ROWS)
    done: dict[str, int] = {}

    def begun(find: Victims | None) -> ClusterJob:
        job = ClusterJob(made, text_model.path, rows.source, tmp_path / "out", ["--window", str(WINDOW)])
        if find is not None:
            kill(job.until(lambda: find(made))[0])
        return job

    for find, share in ((None, 0.1), (python_workers, 0.5), (executors, 0.9)):
        with begun(find) as job:
            job.reach(round(share * ROWS / WINDOW))
            job.kill()
        assert not job.output.exists()
        again = {name for name, file in job.chunks.items() if done.get(name, file) != file}
        assert len(again) <= SLOTS  # those in work when the driver died: its executors lived on for a moment
        assert done.keys() <= job.chunks.keys()
        done = job.chunks
    with begun(python_workers) as job:
        check(job.report(), job.output, rows, ROWS)


def executors(made: Cluster) -> list[int]:
    return below(made, ["CoarseGrainedExecutorBackend"])


def python_workers(made: Cluster) -> list[int]:
    """The processes that run the tasks: children of a daemon of PySpark's."""
    daemons = below(made, ["pyspark.daemon"])
    forked = [pid for daemon in daemons for pid in children(daemon)]
    return forked or [pid for pid in daemons if "pyspark.worker" in command_of(pid)]


def test_a_model_of_code_answers_without_package_and_network(made: Cluster, tmp_path: Path) -> None:
    model = logging_bundle(tmp_path)
    rows = local_rows(tmp_path, model, "poison", 400)
    told = answers_of_driver(made, model.path, TEXTS, tmp_path, rows.source, tmp_path / "out")
    assert told["answers"] == {text: text.upper() for text in TEXTS}
    assert {python for python, _ in told["workers"]} == {str(made.python)}
    check(told["report"], tmp_path / "out", rows, 400)
    assert {row["code"] for row in rows.quarantine} == {"ROW_REFUSED", "MODEL_RAISED"}
