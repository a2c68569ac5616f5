"""Every error has a unique code and a row in docs/errors.md."""

from __future__ import annotations

from collections.abc import Iterator

from tests.docs.generated import compare

from likewise.core import errors

HEAD = """# Errors

Every failure has a code, a cause and a remedy. The command line prints them, with `--json` as
`{"error": {"code", "cause", "remedy"}}`. The body of an HTTP response is `{"error_code", "message", "remedy"}`, where
`error_code` is MLflow's code for the failure. Exit code 3 is not an error: `likewise verify` found differences.

This page is generated from `likewise.core.errors` by a test.

| code | means | HTTP | MLflow's code | exit code |
|---|---|---|---|---|
"""


def kinds(parent: type[errors.LikewiseError] = errors.LikewiseError) -> Iterator[type[errors.LikewiseError]]:
    yield parent
    for child in parent.__subclasses__():
        yield from kinds(child)


def test_every_error_is_documented() -> None:
    listed = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.LikewiseError)]
    rows = [
        f"| `{k.code}` | {(k.__doc__ or '').strip().splitlines()[0]} | {k.status} | `{k.mlflow_code}` | {k.exit_code} |"
        for k in listed
    ]
    compare("docs/errors.md", HEAD + "\n".join(rows) + "\n")


def test_codes_are_unique_and_defined_in_one_module() -> None:
    import likewise.api
    import likewise.cli  # noqa: F401

    classes = list(kinds())
    assert len({k.code for k in classes}) == len(classes)
    assert {k.__module__ for k in classes} == {errors.__name__}
