"""Models for the tests of the build, logged to a store of SQLite and files that can be moved away."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.linear_model import LogisticRegression
from tests.support.models import upper
from tests.support.processes import run

from likewise.pipeline import Pipeline, Step

SIGNATURE = ModelSignature(Schema([ColSpec("double", "x")]), Schema([ColSpec("string", "answer")]))
EXAMPLE = pd.DataFrame({"x": [1.0, -1.0]})


@dataclass
class Store:
    """A tracking store in `folder`, with a run that contains a classifier, a note and a registered version."""

    folder: Path
    tracking_uri: str
    run_id: str = ""

    @property
    def classifier(self) -> str:
        return f"runs:/{self.run_id}/classifier"

    @contextmanager
    def gone(self) -> Iterator[None]:
        """A context in which the store has been moved away."""
        away = self.folder.with_name(self.folder.name + "-moved-away")
        self.folder.rename(away)
        try:
            yield
        finally:
            away.rename(self.folder)

    def declared(self, name: str, *steps: Step) -> str:
        """Log and register a model with a declared pipeline, which does not need its own code; returns its URI."""
        likewise = {"row_wise": True, "pipeline": Pipeline(*steps, fitting=False).declaration()}
        with mlflow.start_run(run_id=self.run_id):
            mlflow.pyfunc.log_model(name=name, registered_model_name=name, metadata={"likewise": likewise}, **upper())
        MlflowClient().set_registered_model_alias(name, "champion", "1")
        return f"runs:/{self.run_id}/{name}"

    def pipeline(self, name: str, body: str, *, example: Any = EXAMPLE, **options: Any) -> str:
        """Log a pipeline from code; `body` is the body of its class. Returns its URI."""
        code = self.folder.parent / f"{name}.py"
        code.write_text(HEAD + dedent(body).replace("\n", "\n    ").rstrip() + TAIL)
        with mlflow.start_run(run_id=self.run_id):
            info = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(code),
                signature=SIGNATURE,
                pip_requirements=["mlflow"],
                **options,
            )
        if example is not None:
            add_example(self.folder, info.model_id, example)
        return f"runs:/{self.run_id}/{name}"


HEAD = """
import mlflow
import pandas as pd

class Pipeline(mlflow.pyfunc.PythonModel):
    """
TAIL = """

mlflow.models.set_model(Pipeline())
"""


def add_example(folder: Path, model_id: str, example: pd.DataFrame) -> None:
    """Like `log_model(input_example=…)`, but without running the model in this process."""
    import yaml

    model = next(folder.rglob(f"{model_id}/artifacts"))
    meta = yaml.safe_load((model / "MLmodel").read_text())
    meta["saved_input_example_info"] = {
        "artifact_path": "input_example.json",
        "pandas_orient": "split",
        "type": "dataframe",
    }
    (model / "MLmodel").write_text(yaml.safe_dump(meta))
    (model / "input_example.json").write_text(json.dumps(example.to_dict(orient="split") | {"index": None}))


def make_store(folder: Path) -> Store:
    """A store with one run; MLflow's tracking URI is set to it."""
    folder.mkdir()
    store = Store(folder, f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_tracking_uri(store.tracking_uri)
    experiment = MlflowClient().create_experiment("test", artifact_location=(folder / "mlartifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        store.run_id = run.info.run_id
        mlflow.log_text("the note\n", "notes.txt")
        mlflow.sklearn.log_model(
            LogisticRegression().fit([[1.0], [-1.0], [2.0], [-2.0]], ["up", "down", "up", "down"]),
            name="classifier",
            serialization_format="cloudpickle",
            registered_model_name="classifier",
        )
    MlflowClient().set_registered_model_alias("classifier", "champion", "1")
    return store


@pytest.fixture(scope="module")
def _one_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("build") / "store")


@pytest.fixture
def store(_one_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    monkeypatch.setenv("LIKEWISE_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    mlflow.set_tracking_uri(_one_store.tracking_uri)
    yield _one_store
    mlflow.set_tracking_uri(None)


PREDICT = """
import json, sys
from likewise.bundles.open import open_bundle
from likewise.core.items import Request, Table
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine
bundle = open_bundle(sys.argv[1])
engine = open_engine(bundle, ModelSpec(bundle.digest, trust=True))
work = engine.prepare([Request(Table(("x",), [(float(x),)])) for x in sys.argv[2:]])
results = [engine.run([each])[0] for each in work]
print("RESULTS", json.dumps([r.value[0] if hasattr(r, "value") else r.error.as_dict() for r in results]))
"""


def predict_in_new_process(bundle: Path, working_folder: Path, xs: Sequence[float] = (1.0, -1.0)) -> list[Any]:
    """The bundle's prediction for each x, or the error as a dict, computed in a process without a tracking store."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = run([sys.executable, "-c", PREDICT, bundle, *map(str, xs)], env=environment, cwd=working_folder)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULTS "))
    return list(json.loads(line.removeprefix("RESULTS ")))
