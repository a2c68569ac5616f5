"""Commands whose flags are the fields of dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from likewise.cli.flags import argument, flag, refuse_empty, with_flags
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option, parse_pairs
from likewise.core.stdout import release_stdout


def numbers(texts: list[str]) -> tuple[int, ...]:
    return tuple(map(int, texts))


@dataclass(frozen=True)
class Options:
    count: int = option(3, "How many.", "--count -c N", min=1)
    size_bytes: int = option(2048, "How large.", "--size-kb", unit=1024)
    loud: bool = option(False, "Loud.", "--loud")
    near: bool = option(True, "Near.", "--near/--far")
    name: str | None = option(None, "A name.", "--name NAME")
    column: Mapping[str, str] = option(
        dict, "Pairs.", "--column A=B", parse=partial(parse_pairs, "--column", "A=B", "x=y")
    )
    rows: tuple[int, ...] = option((7,), "Rows.", "--row N", parse=numbers)
    hidden: int = option(5, "Has no flag.")


@dataclass(frozen=True)
class Other:
    count: int = option(1, "Another.", "--other")


def parse(*argv: str) -> tuple[object, ...]:
    """The arguments with which the command is called: its own parameters, and the options."""
    calls: list[tuple[object, ...]] = []

    def command(
        word: Annotated[str, argument("WORD", "A word.")],
        name: Annotated[str, flag("--title TITLE", "Not the field `name`.")] = "none",
        *,
        options: Options,
        other: Other,
    ) -> None:
        calls.append((word, name, options, other))

    result = run(command, *argv)
    assert result.exit_code == 0, result.output
    return calls[0]


def run(command: Callable[..., None], *argv: str) -> typer.testing.Result:  # type: ignore[name-defined]
    app = typer.Typer()
    app.command()(with_flags(command))
    try:
        return CliRunner().invoke(app, argv)
    finally:
        release_stdout()


def test_missing_flags_have_their_defaults() -> None:
    assert parse("w") == ("w", "none", Options(), Other())


def test_flags_set_the_fields() -> None:
    argv = ["w", "--title", "t", "-c", "4", "--size-kb", "0.5", "--loud", "--far", "--name", "n", "--other", "9"]
    argv += ["--column", "a=b", "--column", "c=d=e", "--row", "1", "--row", "2"]
    options = Options(4, 512, True, False, "n", {"a": "b", "c": "d=e"}, (1, 2))
    assert parse(*argv) == ("w", "t", options, Other(9))


def test_limits_and_help_come_from_the_fields() -> None:
    def command(options: Options) -> None: ...

    assert run(command, "--count", "0").exit_code == 2
    output = run(command, "--help").output
    assert "How many." in output
    assert "Has no flag." not in output


def test_command_may_override_a_flag() -> None:
    values: list[object] = []

    def command(
        options_rows: Annotated[str, flag("--row ONE", "Only one.")] = "0",
        *,
        options: Options,
    ) -> None:
        values.extend((options_rows, options.rows))

    assert run(command, "--row", "8").exit_code == 0
    assert values == ["8", (7,)]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["likewise", "score", ""], "'score'"),
        (["likewise", "verify", "b", "--golden", ""], "'--golden'"),
        (["likewise", "verify", "b", "--golden="], "'--golden'"),
    ],
)
def test_empty_words_are_rejected(words: list[str], named: str) -> None:
    with pytest.raises(WrongUsage, match=f"the value after {named} is empty"):
        refuse_empty(words)


def test_other_words_are_accepted() -> None:
    refuse_empty(["likewise", "deploy", "b", "-C", "capture=", "--column", "a=b=", "--column=a=", "-o", " "])


def test_invalid_value_is_rejected() -> None:
    def command(options: Options) -> None: ...

    refused = run(command, "--column", "ab").exception
    assert isinstance(refused, WrongUsage)
    assert refused.cause == "--column 'ab' does not have the form A=B, or its A is repeated"


@pytest.mark.parametrize("pairs", [["=b"], ["a"], ["a=1", "a=2"]])
def test_invalid_pairs_are_rejected(pairs: list[str]) -> None:
    with pytest.raises(WrongUsage, match=r"--p .* does not have the form A=B"):
        parse_pairs("--p", "A=B", "x=y", pairs)


def test_pairs_are_split_at_the_first_or_last_sign() -> None:
    assert parse_pairs("--p", "A=B", "x=y", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert parse_pairs("--p", "A=B", "x=y", ["a=b=c"], last=True) == {"a=b": "c"}
    with pytest.raises(WrongUsage):
        parse_pairs("--p", "A=B", "x=y", ["d="], last=True)
