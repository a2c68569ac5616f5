"""The cache of bundles: what a process uses stays until it exits, the rest is limited."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from likewise.core import unpack

KEEP = "import sys; from pathlib import Path; from likewise.core.unpack import keep; print(keep(Path(sys.argv[1])))"


def test_least_recently_used_entries_are_evicted_unless_a_process_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "LIMIT", 10)
    monkeypatch.setattr(sys, "_likewise_held", {}, raising=False)
    used, former, new = (tmp_path / "cache" / f"sha256-{name}" for name in ("used", "former", "new"))
    for folder in (used, former, new):
        folder.mkdir(parents=True, mode=0o775)
        (folder / "file").write_bytes(bytes(6))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", f"{KEEP}; input()", str(used)], **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        subprocess.run([sys.executable, "-c", KEEP, str(former)], check=True)
        assert unpack.keep(new, new=True)
        assert (used.is_dir(), former.is_dir(), new.is_dir()) == (True, False, True)
        other.communicate("\n")
    assert unpack.keep(new, new=True)
    assert (used.is_dir(), new.is_dir()) == (False, True)
    assert not unpack.keep(used)
