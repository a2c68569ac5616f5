"""What `import likewise` offers, and how its objects look in a console and in a notebook."""

from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.classifier import TEXTS, classifier_bundle

import likewise
from likewise import api
from likewise.batch import JobReport, Progress, ScoreOptions
from likewise.core import notebook
from likewise.core.errors import InputInvalid, Interrupted, OutputRefused, WrongUsage
from likewise.core.html_table import html_table
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.deployment import Deployment
from likewise.engine.frames import request_body
from likewise.targets.base import Receipt
from likewise.wire.decode import decode


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> api.Bundle:
    return api.open_bundle(classifier_bundle(tmp_path_factory.mktemp("api") / "bundle"))


def test_module_lists_its_names_and_version() -> None:
    assert {"bundle", "deploy", "list", "logs", "score", "verify", "__version__"} <= set(dir(likewise))
    assert likewise.__version__.count(".") >= 2
    for name in likewise.__all__:
        assert getattr(likewise, name).__doc__


def test_objects_have_a_line_in_a_console_and_a_table_in_a_notebook(bundle: api.Bundle) -> None:
    spec = ModelSpec("sha256:ab", source="models:/<b>", build="sha256:cd")
    receipt = Receipt("local", "one", spec, {}, {"start": {"url": "http://127.0.0.1:1"}}, "2026-01-01", "2026-01-02")
    report = JobReport("sha256:ab", 3, 2, 1, 0, "openvino/bf16", 1.0, 10, quarantine="<i>")
    for shown in (bundle, Deployment(receipt), report):
        line, table = repr(shown), shown._repr_html_()
        assert "\n" not in line
        assert len(line) < 250, line
        assert "<table>" in table
        assert "<b>" not in table
        assert "<i>" not in table
    assert "http://127.0.0.1:1" in repr(Deployment(receipt))
    assert "2 rows scored, 1 quarantined" in repr(report)


def test_html_is_escaped() -> None:
    assert html_table("<t>", [("<n>", "<v>")]).count("&lt;") == 3


@pytest.mark.parametrize("copied", [False, True])
def test_traceback_has_the_remedy(copied: bool) -> None:
    error = WrongUsage("the cause", remedy="the remedy")
    if copied:
        error = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert "".join(traceback.format_exception(error)).splitlines()[-2:] == [
        "likewise.core.errors.WrongUsage: the cause",
        "remedy: the remedy",
    ]


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("add --trust, or run: likewise trust X", "add trust=True, or run: likewise trust X"),
        ("use --env; or --allow-versions", "use --env; or allow_versions=True"),
        ("add --reference models:/a/1, or --trust", "add references=['models:/a/1'], or trust=True"),
        ("bundle again with --reference runs:/0/m", "bundle again with references=['runs:/0/m']"),
        ("replace it with --restart", "replace it with options=ScoreOptions(restart=True)"),
        ("use --column a=b, or not", "use column={'a': 'b'} in ScoreOptions or score_frame, or not"),
        ("--trusted-host --restarts", "--trusted-host --restarts"),
    ],
)
def test_remedies_in_tracebacks_name_arguments_in_place_of_flags(flags: str, arguments: str) -> None:
    error = WrongUsage("the cause", remedy=flags)
    assert (error.remedy, error.__notes__) == (flags, [f"remedy: {arguments}"])


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"text": TEXTS}, index=range(5, 5 + len(TEXTS))),
        pa.table({"text": TEXTS}),
        {"text": TEXTS},
    ],
    ids=["pandas", "arrow", "dict"],
)
def test_score_takes_a_table(bundle: api.Bundle, tmp_path: Path, table: Any) -> None:
    report = likewise.score(bundle, table, tmp_path / "out.csv")
    assert report.rows_ok == len(TEXTS)
    scored = pa.csv.read_csv(tmp_path / "out.csv")
    assert scored["text"].to_pylist() == list(TEXTS)
    assert not list(tmp_path.glob(".*"))


def test_interrupted_job_over_a_table_resumes(bundle: api.Bundle, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": [f"text {number}" for number in range(300)]})
    options = ScoreOptions(window=100)

    def interrupt(progress: Progress) -> None:
        if progress.rows >= 100:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        likewise.score(bundle, frame, tmp_path / "out.csv", options=options, progress=interrupt)
    seen: list[int] = []
    again = likewise.score(
        bundle, frame.copy(), tmp_path / "out.csv", options=options, progress=lambda one: seen.append(one.resumed)
    )
    assert again.rows_ok == 300
    assert min(seen) >= 100
    assert not list(tmp_path.glob(".out*"))


def test_table_that_parquet_cannot_represent_is_refused(bundle: api.Bundle, tmp_path: Path) -> None:
    for table in (pd.DataFrame({"text": ["a", 1]}), object(), pd.DataFrame([[1, 2]], columns=["a", "a"])):
        with pytest.raises(InputInvalid, match="cannot be written as Parquet"):
            likewise.score(bundle, table, tmp_path / "out.csv")
    with pytest.raises(OutputRefused, match="missing"):
        likewise.score(bundle, pd.DataFrame({"text": TEXTS}), tmp_path / "missing" / "out.csv")
    assert list(tmp_path.iterdir()) == []


SIGNATURE = Signature.parse({"inputs": json.dumps([{"type": "double", "name": name} for name in "ab"])})


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)), min_size=1))
def test_all_forms_of_a_table_are_the_same_request(rows: list[tuple[float, float]]) -> None:
    frame = pd.DataFrame(rows, columns=["a", "b"])
    forms = [frame, frame.to_dict("records"), frame.to_dict("list"), {n: frame[n].to_numpy() for n in "ab"}]
    decoded = [decode(request_body(form), "application/json", SIGNATURE) for form in forms]
    assert all(list(each.table.rows) == [*map(tuple, rows)] for each in decoded)


def test_requests_have_params_and_take_values_that_json_lacks() -> None:
    body = json.loads(request_body(np.array([[1, 2]]), {"top_k": 2}))
    assert body == {"inputs": [[1, 2]], "params": {"top_k": 2}}
    assert json.loads(request_body("text")) == {"inputs": ["text"]}
    assert json.loads(request_body({"inputs": ["text"]})) == {"inputs": ["text"]}
    assert json.loads(request_body(pd.DataFrame({"when": [pd.Timestamp("2026-01-01")], "n": [pd.NA]}))) == {
        "dataframe_split": {"columns": ["when", "n"], "data": [["2026-01-01T00:00:00", None]]}
    }
    with pytest.raises(TypeError):
        request_body([object()])


def test_no_progress_is_shown_outside_a_notebook() -> None:
    assert not notebook.in_notebook()
    assert notebook.notebook_report() is None
