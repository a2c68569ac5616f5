"""Runs the conformance suite of Likewise for the target `toy`."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.testing.targets import TargetSuite, TargetUnderTest


class TestToy(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path) -> TargetUnderTest:
        """The target needs no setup."""

        def left() -> list[str]:
            commands = [(path, _read(path)) for path in Path("/proc").glob("[0-9]*/cmdline")]
            processes = [str(path) for path, command in commands if f"toy_target.process\0{data_home}" in command]
            return processes + [str(path) for path in sorted((data_home / "toy").rglob("*"))]

        return TargetUnderTest("toy", left, {"drain_linger_s": "0.2"}, integer_option="port")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has exited
        return ""
