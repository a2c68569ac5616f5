"""What the command line shows of deployments on a terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from likewise.cli.answers import unfolded
from likewise.cli.operations import LISTED, _age
from likewise.cli.screen import Screen
from likewise.core.stdout import release_stdout

INNER = json.dumps({"score": 0.9, "label": "positive", "more": json.dumps([1, {"a": None}])})


@pytest.mark.parametrize(
    ("response", "header", "rows"),
    [
        ({"predictions": ["1:A", 2.5]}, ["prediction"], [["1:A"], ["2.5"]]),
        ({"predictions": [INNER]}, ["label", "score", "more"], [["positive", "0.9", '[1, {"a": null}]']]),
        ({"predictions": [{"x": 1}, {"Label": "b"}]}, ["Label", "x"], [["", "1"], ["b", ""]]),
        ({"predictions": {"x": [1, 2], "y": ["a", "b"]}}, ["x", "y"], [["1", "a"], ["2", "b"]]),
        (["{not JSON"], ["prediction"], [["{not JSON"]]),
    ],
)
def test_answer_is_unfolded_to_a_line_per_row(response: object, header: list[str], rows: list[list[str]]) -> None:
    table = unfolded(json.dumps(response))
    assert table is not None
    assert ([*table[0]], [[*row] for row in table[1]]) == (header, rows)


@pytest.mark.parametrize("text", ["not JSON", '{"outputs": []}', '{"predictions": {"a": [1], "b": 2}}', "3"])
def test_other_answers_stay_as_they_are(text: str) -> None:
    assert unfolded(text) is None


@pytest.mark.parametrize("width", [40, 80, 120, 250])
def test_listed_deployments_take_one_line_each_at_every_width(width: int) -> None:
    screen = Screen()
    screen.out = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    url = "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/reviews/invocations"
    first = [
        "reviews",
        "ready",
        "3 h",
        "http://127.0.0.1:41234",
        "models:/sentiment/6",
        "openvino/fp32",
        "local",
        "",
        "sha256:1",
    ]
    second = ["sentiment-eu", "unreachable", "12 d", url, "", "", "sagemaker:/eu-west-1", "1 x ml.m5", "sha256:2"]
    rows = [first, second]
    screen.table("Deployments", list(LISTED), rows, whole=len(LISTED))
    lines = screen.out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    assert ("http://127.0.0.1:41234" in lines[2]) == (width > 40)
    assert ("models:/s" in lines[2]) == (width > 40)
    assert ("models:/sentiment/6" in lines[2]) == (width > 80)
    assert ("sha256" in lines[2]) == (width == 250)
    assert "unreachable" in lines[3]


@pytest.mark.parametrize("width", [80, 140])
def test_rows_of_an_answer_take_one_line_each(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.out = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    names = ["label", "text", "説明", *(f"score {number}" for number in range(40))]
    rows = [["positive", "line one\nline two " * 30, "長" * 200, *(["0.123456789012"] * 40)]] * 2
    screen.table("", names, rows, whole=1)
    lines = screen.out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len([line for line in lines if line.strip()]) == 3
    assert max(map(cell_len, lines)) <= width
    assert "positive" in lines[-1]
    shown = 1 + lines[-1].count("…")
    assert shown >= width // 10
    assert f"and {43 - 5 - shown} more" in " ".join(capsys.readouterr().err.split())


def test_a_single_text_gets_the_whole_width() -> None:
    screen = Screen()
    screen.out = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    screen.table("", ["prediction"], [["word " * 50]], whole=1)
    assert max(map(len, screen.out.file.getvalue().splitlines())) == 80  # type: ignore[attr-defined]


def test_a_pipe_gets_the_header_and_complete_cells(capsys: pytest.CaptureFixture[str]) -> None:
    release_stdout()  # an earlier test may have reserved its own
    Screen().table("Title", ["name", "text"], [["a", "word " * 100]], whole=1)
    Screen().table("Title", ["", ""], [["a", "b"]])
    assert capsys.readouterr().out == f"name\ttext\na\t{'word ' * 100}\na\tb\n"


def test_ages_have_one_unit() -> None:
    assert [_age(seconds) for seconds in (None, 0, 59, 61, 3600 * 47, 86400 * 3)] == [
        *("", "0 s", "59 s", "1 min", "47 h", "3 d")
    ]
