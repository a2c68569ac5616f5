"""Input examples of every kind reach the model as `mlflow.pyfunc.load_model(…).predict` passes them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from mlflow.models.utils import _save_example
from scipy.sparse import csc_matrix, csr_matrix
from tests.support.models import save_code, seal
from tests.support.server_app import client_of

from likewise import api
from likewise.builder.prove import _whole
from likewise.core.results import Ok
from likewise.engine.example import predict_example, read_example
from likewise.engine.pyfunc import load_pyfunc
from likewise.engine.vendored import VendoredFiles
from likewise.server import ServerOptions
from likewise.serving import bundle_app

pytestmark = pytest.mark.slow

CODE = """
import mlflow
import numpy as np
import pandas as pd

def shown(value):
    if isinstance(value, dict):
        return {str(name): shown(each) for name, each in value.items()}
    if isinstance(value, pd.DataFrame):
        return ["frame", list(map(repr, value.columns)), list(map(str, value.dtypes)), repr(value.values.tolist())]
    if isinstance(value, np.ndarray):
        return ["array", str(value.dtype), repr(value.tolist())]
    if hasattr(value, "toarray"):
        return [type(value).__name__, str(value.dtype), repr(value.toarray().tolist())]
    return [type(value).__name__, repr(value)]

class Shows(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return {"shown": shown(model_input), "params": params}

mlflow.models.set_model(Shows())
"""
FLOATS = np.arange(6, dtype="float32").reshape(2, 3)
EXAMPLES: dict[str, Any] = {
    "arrays by name": {"a": FLOATS, "b": np.arange(2)},
    "arrays of other lengths": {"a": FLOATS, "b": np.arange(5)},
    "array of one dimension": np.arange(3),
    "array of two dimensions": FLOATS,
    "array of four dimensions": np.arange(16.0).reshape(2, 2, 2, 2),
    "array of texts": np.array(["a", "b"]),
    "csr": csr_matrix(FLOATS),
    "csc": csc_matrix(FLOATS),
    "list": ["a", "b"],
    "nested list": [[1, 2], [3, 4]],
    "text": "text",
    "number": 1.5,
    "dict of scalars": {"a": 1, "b": "x"},
    "dict of lists": {"a": [1, 2], "b": ["x", "y"]},
    "records": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
    "nested records": [{"a": {"b": [1, 2]}}],
    "messages": {"messages": [{"role": "user", "content": "hello"}]},
    "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "frame of an array": pd.DataFrame(FLOATS),
    "Series": pd.DataFrame(pd.Series([1, 2], name="a")),
    "params": (pd.DataFrame({"a": [1, 2]}), {"p": 3}),
}
LOST = {"nested list"}  # MLflow itself refuses what it reads back, if the model has a signature
RETYPED = {"csr", "csc"}  # it reads them back as doubles


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_code(tmp_path_factory.mktemp("shows") / "model", CODE)


@pytest.fixture(params=[(name, signed) for name in EXAMPLES for signed in (False, True)], ids=str)
def logged(request: pytest.FixtureRequest, plain: Path, tmp_path: Path) -> Iterator[tuple[str, bool, Path]]:
    """The name of an example, whether its model is signed, and the model's folder."""
    name, signed = request.param
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    model = Model.load(str(folder))
    data, params = EXAMPLES[name] if isinstance(EXAMPLES[name], tuple) else (EXAMPLES[name], None)
    if signed or params:
        model.signature = infer_signature(data, params=params)
    _save_example(model, EXAMPLES[name], str(folder))
    model.save(str(folder / "MLmodel"))
    return name, bool(signed or params), folder


def test_example_is_passed_as_plain_mlflow_does(logged: tuple[str, bool, Path]) -> None:
    name, signed, folder = logged
    meta = Model.load(str(folder))
    data = meta.load_input_example(str(folder))
    model = mlflow.pyfunc.load_model(str(folder))
    params = meta.load_input_example_params(str(folder))
    if signed and name in RETYPED:
        data = data.astype("float32")
    example = read_example(folder)
    assert example is not None
    predict_example(load_pyfunc(folder, VendoredFiles({}), str(folder)), example)
    seal(folder.parent, row_wise=False)
    with api.open_bundle(folder.parent, trust=True) as bundle:
        result = _whole(bundle.engine(), example)
        assert isinstance(result, Ok)
        if signed and name in LOST:
            with pytest.raises(MlflowException, match="enforce schema"):
                model.predict(data)
            assert result.value["shown"][0] == "frame"  # type: ignore[index]
        else:
            assert result.value == model.predict(data, params=params)
        ready, status, text = asyncio.run(_served(bundle, (folder / "serving_input_example.json").read_bytes()))
    assert (ready, status) == (200, 200), text


async def _served(bundle: api.Bundle, body: bytes) -> tuple[int, int, str]:
    """The statuses of a server's readiness, which includes its warm-up on the example, and of the same request."""
    async with client_of(bundle_app(bundle, bundle.spec(), ServerOptions(port=0, in_process=True))) as client:
        ready = await client.get("/ready")
        response = await client.post("/invocations", content=body, headers={"content-type": "application/json"})
        return ready.status_code, response.status_code, response.text


def test_columns_that_are_named_by_numbers_reach_the_model_from_every_form(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "model")
    model = Model.load(str(tmp_path / "model"))
    model.signature = infer_signature(pd.DataFrame(FLOATS))
    model.save(str(tmp_path / "model" / "MLmodel"))
    expected = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(pd.DataFrame(FLOATS))["shown"]
    seal(tmp_path, row_wise=False)
    bodies = [
        {"dataframe_split": {"data": FLOATS.tolist()}},
        {"dataframe_split": {"columns": [0, 1, 2], "data": FLOATS.tolist()}},
        {"dataframe_split": {"columns": ["0", "1", "2"], "data": FLOATS.tolist()}},
        {"dataframe_records": [dict(zip("012", row, strict=True)) for row in FLOATS.tolist()]},
        {"inputs": {name: FLOATS[:, at].tolist() for at, name in enumerate("012")}},
    ]

    async def answers(bundle: api.Bundle) -> list[Any]:
        async with client_of(bundle_app(bundle, bundle.spec(), ServerOptions(port=0, in_process=True))) as client:
            responses = [await client.post("/invocations", json=body) for body in bodies]
            csv = "0,1,2\n" + "\n".join(",".join(map(str, row)) for row in FLOATS.tolist())
            responses.append(await client.post("/invocations", content=csv, headers={"content-type": "text/csv"}))
            return [response.json()["predictions"]["shown"] for response in responses]

    with api.open_bundle(tmp_path, trust=True) as bundle:
        assert asyncio.run(answers(bundle)) == [expected] * (len(bodies) + 1)
