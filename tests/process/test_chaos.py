"""Hangs, crashes, kills, disconnects, slow clients and large bodies next to a hundred ordinary callers."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.scenarios.chaos import run_chaos

from likewise.testing.models import upper_bundle

HOSTILE = """word = text.partition(" ")[0]
    if word == "hang": time.sleep(3600)
    if word == "spin": sum(range(10**15))
    if word == "crash": __import__("ctypes").string_at(0)
    if word == "leave": os._exit(3)
    if word == "exit": raise SystemExit(3)
    if word == "panic": raise type("Panic", (BaseException,), {})("index out of bounds")"""
MACHINE = "p99 of ordinary requests, ratio to calm"  # depends on what else runs on the machine


@pytest.mark.parametrize("seconds", [25, pytest.param(60, marks=pytest.mark.long)])
def test_ordinary_callers_are_served_whatever_others_do(tmp_path: Path, seconds: int) -> None:
    verdict = run_chaos(upper_bundle(tmp_path / "bundle", "", predicting=HOSTILE), seconds, every_s=1.5)
    missed = [check for check in verdict.checks if not check.met and check.what != MACHINE]
    assert not missed, verdict.as_dict()
    hostile = {kind: set(str(found).split()) for kind, found in dict(verdict.figures["hostile"]).items()}  # type: ignore[call-overload]
    assert hostile["panic"] == hostile["crash"] == {"422"}
    assert hostile["hang"] == {"504"}
    assert hostile["large"] == {"200"}
