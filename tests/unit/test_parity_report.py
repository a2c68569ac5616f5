"""The result of a comparison: verdicts, exit codes, bounds, and its reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from likewise.core.errors import BundleTampered, OutputRefused, WrongUsage
from likewise.parity.compare import Difference
from likewise.parity.report import HEADER, as_junit, check_paths, fragment, page, table, write
from likewise.parity.result import BackendParity, Parity, judged
from likewise.parity.verify_options import VerifyOptions
from likewise.targets.http_client import Served

ERROR = {"code": "TARGET_UNAVAILABLE", "cause": "no response", "remedy": "start it"}
UNKNOWN = Served()
HOSTILE = "<script>alert(1)</script>\x00\x1b[31m"


def place(
    where: str = "there", *, served: Served = UNKNOWN, latencies: tuple[float, ...] = (), **more: Any
) -> BackendParity:
    options = VerifyOptions(**{name: more.pop(name) for name in ("allow", "max_p99") if name in more})
    error, differences = more.pop("error", None), more.pop("differences", ())
    counts = {"rows": 100, "same": 100, "close": 0, "differ": 0, "refused": 0, "missing": 0, "largest": 0.0} | more
    return judged(
        where,
        {"bundle": served.bundle, "build": served.build, **counts, "seconds": 1.5},
        latencies,
        options,
        error,
        differences,
    )


def parity(*places: BackendParity, **more: Any) -> Parity:
    facts = {"bundle": "sha256:m", "build": "sha256:b", "engine": "torch/fp32", "golden": "golden.csv", "rows": 100}
    settings = {"tolerance": 0.02, "tolerance_of": {"score": 0.1}, "allow": 0.0, "max_p99": None, "confidence": 0.95}
    return Parity(**{**facts, **settings, "seed": 7, "places": places, **more})


DIFFERS = place(
    "other",
    same=99,
    differ=1,
    differences=[Difference(17, '{"text": "a"}', f"label{HOSTILE}", "x", HOSTILE, "Classify")],
)


@pytest.mark.parametrize(
    ("found", "verdict", "code"),
    [
        (place(), "agrees", 0),
        (DIFFERS, "differs", 3),
        (place(same=99, differ=1, allow=1.0), "agrees", 0),
        (place(same=98, differ=2, allow=1.0), "differs", 3),
        (place(rows=40, same=40, missing=60, error=ERROR), "failed", 1),
        (place(rows=40, same=39, differ=1, missing=60, error=ERROR), "failed", 3),
        (place(latencies=(0.001,) * 98 + (0.5, 0.5), max_p99=400.0), "slow", 1),
        (place(latencies=(0.001,) * 100, max_p99=400.0), "agrees", 0),
        (place(max_p99=0.001), "agrees", 0),  # a job has no requests
    ],
)
def test_verdict_and_exit_code(found: BackendParity, verdict: str, code: int) -> None:
    assert found.verdict == verdict
    assert found.agrees is (code == 0)
    allow = 1.0 if verdict == "agrees" else 0.0
    whole = parity(found, place("fine"), allow=allow)
    assert (whole.exit_code, whole.agrees) == (code, code == 0)


def test_bound_is_that_of_the_worst_backend() -> None:
    whole = parity(place(), DIFFERS)
    assert [round(each.bound, 4) for each in whole.places] == [0.0295, 0.0466]
    assert whole.bound == DIFFERS.bound
    assert place().proves(0.95) == "0 of 100 rows differ: at most 2.951 % differ, at 95 % confidence"


def test_quantiles_are_of_the_requests() -> None:
    found = place(latencies=tuple(n / 1000 for n in range(1, 101)))
    assert (found.p50_ms, found.p99_ms) == (51.0, 100.0)
    assert place(latencies=()).p99_ms is None


def test_differences_are_a_data_frame() -> None:
    frame = parity(place(), DIFFERS).differences
    assert list(frame.columns) == ["backend", "row", "given", "path", "here", "there", "step"]
    assert frame.to_dict("records")[0]["row"] == 17
    assert list(parity(place()).differences.columns) == list(frame.columns)


def test_table_names_another_build_of_the_same_model() -> None:
    shown_as = {
        Served("sha256:m", "sha256:b"): "same",
        Served("sha256:m", "sha256:c"): "same model, other build",
        Served("sha256:m"): "same model, unknown build",
        Served("sha256:n", "sha256:c"): "sha256:n…",
        Served(): "",
    }
    for served, text in shown_as.items():
        [row] = table(parity(place(served=served)))
        assert dict(zip(HEADER, row, strict=True))["bundle"] == text


def test_page_is_self_contained_and_escapes_the_models_text() -> None:
    text = page(parity(place(), DIFFERS, place("gone", rows=0, same=0, missing=100, error=ERROR)))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for outside in ("http:", "https:", "src=", "href=", "url(", "@import"):
        assert outside not in text
    for part in (
        "Not all backends agree",
        "golden.csv",
        "Classify",
        "no response",
        "start it",
        "seed 7",
        "0.1 for score",
    ):
        assert part in text
    assert "All backends agree" in fragment(parity(place()))
    assert parity(place())._repr_html_() == fragment(parity(place()))


def test_reports_of_a_comparison_that_failed_have_its_error(tmp_path: Path) -> None:
    error = BundleTampered(f"the file {HOSTILE} was modified", remedy="rebuild it")
    for name in ("r.json", "r.html"):
        write(error, tmp_path / name, tmp_path / "junit.xml")
    assert json.loads((tmp_path / "r.json").read_text()) == {"agrees": False, "error": error.as_dict()}
    html = (tmp_path / "r.html").read_text()
    assert "BUNDLE_TAMPERED: the file &lt;script&gt;" in html
    assert "<script>" not in html
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()  # noqa: S314  our own
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "1",
        "failures": "0",
        "errors": "1",
    }
    [found] = suite.findall("testcase/error")
    assert found.get("type") == "BUNDLE_TAMPERED"


def test_junit_has_a_test_case_per_backend() -> None:
    whole = parity(
        place("fine"),
        DIFFERS,
        place("gone", rows=0, same=0, missing=100, error=ERROR),
        place("late", latencies=(2.0,), max_p99=1.0),
    )
    suite = ElementTree.fromstring(as_junit(whole))  # noqa: S314  our own
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "4",
        "failures": "2",
        "errors": "1",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {"fine": [], "other": ["failure"], "gone": ["error"], "late": ["failure"]}
    assert "row 17" in (suite.findtext("testcase[@name='other']/failure") or "")


def test_reports_are_written_by_their_names(tmp_path: Path) -> None:
    whole = parity(DIFFERS)
    for name in ("r.json", "r.HTML", "junit.xml"):
        report = None if name == "junit.xml" else tmp_path / name
        check_paths(report, tmp_path / "junit.xml")
        write(whole, report, tmp_path / "junit.xml")
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["places"][0]["differences"][0]["step"] == "Classify"
    assert document["places"][0]["verdict"] == "differs"
    assert (tmp_path / "r.HTML").read_text().startswith("<!doctype html>")
    assert (tmp_path / "junit.xml").read_bytes() == as_junit(whole)
    with pytest.raises(WrongUsage, match=r"r\.txt"):
        check_paths(tmp_path / "r.txt", None)
    with pytest.raises(OutputRefused, match="no"):
        check_paths(None, tmp_path / "no" / "x.xml")
