"""`likewise verify` with a deployment, a URL, batch jobs and plain MLflow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import call
from tests.support.models import upper_bundle
from tests.support.processes import likewise

from likewise import deployments


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {mark: upper_bundle(folder / mark, f"{mark}:") for mark in ("one", "two")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a new user."""
    folder = tmp_path_factory.mktemp("home")
    homes = {f"LIKEWISE_{name}_HOME": str(folder / name.lower()) for name in ("DATA", "CACHE", "CONFIG")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in homes.items():
            patch.setenv(name, value)
        yield {**os.environ, **homes}


@pytest.fixture(scope="module")
def one(
    home: Mapping[str, str], models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """URL and token file of the deployment `one` on the target local."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("# of this test\nkept-to-itself\n")
    options = {"token_file": str(token)}
    receipt = deployments.deploy(models["one"], "local", "one", options, trust=True)
    yield str(receipt.output("url")), token
    deployments.delete("one")


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.csv"
    path.write_text('id,text\n1,fine\n2,bad row\n3,\n4,"a, b"\n')
    return path


def verified(home: Mapping[str, str], *words: object, code: int = 0) -> dict[str, Any]:
    """The JSON output of `likewise verify … --json`, which must exit with `code`."""
    done = call("verify", *map(str, words), "--json", env=home)
    assert done.returncode == code, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def test_all_backends_agree_and_refuse_the_same_row(
    home: dict[str, str], models: dict[str, Path], one: tuple[str, Path], golden: Path
) -> None:
    address, token = one
    backends = ["one", "one@local", address, f"{address}/invocations", "local", "spark", "mlflow"]
    against = [word for where in backends for word in ("--against", where)]
    options = ["--golden", golden, "--token-file", token, "--trust", "--json"]
    # in a separate process, so that Spark does not stay in this one
    parity = json.loads(likewise("verify", models["one"], *against, *options, env=home).stdout)
    assert parity["agrees"]
    assert [each["where"] for each in parity["places"]] == backends
    for each in parity["places"]:
        counts = {name: each[name] for name in ("rows", "same", "close", "differ", "refused")}
        assert counts == {"rows": 4, "same": 4, "close": 0, "differ": 0, "refused": 1}, each
        assert each["bundle"] == (None if each["where"] == "mlflow" else parity["bundle"]), each


def test_different_model_exits_with_code_3(
    home: dict[str, str], models: dict[str, Path], one: tuple[str, Path], golden: Path
) -> None:
    parity = verified(home, models["two"], "--against", "one", "--golden", golden, "--trust", code=3)
    (backend,) = parity["places"]
    assert (parity["agrees"], backend["differ"], backend["refused"]) == (False, 3, 1)
    assert backend["bundle"] != parity["bundle"]
    assert backend["first"][0] == {"row": 0, "here": "two:FINE", "there": "one:FINE"}
    plain = call("verify", models["two"], "--against", "one", "--trust", "--golden", golden, env=home)
    assert plain.returncode == 3
    assert plain.stdout.split("\t")[:6] == ["one", "DIFFERS", f"{backend['bundle'][:19]}…", "1", "0", "3"]
    assert "one, row 0: one:FINE" in plain.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--against", "nobody"], "NOT_DEPLOYED", "nobody"),
        (["--against", "http://127.0.0.1:9"], "TARGET_UNAVAILABLE", "127.0.0.1:9"),
        (["--against", "URL"], "DEPLOY_FAILED", "responded with status 401"),
        (["--against", "one", "--golden", "gone.csv"], "INPUT_NOT_FOUND", "gone.csv"),
        (["--against", "URL", "--token-file", "gone"], "WRONG_USAGE", "gone"),
    ],
)
def test_failing_comparison_is_an_error(
    home: dict[str, str],
    models: dict[str, Path],
    one: tuple[str, Path],
    golden: Path,
    words: list[str],
    code: str,
    text: str,
) -> None:
    arguments = [one[0] if word == "URL" else word for word in words]
    arguments += [] if "--golden" in arguments else ["--golden", str(golden)]
    error = verified(home, models["one"], *arguments, "--trust", code=2 if code == "WRONG_USAGE" else 1)["error"]
    assert error["code"] == code
    assert text in json.dumps(error)


def test_plain_mlflow_needs_trust(home: dict[str, str], models: dict[str, Path], golden: Path) -> None:
    error = verified(home, models["one"], "--against", "mlflow", "--golden", golden, code=1)["error"]
    assert error["code"] == "CODE_NOT_TRUSTED"


def test_model_without_example_needs_a_golden_set(home: dict[str, str], models: dict[str, Path]) -> None:
    error = verified(home, models["one"], "--against", "local", "--trust", code=2)["error"]
    assert "--golden" in error["remedy"]
