"""MLflow's command line and Python API with Likewise's targets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.deployments import get_deploy_client
from mlflow.deployments.cli import commands
from mlflow.exceptions import MlflowException
from tests.support.models import save_upper
from tests.support.processes import run

from likewise.mlflow_plugins.client import target_of

FRAME = pd.DataFrame({"text": ["one", "two"]})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two versions of a model, as folders: they return a table, with texts prefixed by ! and by ?."""
    folder = tmp_path_factory.mktemp("models")
    options = {"lengths": True, "input_example": FRAME, "metadata": {"likewise": {"row_wise": True}}}
    return [str(save_upper(folder / f"upper{mark}", mark, **options)) for mark in "!?"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the tests share, so that each model is bundled once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Separate data and config folders for each test; its deployments are deleted."""
    for name in ("DATA", "CONFIG"):
        monkeypatch.setenv(f"LIKEWISE_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(cache))
    yield tmp_path
    client = get_deploy_client("likewise:/local")
    for each in client.list_deployments():
        client.delete_deployment(each["name"])


def mlflow_deployments(*words: str) -> str:
    """Run `mlflow deployments WORDS` in this process; returns its stdout."""
    done = CliRunner().invoke(commands, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_mlflow_command_line_manages_deployments(home: Path, models: list[str]) -> None:
    target = ("-t", "likewise:/local")
    create = ["create", *target, "-m", models[0], "--name", "upper", "-C", "deadline_s=30"]
    assert "upper is created" in run([sys.executable, "-m", "mlflow", "deployments", *create]).stdout
    assert "upper" in mlflow_deployments("list", *target)
    assert "deadline_s" in mlflow_deployments("get", *target, "--name", "upper")
    frame = home / "frame.json"
    frame.write_text(FRAME.to_json())  # the format that MLflow's command expects
    assert json.loads(mlflow_deployments("predict", *target, "--name", "upper", "--input-path", str(frame))) == {
        "text": {"0": "!ONE", "1": "!TWO"},
        "length": {"0": 3, "1": 3},
    }
    mlflow_deployments("update", *target, "--name", "upper", "-m", models[1])
    out = home / "out.json"
    mlflow_deployments("predict", *target, "--name", "upper", "--input-path", str(frame), "--output-path", str(out))
    assert json.loads(out.read_text())["text"] == {"0": "?ONE", "1": "?TWO"}
    assert "upper is deleted" in mlflow_deployments("delete", *target, "--name", "upper")
    with pytest.raises(MlflowException, match="upper"):
        mlflow_deployments("get", *target, "--name", "upper")


def test_python_api_accepts_calls_written_for_mlflow_ray_serve(home: Path, models: list[str]) -> None:
    client = get_deploy_client("likewise:/local")
    created = client.create_deployment("upper", models[0], config={"deadline_s": 20})
    assert (created["name"], created["flavor"], created["config"]["deadline_s"]) == ("upper", "python_function", 20)
    expected = pd.DataFrame({"text": ["!ONE", "!TWO"], "length": [3, 3]})
    for predicted in (
        client.predict(deployment_name="upper", df=FRAME),
        client.predict("upper", FRAME),
        client.predict("upper", {"text": ["one", "two"]}),
        client.predict("upper", FRAME.to_json(orient="split", index=False)),
        client.predict("upper", json.dumps({"dataframe_records": [{"text": "one"}, {"text": "two"}]})),
    ):
        pd.testing.assert_frame_equal(predicted, expected, check_dtype=False)
    with pytest.raises(MlflowException) as taken:
        client.create_deployment("upper", models[0])
    assert taken.value.error_code == "RESOURCE_ALREADY_EXISTS"
    with pytest.raises(MlflowException, match="txt") as rejected:
        client.predict("upper", pd.DataFrame({"txt": ["one"]}))
    assert rejected.value.error_code in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
    client.update_deployment("upper", config={"deadline_s": 10})
    assert client.get_deployment("upper")["config"]["deadline_s"] == 10
    assert client.get_deployment("upper")["state"] == "ready"
    assert [each["name"] for each in client.list_deployments()] == ["upper"]
    client.delete_deployment("upper")
    client.delete_deployment("upper")
    with pytest.raises(MlflowException) as missing:
        client.get_deployment("upper")
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"config": {"dedline_s": 1}}, "deadline_s"),
        ({"flavor": "sklearn"}, "python_function"),
        ({"endpoint": "e"}, "endpoint"),
    ],
)
def test_invalid_arguments_are_rejected_by_name(
    home: Path, models: list[str], arguments: dict[str, object], word: str
) -> None:
    with pytest.raises(MlflowException, match=word) as rejected:
        get_deploy_client("likewise:/local").create_deployment("upper", models[0], **arguments)
    assert rejected.value.error_code == "INVALID_PARAMETER_VALUE"


def test_strict_trust_rejects_models_that_run_code(
    home: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIKEWISE_TRUST", "strict")
    with pytest.raises(MlflowException) as rejected:
        get_deploy_client("likewise:/local").create_deployment("upper", models[0])
    assert rejected.value.error_code == "PERMISSION_DENIED"


def test_help_lists_the_options_of_the_target(home: Path) -> None:
    assert "deadline_s" in mlflow_deployments("help", "-t", "likewise:/local")
    assert "num_replicas" in mlflow_deployments("help", "-t", "ray-serve")


def test_target_uri_is_the_part_after_the_scheme_likewise() -> None:
    assert target_of("likewise:/local") == "local"
    assert target_of("likewise:/sagemaker/eu-west-1") == "sagemaker/eu-west-1"
    assert target_of("ray-serve://head:10001") == "ray-serve://head:10001"


def test_built_in_targets_of_mlflow_are_not_replaced(home: Path) -> None:
    assert type(get_deploy_client("sagemaker:/us-west-2")).__module__ == "mlflow.sagemaker"
    assert "sagemaker" in mlflow_deployments("help", "-t", "sagemaker")
