"""What `likewise score` takes and tells."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from likewise.batch import JobReport, ScoreOptions
from likewise.cli import serving
from likewise.cli.flags import with_flags


def test_every_option_of_a_job_is_one_of_the_command() -> None:
    taken = inspect.signature(with_flags(serving.score)).parameters
    for option in fields(ScoreOptions):
        name = f"options_{option.name}"
        assert name in taken
        if option.name not in ("column", "runner_conf"):  # mappings there, pairs here
            assert taken[name].default == getattr(ScoreOptions(), option.name)


@pytest.mark.parametrize("row_wise", [True, False])
def test_the_closing_table_says_where_a_model_was_windowed_without_its_word(row_wise: bool) -> None:
    report = JobReport("sha256:b", 2, 2, 0, 0, "pyfunc/as-is", 1.0, 2)
    told = " ".join(value for _, value in serving._facts(report, "out", row_wise))
    assert ("does not declare them independent" in told) is not row_wise
