"""In which group and order tests run on several workers, what ends with a group, and which targets were not seen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import pytest

FIRST = ("ray", "containers", "spark", "local", "sagemaker", "store")
"""Groups of one expensive resource, the longest first, so that no worker begins one when the others are done."""

UNSEEN = "cannot see "
"""What the reason of a skip begins with where a target needs a program that is not installed: `cannot see spark: …`."""


def group_and_order(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together unless they name a group; expensive groups come first, unit tests last."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> tuple[int, int]:
    name = _group(item)
    if name in FIRST:
        return 0, FIRST.index(name)
    return (2 if "/unit/" in item.location[0] else 1), 0


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark is not None and mark.args else ""


def ends_group(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Whether `item` is the last test of its group on this worker."""
    return following is None or _group(following) != _group(item)


def unseen(reports: Iterable[pytest.TestReport]) -> dict[str, str]:
    """By target, why it could not be tested here."""
    found = {}
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, begins, rest = reason.partition(UNSEEN)
        if begins:
            target, _, why = rest.partition(":")
            found[target] = why.strip()
    return found


def summarize(reporter: pytest.TerminalReporter) -> None:
    """Name the targets that were not tested, at the end of the run."""
    for target, why in sorted(unseen(_skipped(reporter)).items()):
        reporter.line(f"not tested on this machine: {target} ({why})", yellow=True)


def fail_where_all_must_run(session: pytest.Session) -> None:
    """CI has every program: there a target that cannot be seen fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and unseen(_skipped(reporter)) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped(reporter: pytest.TerminalReporter) -> Sequence[pytest.TestReport]:
    return reporter.stats.get("skipped", [])
