"""Flags and output of `likewise score`."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from likewise.batch import JobReport, ScoreOptions
from likewise.cli import scoring
from likewise.cli.flags import with_flags


def test_every_score_option_has_a_flag() -> None:
    parameters = inspect.signature(with_flags(scoring.score)).parameters
    for option in fields(ScoreOptions):
        name = f"options_{option.name}"
        assert name in parameters
        if option.name not in ("column", "runner_conf"):  # mappings in the options, KEY=VALUE pairs on the command line
            assert parameters[name].default == getattr(ScoreOptions(), option.name)


@pytest.mark.parametrize("row_wise", [True, False])
def test_final_table_notes_windows_of_a_model_without_independent_rows(row_wise: bool) -> None:
    report = JobReport("sha256:b", 2, 2, 0, 0, "pyfunc/as-is", 1.0, 2)
    table = " ".join(value for _, value in scoring._facts(report, "out", row_wise))
    assert ("does not declare that its rows are independent" in table) is not row_wise
