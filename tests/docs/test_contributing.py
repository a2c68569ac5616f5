"""Every file with tests that `make test` leaves out is listed in CONTRIBUTING.md, with the reason."""

from __future__ import annotations

from pathlib import Path

from tests.docs.generated import ROOT


def test_every_file_with_long_tests_is_listed() -> None:
    listed = (ROOT / "CONTRIBUTING.md").read_text()
    files = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if path != Path(__file__) and "mark.long" in path.read_text()
    ]
    missing = [str(each.relative_to(ROOT)) for each in files if str(each.relative_to(ROOT)) not in listed]
    assert files
    assert missing == []
