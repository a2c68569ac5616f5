"""What `likewise doctor` shows on terminals of different widths and in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from likewise.cli import machine
from likewise.cli.screen import Screen
from likewise.doctor import MachineFinding

FOUND = "/home/someone/projects/reviews/.venv/bin/python"
REMEDY = "apt-get install docker-registry, or set REGISTRY"


@pytest.fixture(autouse=True)
def findings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [MachineFinding("docker-registry", "ok", FOUND), MachineFinding("moto", "missing", "not found", REMEDY)]
    monkeypatch.setattr(machine, "examine", lambda: found)


@pytest.mark.parametrize("width", [80, 140])
def test_findings_and_remedies_are_not_cut(width: int) -> None:
    screen = Screen()
    screen.out = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    machine.doctor(screen)
    lines = screen.out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    assert lines[2].split() == ["✓", "docker-registry", FOUND]
    assert lines[4].strip() == f"→ {REMEDY}"


def test_a_pipe_has_a_column_for_remedies(capsys: pytest.CaptureFixture[str]) -> None:
    machine.doctor(Screen())
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["", "found", "how to fix"]
    assert rows == [["✓ docker-registry", FOUND, ""], ["– moto", "not found", REMEDY]]
