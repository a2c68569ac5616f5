"""Groups and order of tests on several workers, and the report of targets that could not be tested."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import pytest

FIRST = ("ray", "containers", "spark", "local", "sagemaker", "store")
"""Groups that share an expensive resource, longest first, so that no worker starts one after the others finish."""

UNTESTED = "cannot test "
"""Prefix of the skip reason if a program that a target needs is not installed: `cannot test spark: …`."""


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


def untested(reports: Iterable[pytest.TestReport]) -> dict[str, str]:
    """By target, the reason why it could not be tested on this machine."""
    reasons = {}
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, prefix, rest = reason.partition(UNTESTED)
        if prefix:
            target, _, why = rest.partition(":")
            reasons[target] = why.strip()
    return reasons


def summarize(reporter: pytest.TerminalReporter) -> None:
    """List the targets that were not tested at the end of the run."""
    for target, why in sorted(untested(_skipped(reporter)).items()):
        reporter.line(f"not tested on this machine: {target} ({why})", yellow=True)


def fail_where_all_must_run(session: pytest.Session) -> None:
    """CI has every program, so an untested target fails the run there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and untested(_skipped(reporter)) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped(reporter: pytest.TerminalReporter) -> Sequence[pytest.TestReport]:
    return reporter.stats.get("skipped", [])
