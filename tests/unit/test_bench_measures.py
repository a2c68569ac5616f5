"""What the benchmarks compute themselves: FLOP, shares, memory of process families, environments, the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench import environments, peers_report
from bench.contenders import BENTO, LIT, MLFLOW, RAY, V2, Dialect
from bench.engine_rates import share
from bench.flops import Encoder
from bench.processes import family, proportional_mb, resident_mb
from hypothesis import given
from hypothesis import strategies as st

MINI = Encoder(hidden=384, ffn=1536, layers=6)


def test_flop_of_a_text_is_that_of_its_matrix_products() -> None:
    tiny = Encoder(hidden=2, ffn=3, layers=1)
    projections, feed_forward, attention = 4 * (5 * 2 * 2), 2 * (5 * 2 * 3), 2 * (5 * 5 * 2)
    assert tiny.flop(5) == 2 * (projections + feed_forward + attention)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=20))
def test_the_mean_flop_lies_between_that_of_the_shortest_and_the_longest(tokens: list[int]) -> None:
    assert MINI.flop(min(tokens)) <= MINI.mean_flop(tokens) * (1 + 1e-12)
    assert MINI.mean_flop(tokens) <= MINI.flop(max(tokens)) * (1 + 1e-12)


def test_an_engine_is_held_against_the_best_rate_in_its_own_precision() -> None:
    before = {"fp32": {"512": 10.0, "3296": 20.0}, "bf16": {"512": 150.0, "3296": 50.0}}
    after = {"fp32": {"512": 40.0, "3296": 20.0}, "bf16": {"512": 30.0, "3296": 250.0}}
    assert share(5.0, 2.0, "openvino/bf16+fp32", [before, after]) == pytest.approx(10 / 200)
    assert share(5.0, 2.0, "torch/fp32", [before, after]) == pytest.approx(10 / 30)


@pytest.mark.parametrize("way", [MLFLOW, RAY, LIT, BENTO, V2], ids=lambda way: str(way.name))
@given(text=st.text())
def test_every_dialect_carries_the_text_and_finds_the_label(way: Dialect, text: str) -> None:
    assert text in _strings(json.loads(way.body(text)))
    answer = json.dumps({"response": {"prediction_label": ["positive"]}})
    said: object = answer
    for step in reversed(way.place):
        said = {step: said} if isinstance(step, str) else [said]
    assert way.label(json.dumps(said).encode()) == "positive"


def test_memory_of_a_family_counts_grandchildren_of_other_groups() -> None:
    code = (
        "import subprocess, sys; inner = 'import sys; print(1, flush=True); sys.stdin.read()';"
        "subprocess.run([sys.executable, '-c', inner], start_new_session=True)"
    )
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == b"1\n"
        found = family(outer.pid)
        assert outer.pid in found
        assert len(found) == 2
        assert all(0 < proportional_mb(pid) <= resident_mb(pid) for pid in found)
        outer.communicate(b"")


def test_an_environment_is_found_by_its_stamp_and_made_anew_for_other_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    ran: list[tuple[str, ...]] = []

    def run(*argv: str) -> None:
        ran.append(argv)
        (tmp_path / "some" / "bin").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "_run", run)
    python = environments.python_of("some", "a==1", ["a==1"])
    assert [argv[1:3] for argv in ran] == [("-m", "venv"), ("-m", "pip")]
    assert ran[1][0] == str(python)
    environments.python_of("some", "a==1", ["a==1"])
    assert len(ran) == 2
    (tmp_path / "some" / "old").touch()
    environments.python_of("some", "a==2", ["a==2"])
    assert len(ran) == 4
    assert not (tmp_path / "some" / "old").exists()


@pytest.mark.slow
def test_a_failed_installation_is_told_and_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    with pytest.raises(SystemExit, match="nothing-of-this-name"):
        environments.python_of("some", "x", ["--no-index", "nothing-of-this-name"])
    assert not (tmp_path / "some" / environments.STAMP).exists()


def test_the_report_ranks_names_what_failed_and_draws_every_contender(tmp_path: Path) -> None:
    figures = {
        "p50_ms": 5.0,
        "p99_ms": 1500.0,
        "failed": 0,
        "first_answer_s": 1.0,
        "peak_rss_mb": 9,
        "labels_equal": 20,
    }
    document = {
        "date": "2026-01-01",
        "machine": {"CPU": "2 cores"},
        "versions": {"python": "3.11"},
        "peers": {
            "setup": {"connections": 32, "seconds": 20.0, "rounds": 3, "labels_compared": 20},
            "engines": {"likewise serve": "openvino/bf16+fp32"},
            "medians": {"Slow": {**figures, "rps": 1.0}, "likewise serve": {**figures, "rps": 2.0, "p99_ms": 15.0}},
            "errors": {"Broken": "HTTP Error 500\nValueError: no"},
            "environments": {"slow": {"slow": "1"}},
        },
    }
    source = tmp_path / "peers.json"
    source.write_text(json.dumps(document))
    table, plot = peers_report.write(source)
    text = table.read_text()
    assert "**`likewise serve`** (openvino/bf16+fp32) | 2.0 |" in text
    assert text.index("likewise serve") < text.index("| Slow")
    assert "Broken does not answer:\n\n    HTTP Error 500\n    ValueError: no\n" in text
    drawn = plot.read_text()
    assert all(word in drawn for word in ("likewise serve", "Slow", "15 ms", "1.50 s", "32 connections"))


def _strings(value: object) -> list[object]:
    if isinstance(value, dict):
        return [each for one in value.values() for each in _strings(one)]
    if isinstance(value, list):
        return [each for one in value for each in _strings(one)]
    return [value]
