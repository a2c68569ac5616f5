"""The cache of predictions: exact values, its limit, and its restoration by a replay."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batch.scoring import FunctionEngine, read, run_job, texts, write

from likewise.batch.result_cache import RowResultCache, weight
from likewise.core.results import Ok

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_cached_prediction_is_returned_unchanged(value: object) -> None:
    cache = RowResultCache()
    cache.put("k", value)
    result = cache.get("k")
    assert isinstance(result, Ok)
    assert repr(result.value) == repr(value)


@pytest.mark.parametrize(
    "value", [b"x", date(2020, 1, 2), (1, 2), {1: 2}, [{"a": (1,)}], 10**5000], ids=lambda value: type(value).__name__
)
def test_values_that_json_would_change_are_not_cached(value: object) -> None:
    cache = RowResultCache()
    cache.put("k", value)
    assert cache.get("k") is None


def test_infinity_and_nan_are_cached() -> None:
    cache = RowResultCache()
    cache.put("k", [math.inf, -math.inf, math.nan])
    assert repr(cache.get("k")) == "Ok(value=[inf, -inf, nan])"


@given(st.lists(st.tuples(st.integers(0, 30), st.text(max_size=80)), max_size=60), st.integers(200, 3000))
def test_oldest_entries_are_evicted_and_replay_restores_the_cache(rows: list[tuple[int, str]], limit: int) -> None:
    log: list[bytes] = []
    cache = RowResultCache(limit, log.append)
    expected: dict[str, str] = {}
    for key, text in rows:
        if cache.get(str(key)) is None:
            cache.put(str(key), text)
            expected.pop(str(key), None)
            expected[str(key)] = text
    total, newest = 0, set()
    for line in reversed(log):
        total += weight(line[33:-1])
        if total > limit:
            break
        newest.add(line[:32])
    known = {str(key) for key, _ in rows if cache.get(str(key)) is not None}
    assert len(known) == len(newest)
    assert all(cache.get(key) == Ok(expected[key]) for key in known)
    restored = RowResultCache(limit)
    restored.replay(log)
    assert {key for key in map(str, range(31)) if restored.get(key) is not None} == known


@pytest.mark.parametrize("pure", [True, False])
def test_equal_rows_in_different_chunks_are_scored_once(tmp_path: Path, pure: bool) -> None:
    source = write(tmp_path / "in.csv", texts(f"t{n % 100}" for n in range(1000)))
    engine = FunctionEngine(lambda row: {"text": row.get("text")}, pure=pure)
    report = run_job(source, tmp_path / "out.csv", engine=engine, window=50)
    assert sum(engine.windows) == (100 if pure else 1000)
    assert report.duplicates == (900 if pure else 0)
    assert [row["predictions"] for row in read(tmp_path / "out.csv")] == [f"t{n % 100}" for n in range(1000)]


def test_failures_are_not_cached(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", texts(["bad", "a", "bad", "b", "bad"]))
    scored: list[object] = []

    def predict(row: object) -> object:
        scored.append(row.get("text"))  # type: ignore[attr-defined]
        if scored.count("bad") == 1 and scored[-1] == "bad":
            raise ValueError("once")
        return {"text": "x"}

    report = run_job(source, tmp_path / "out.csv", predict, window=1)
    assert scored == ["bad", "a", "bad", "b"]
    assert (report.rows_ok, report.duplicates) == (4, 1)
