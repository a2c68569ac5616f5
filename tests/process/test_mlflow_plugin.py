"""MLflow's own command line and Python API over our targets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException

from likewise.mlflow_plugins.client import target_of

MLFLOW = [sys.executable, "-m", "mlflow"]
FRAME = pd.DataFrame({"text": ["one", "two"]})


CODE = """
import mlflow

class Upper(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input.map(lambda text: text.upper() + "WORD")

mlflow.models.set_model(Upper())
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two versions of a model, as folders."""
    folder = tmp_path_factory.mktemp("models")
    for word in ("!", "?"):
        code = folder / f"code{ord(word)}.py"
        code.write_text(CODE.replace("WORD", word))
        mlflow.pyfunc.save_model(
            folder / f"upper{word}",
            python_model=str(code),
            signature=mlflow.models.infer_signature(FRAME, FRAME),
            input_example=FRAME,
            pip_requirements=[f"mlflow=={mlflow.__version__}"],
            metadata={"likewise": {"row_wise": True}},
        )
    return [str(folder / "upper!"), str(folder / "upper?")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user of their own; what they leave deployed is taken down."""
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"LIKEWISE_{name}_HOME", str(tmp_path / name.lower()))
    yield tmp_path
    client = get_deploy_client("likewise:/local")
    for each in client.list_deployments():
        client.delete_deployment(each["name"])


def cli(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MLFLOW, "deployments", *argv], capture_output=True, text=True, timeout=240)


def said(*argv: str) -> str:
    done = cli(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_verbs_of_mlflows_command_line(home: Path, models: list[str]) -> None:
    there = ("-t", "likewise:/local")
    assert "upper is created" in said("create", *there, "-m", models[0], "--name", "upper", "-C", "deadline_s=30")
    assert "upper" in said("list", *there)
    assert "deadline_s" in said("get", *there, "--name", "upper")
    frame = home / "frame.json"
    frame.write_text(FRAME.to_json())  # as MLflow's command reads one
    assert json.loads(said("predict", *there, "--name", "upper", "--input-path", str(frame))) == {
        "text": {"0": "ONE!", "1": "TWO!"}
    }
    said("update", *there, "--name", "upper", "-m", models[1])
    out = home / "out.json"
    said("predict", *there, "--name", "upper", "--input-path", str(frame), "--output-path", str(out))
    assert json.loads(out.read_text()) == {"text": {"0": "ONE?", "1": "TWO?"}}
    assert "upper is deleted" in said("delete", *there, "--name", "upper")
    gone = cli("get", *there, "--name", "upper")
    assert gone.returncode != 0
    assert "upper" in gone.stderr


@pytest.mark.slow
def test_the_python_api_takes_what_the_old_plugins_users_write(home: Path, models: list[str]) -> None:
    client = get_deploy_client("likewise:/local")
    made = client.create_deployment("upper", models[0], config={"deadline_s": 20})
    assert (made["name"], made["flavor"], made["config"]["deadline_s"]) == ("upper", "python_function", 20)
    expected = pd.DataFrame({"text": ["ONE!", "TWO!"]})
    for answered in (
        client.predict(deployment_name="upper", df=FRAME),
        client.predict("upper", FRAME),
        client.predict("upper", {"text": ["one", "two"]}),
        client.predict("upper", FRAME.to_json(orient="split", index=False)),
        client.predict("upper", json.dumps({"dataframe_records": [{"text": "one"}, {"text": "two"}]})),
    ):
        pd.testing.assert_frame_equal(answered, expected, check_dtype=False)
    with pytest.raises(MlflowException) as taken:
        client.create_deployment("upper", models[0])
    assert taken.value.error_code == "RESOURCE_ALREADY_EXISTS"
    with pytest.raises(MlflowException, match="txt") as refused:
        client.predict("upper", pd.DataFrame({"txt": ["one"]}))
    assert refused.value.error_code in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
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
    ("asked", "word"),
    [
        ({"config": {"dedline_s": 1}}, "deadline_s"),
        ({"flavor": "sklearn"}, "python_function"),
        ({"endpoint": "e"}, "endpoint"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    home: Path, models: list[str], asked: dict[str, object], word: str
) -> None:
    with pytest.raises(MlflowException, match=word) as refused:
        get_deploy_client("likewise:/local").create_deployment("upper", models[0], **asked)
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_strict_trust_refuses_a_models_code(home: Path, models: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKEWISE_TRUST", "strict")
    with pytest.raises(MlflowException) as refused:
        get_deploy_client("likewise:/local").create_deployment("upper", models[0])
    assert refused.value.error_code == "PERMISSION_DENIED"


def test_help_lists_the_targets_options(home: Path) -> None:
    assert "deadline_s" in said("help", "-t", "likewise:/local")
    assert "num_replicas" in said("help", "-t", "ray-serve")


def test_a_targets_name_is_what_follows_likewise() -> None:
    assert target_of("likewise:/local") == "local"
    assert target_of("likewise:/sagemaker/eu-west-1") == "sagemaker/eu-west-1"
    assert target_of("ray-serve://head:10001") == "ray-serve://head:10001"


def test_mlflows_own_targets_stay_mlflows(home: Path) -> None:
    assert type(get_deploy_client("sagemaker:/us-west-2")).__module__ == "mlflow.sagemaker"
    assert "sagemaker" in said("help", "-t", "sagemaker")
