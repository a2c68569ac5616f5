"""One model behind MLflow's own scoring app, behind our app, and called row by row: all in this process."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.utils.environment import _simulate_serving_environment
from starlette.testclient import TestClient
from tests.support.models import save_code, seal
from tests.support.processes import until

from likewise.core.engine import predict_items
from likewise.core.results import Failed
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine
from likewise.engine.pyfunc import PyfuncEngine
from likewise.server import ServedModel
from likewise.server.app import create_app
from likewise.wire import Decoder, encode

JSON = "application/json"

# The echo model returns a description per row, so it is row-wise; other input than tables is described as a whole.
ECHO = """
import datetime, math
import mlflow, numpy as np, pandas as pd, pydantic

def typed(v):
    if isinstance(v, pydantic.BaseModel):
        return {type(v).__name__: typed(v.model_dump())}
    if isinstance(v, np.ndarray):
        return {"array": v.dtype.kind, "shape": list(v.shape), "of": typed(v.tolist())}
    if isinstance(v, dict):
        return {str(k): typed(m) for k, m in v.items()}
    if isinstance(v, list):
        return [typed(e) for e in v]
    if v is None or v is pd.NaT or (isinstance(v, float) and math.isnan(v)):
        return None
    if isinstance(v, (datetime.datetime, np.datetime64)):
        return "moment " + pd.Timestamp(v).isoformat()
    if isinstance(v, np.generic):
        v = v.item()
    return f"{type(v).__name__} {v!r}"

def echo(x, params=None):
    p = typed(params or {})
    if isinstance(x, pd.DataFrame):
        return [{"frame": typed(dict(zip(map(str, x.columns), row))), "params": p}
                for row in x.itertuples(index=False, name=None)]
    if isinstance(x, np.ndarray) and x.ndim:
        rows = x.tolist() if x.ndim == 1 else list(x)
        return [{"array": x.dtype.kind, "row": typed(row), "params": p} for row in rows]
    tensors = isinstance(x, dict) and x and all(isinstance(v, np.ndarray) and v.ndim for v in x.values())
    if tensors and len({len(v) for v in x.values()}) == 1 and SIGNED:
        return [{"tensors": typed(dict(zip(x, row))), "kinds": [v.dtype.kind for v in x.values()], "params": p}
                for row in zip(*x.values())]
    if isinstance(x, list) and (SIGNED or not x):
        return [{"element": typed(e), "params": p} for e in x]
    return {"whole": typed(x), "params": p}
"""


@dataclass(frozen=True)
class Answer:
    """A status and, for 200, the JSON value, NaN and infinity as null."""

    status: int
    value: Any


class Pair:
    """The same model in MLflow's scoring app and in ours."""

    def __init__(self, folder: Path, code: str, signature: ModelSignature | None) -> None:
        model = save_code(folder / "model", code, **({} if signature is None else {"signature": signature}))
        opened = seal(folder, row_wise=False)
        self._theirs = TestClient(scoring_server.init(mlflow.pyfunc.load_model(str(model))))
        os.environ.pop("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", None)  # for MLflow's side alone
        model = ModelSpec(opened.digest, trust=True)
        engine = open_engine(opened, model)
        assert isinstance(engine, PyfuncEngine)
        self._by_row = engine
        engine._spec = replace(engine.spec, row_wise=True)
        self._decode = Decoder(opened.signature)
        served = ServedModel(name="model", digest=opened.digest, signature=opened.signature)
        self._ours = TestClient(create_app(lambda: open_engine(opened, model), served))
        self._ours.__enter__()
        until(lambda: self._ours.get("/ready").status_code == 200)

    def close(self) -> None:
        self._ours.__exit__(None, None, None)
        self._by_row.close()

    def theirs(self, body: bytes, content_type: str = JSON) -> Answer:
        with _simulate_serving_environment():
            return _answer(self._theirs.post("/invocations", content=body, headers={"Content-Type": content_type}))

    def ours(self, body: bytes, content_type: str = JSON) -> Answer:
        return _answer(self._ours.post("/invocations", content=body, headers={"Content-Type": content_type}))

    def by_row(self, body: bytes, content_type: str = JSON) -> Answer:
        """Ours, where the engine is declared row-wise."""
        call = self._decode(body, content_type)
        results = predict_items(self._by_row, call.items(True))
        failed = [result.error.cause for result in results if isinstance(result, Failed)]
        assert not failed, failed
        values = [result.value for result in results if not isinstance(result, Failed)]
        return Answer(200, json.loads(encode(call.form, values if call.by_row(True) else values[0])))


def _answer(response: Any) -> Answer:
    return Answer(
        response.status_code, normal(json.loads(response.text)) if response.status_code == 200 else response.text
    )


def normal(value: Any) -> Any:
    """NaN and infinity as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: normal(member) for key, member in value.items()}
    return [normal(element) for element in value] if isinstance(value, list) else value
