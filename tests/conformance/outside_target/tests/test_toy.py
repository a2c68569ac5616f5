"""The target `toy` passes the suite that every target of Likewise passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.testing.targets import TargetSuite, TargetUnderTest


class TestToy(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path) -> TargetUnderTest:
        """Nothing has to be started."""

        def left() -> list[str]:
            commands = [(path, _read(path)) for path in Path("/proc").glob("[0-9]*/cmdline")]
            ours = [str(path) for path, command in commands if f"toy_target.process\0{data_home}" in command]
            return ours + [str(path) for path in sorted((data_home / "toy").rglob("*"))]

        return TargetUnderTest("toy", left, {"drain_linger_s": "0.2"}, integer_option="port")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""
