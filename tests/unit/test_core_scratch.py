"""Temporary folders: those of killed processes are removed by the next process, those in use are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from likewise.core.scratch import scratch_folder

HOLD = """
import pathlib, sys
from likewise.core.scratch import scratch_folder
with scratch_folder("mine-", pathlib.Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "mine-file").touch()
    (tmp_path / "mine-link").symlink_to(tmp_path / "other")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        (held / "content").touch()
        with scratch_folder("mine-", tmp_path) as own:
            assert own.stat().st_mode & 0o777 == 0o700
            with scratch_folder("mine-", tmp_path) as second:
                assert own.is_dir()
                assert second.is_dir()
        assert not own.exists()
        assert held.is_dir()
        process.kill()
        process.wait()
    with scratch_folder("mine-", tmp_path):
        assert not held.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"other", "mine-file", "mine-link"}
