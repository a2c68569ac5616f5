"""Computations of the benchmarks: FLOP, fractions, memory of process families, environments, the report."""

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


def test_flop_counts_the_matrix_products() -> None:
    tiny = Encoder(hidden=2, ffn=3, layers=1)
    projections, feed_forward, attention = 4 * (5 * 2 * 2), 2 * (5 * 2 * 3), 2 * (5 * 5 * 2)
    assert tiny.flop(5) == 2 * (projections + feed_forward + attention)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=20))
def test_mean_flop_is_between_the_shortest_and_the_longest_text(tokens: list[int]) -> None:
    assert MINI.flop(min(tokens)) <= MINI.mean_flop(tokens) * (1 + 1e-12)
    assert MINI.mean_flop(tokens) <= MINI.flop(max(tokens)) * (1 + 1e-12)


def test_share_compares_with_the_best_rate_in_the_engines_precision() -> None:
    before = {"fp32": {"512": 10.0, "3296": 20.0}, "bf16": {"512": 150.0, "3296": 50.0}}
    after = {"fp32": {"512": 40.0, "3296": 20.0}, "bf16": {"512": 30.0, "3296": 250.0}}
    assert share(5.0, 2.0, "openvino/bf16+fp32", [before, after]) == pytest.approx(10 / 200)
    assert share(5.0, 2.0, "torch/fp32", [before, after]) == pytest.approx(10 / 30)


@pytest.mark.parametrize("dialect", [MLFLOW, RAY, LIT, BENTO, V2], ids=lambda dialect: str(dialect.name))
@given(text=st.text())
def test_every_dialect_sends_the_text_and_finds_the_label(dialect: Dialect, text: str) -> None:
    assert text in _strings(json.loads(dialect.body(text)))
    response: object = json.dumps({"response": {"prediction_label": ["positive"]}})
    for step in reversed(dialect.place):
        response = {step: response} if isinstance(step, str) else [response]
    assert dialect.label(json.dumps(response).encode()) == "positive"


def test_memory_of_a_family_counts_grandchildren_of_other_groups() -> None:
    code = (
        "import subprocess, sys; inner = 'import sys; print(1, flush=True); sys.stdin.read()';"
        "subprocess.run([sys.executable, '-c', inner], start_new_session=True)"
    )
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == b"1\n"
        members = family(outer.pid)
        assert outer.pid in members
        assert len(members) == 2
        assert all(0 < proportional_mb(pid) <= resident_mb(pid) for pid in members)
        outer.communicate(b"")


def test_environment_is_reused_until_its_requirements_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    commands: list[tuple[str, ...]] = []

    def run(*argv: str) -> None:
        commands.append(argv)
        (tmp_path / "some" / "bin").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "_run", run)
    python = environments.python_of("some", "a==1", ["a==1"])
    assert [argv[1:3] for argv in commands] == [("-m", "venv"), ("-m", "pip")]
    assert commands[1][0] == str(python)
    environments.python_of("some", "a==1", ["a==1"])
    assert len(commands) == 2
    (tmp_path / "some" / "old").touch()
    environments.python_of("some", "a==2", ["a==2"])
    assert len(commands) == 4
    assert not (tmp_path / "some" / "old").exists()


@pytest.mark.slow
def test_failed_installation_is_reported_and_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    with pytest.raises(SystemExit, match="no-such-distribution"):
        environments.python_of("some", "x", ["--no-index", "no-such-distribution"])
    assert not (tmp_path / "some" / environments.STAMP).exists()


def test_report_ranks_contenders_and_lists_errors(tmp_path: Path) -> None:
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
    assert "Broken does not respond:\n\n    HTTP Error 500\n    ValueError: no\n" in text
    drawn = plot.read_text()
    assert all(word in drawn for word in ("likewise serve", "Slow", "15 ms", "1.50 s", "32 connections"))


def _strings(value: object) -> list[object]:
    if isinstance(value, dict):
        return [each for one in value.values() for each in _strings(one)]
    if isinstance(value, list):
        return [each for one in value for each in _strings(one)]
    return [value]
