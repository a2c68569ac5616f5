"""Answers remembered over a whole job, within a bound, and the same again after a replay."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batch.scoring import FunctionEngine, read, run_job, texts, write

from likewise.batch.result_cache import ResultCache, weight
from likewise.core.results import Ok

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_an_answer_comes_back_as_it_was(value: object) -> None:
    answers = ResultCache()
    answers.put("k", value)
    found = answers.get("k")
    assert isinstance(found, Ok)
    assert repr(found.value) == repr(value)


@pytest.mark.parametrize(
    "value", [b"x", date(2020, 1, 2), (1, 2), {1: 2}, [{"a": (1,)}], 10**5000], ids=lambda value: type(value).__name__
)
def test_what_json_would_change_is_not_kept(value: object) -> None:
    answers = ResultCache()
    answers.put("k", value)
    assert answers.get("k") is None


def test_infinity_and_nan() -> None:
    answers = ResultCache()
    answers.put("k", [math.inf, -math.inf, math.nan])
    found = answers.get("k")
    assert repr(found) == "Ok(value=[inf, -inf, nan])"


@given(st.lists(st.tuples(st.integers(0, 30), st.text(max_size=80)), max_size=60), st.integers(200, 3000))
def test_the_oldest_go_first_and_a_replay_of_the_last_is_the_same(rows: list[tuple[int, str]], limit: int) -> None:
    log: list[bytes] = []
    answers = ResultCache(limit, log.append)
    kept: dict[str, str] = {}
    for key, text in rows:
        if answers.get(str(key)) is None:
            answers.put(str(key), text)
            kept.pop(str(key), None)
            kept[str(key)] = text
    total, newest = 0, set()
    for line in reversed(log):
        total += weight(line[33:-1])
        if total > limit:
            break
        newest.add(line[:32])
    known = {str(key) for key, _ in rows if answers.get(str(key)) is not None}
    assert len(known) == len(newest)
    assert all(answers.get(key) == Ok(kept[key]) for key in known)
    again = ResultCache(limit)
    again.replay(log)
    assert {key for key in map(str, range(31)) if again.get(key) is not None} == known


@pytest.mark.parametrize("pure", [True, False])
def test_equal_rows_far_apart_are_scored_once(tmp_path: Path, pure: bool) -> None:
    source = write(tmp_path / "in.csv", texts(f"t{n % 100}" for n in range(1000)))
    engine = FunctionEngine(lambda row: {"text": row.get("text")}, pure=pure)
    report = run_job(source, tmp_path / "out.csv", engine=engine, window=50)
    assert sum(engine.windows) == (100 if pure else 1000)
    assert report.duplicates == (900 if pure else 0)
    assert [row["predictions"] for row in read(tmp_path / "out.csv")] == [f"t{n % 100}" for n in range(1000)]


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", texts(["bad", "a", "bad", "b", "bad"]))
    met: list[object] = []

    def answer(row: object) -> object:
        met.append(row.get("text"))  # type: ignore[attr-defined]
        if met.count("bad") == 1 and met[-1] == "bad":
            raise ValueError("once")
        return {"text": "x"}

    report = run_job(source, tmp_path / "out.csv", answer, window=1)
    assert met == ["bad", "a", "bad", "b"]
    assert (report.rows_ok, report.duplicates) == (4, 1)
