"""Models of MLflow's flavours: rows of many callers are merged, and each caller gets plain `load_model`'s answer."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support import flavors
from tests.support.models import save_code
from tests.support.server_app import client_of

from likewise import api
from likewise.core.errors import CodeNotTrusted
from likewise.engine.engine_options import CompileOptions
from likewise.engine.plain_values import plain
from likewise.server import ServerOptions
from likewise.serving import bundle_app

UNMEASURED = CompileOptions(measure=False)
Bundles = Callable[[str], api.Bundle]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """A bundle of each model, built without trust when a test first needs it."""
    folder = tmp_path_factory.mktemp("flavors")

    @functools.cache
    def bundle(name: str) -> api.Bundle:
        saved = flavors.SAVERS[name](folder / "models" / name)
        return api.bundle(saved, folder / name, compiling=UNMEASURED if name != "xgboost" else None)

    return bundle


def all_models() -> list[Any]:
    return [
        pytest.param(
            name, marks=pytest.mark.long if name in (*flavors.LONG, "probabilities", "xgboost_classifier") else ()
        )
        for name in flavors.SAVERS
    ]


numbers = st.floats(-1e6, 1e6)
rows = st.fixed_dictionaries(
    {"a": st.none() | numbers, "b": numbers, "n": st.integers(-(2**53), 2**53)},
    optional={"extra": st.none() | st.text(max_size=3) | numbers},
)
ordered = rows.flatmap(lambda row: st.permutations(list(row.items())).map(dict))
texts = st.text(alphabet="ab !é😀", min_size=1, max_size=40)


@pytest.mark.parametrize("name", all_models())
def test_sixteen_callers_get_the_answer_for_their_own_row(name: str, bundles: Bundles) -> None:
    bundle = bundles(name)
    compiled = {"text-openvino"} if name in flavors.TEXTS else set()
    assert {entry.name for entry in bundle.manifest.engines} == {"flavor"} | compiled
    assert bundle.manifest.row_wise
    reference = mlflow.pyfunc.load_model(str(bundle.model_path))

    @settings(max_examples=8, suppress_health_check=list(HealthCheck))
    @given(st.lists(texts if name in flavors.TEXTS else ordered, min_size=16, max_size=16))
    def check(inputs: list[Any]) -> None:
        assert_equal(asyncio.run(answers(bundle, inputs)), [alone(reference, each) for each in inputs])

    check()


async def answers(bundle: api.Bundle, inputs: Sequence[Any]) -> list[object]:
    """What 16 callers at the same time get, each for a request with one row."""
    app = bundle_app(bundle, bundle.spec(), ServerOptions())
    async with client_of(app) as client:
        bodies = [{"inputs": [each]} if isinstance(each, str) else {"dataframe_records": [each]} for each in inputs]
        responses = await asyncio.gather(*(client.post("/invocations", json=body) for body in bodies))
        metrics = (await client.get("/metrics")).text
    assert {response.text for response in responses if response.status_code != 200} == set()
    batches = float(re.search(r"^likewise_batch_items_count(?:{.*})? (\S+)$", metrics, re.M)[1])  # type: ignore[index]
    assert batches < len(inputs)
    return [response.json()["predictions"][0] for response in responses]


def alone(model: Any, row: Any) -> object:
    """The answer of plain `load_model` for one row, as JSON."""
    if isinstance(row, str):
        return plain(model.predict([row]))[0]  # type: ignore[index]
    missing = {"a": math.nan} if row["a"] is None else {}
    return plain(model.predict(pd.DataFrame([{**row, **missing}])))[0]  # type: ignore[index]


def assert_equal(ours: Sequence[object], theirs: Sequence[object]) -> None:
    """Labels are equal; floats may differ by the order of summation, which depends on the number of rows."""
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(other, dict):
            assert isinstance(one, dict)
            assert one.keys() == other.keys()
            assert_equal(list(one.values()), list(other.values()))
        elif isinstance(other, int | str):
            assert one == other
        else:
            np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-5, atol=1e-6)


def test_one_line_compares_the_engine_with_plain_load_model(bundles: Bundles, tmp_path: Path) -> None:
    bundle = bundles("xgboost")
    line = api.selected(bundle)
    assert re.match(r"engine flavor/native: (\d+(\.\d)?x|as fast as) plain load_model on this kind of CPU; rows", line)
    assert line.endswith("rows of different requests are merged")
    unmeasured = api.selected(bundles("sklearn"))
    assert "not compared" in unmeasured
    assert "--measure" in unmeasured


def test_measuring_compares_with_plain_load_model(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path))
    bundle = bundles("sklearn")
    assert api.measure(bundle).rates.keys() == {"flavor/native", "load_model"}
    assert "plain load_model on this kind of CPU" in api.selected(bundle)


CODE = """
import random
import mlflow
from sklearn.base import BaseEstimator

class {name}(BaseEstimator):
    def predict(self, rows):
        return [{value} for _ in range(len(rows))]
"""
OWN_ROW = """
import mlflow

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["b"].tolist()

mlflow.models.set_model(Model())
"""


def test_a_handwritten_model_is_not_merged_unless_declared(tmp_path: Path) -> None:
    frame, _ = flavors.data()
    model = save_code(tmp_path / "model", OWN_ROW, signature=flavors.signature(), input_example=frame[:3])
    with pytest.raises(CodeNotTrusted, match="it is a hand-written pyfunc"):
        api.bundle(model, tmp_path / "refused")
    lines: list[str] = []
    bundle = api.bundle(model, tmp_path / "bundle", trust=True, compiling=UNMEASURED, report=lines.append)
    assert not bundle.manifest.row_wise
    assert any("not merged, because a hand-written pyfunc" in line for line in lines)
    assert "bundle with --row-wise" in api.selected(bundle)
    merged = api.bundle(model, tmp_path / "merged", trust=True, row_wise=True, compiling=UNMEASURED)
    assert merged.manifest.row_wise
    assert "are merged" in api.selected(merged)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("Mean", "float(rows['b'].mean())", "rows depend on each other"),
        pytest.param("Random", "random.random()", "are random", marks=pytest.mark.long),
    ],
)
def test_an_example_that_refutes_the_contract_prevents_merging(name: str, value: str, why: str, tmp_path: Path) -> None:
    """A class of the user in a pickle of scikit-learn may break the flavour's contract."""
    module = tmp_path / f"own_{name}.py"
    module.write_text(CODE.format(name=name, value=value))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        own = getattr(importlib.import_module(module.stem), name)()
        model = flavors.save(
            mlflow.sklearn, own, tmp_path / "model", serialization_format="cloudpickle", code_paths=[str(module)]
        )
    lines: list[str] = []
    first = api.bundle(model, tmp_path / "bundle", trust=True, compiling=UNMEASURED, report=lines.append)
    assert not first.manifest.row_wise
    assert any(why in line for line in lines)
    assert why in api.selected(first)
    again = api.bundle(model, tmp_path / "bundle", trust=True, compiling=UNMEASURED, report=lines.append)
    assert again.digest == first.digest
    assert lines[-1].startswith("the same bundle already exists")


@pytest.mark.long
@pytest.mark.parametrize(("name", "merged"), [("sklearn", True), ("pickled", False)])
def test_without_an_example_only_a_model_without_code_is_merged(name: str, merged: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"input_example": None, **({} if merged else {"serialization_format": "cloudpickle"})}
    model = flavors.sklearn(tmp_path / "model", **options)
    bundle = api.bundle(model, tmp_path / "bundle", trust=not merged, compiling=UNMEASURED)
    assert bundle.manifest.row_wise is merged
    assert ("without an example" in api.selected(bundle)) is not merged


@pytest.mark.long
def test_the_user_overrides_the_contract(tmp_path: Path) -> None:
    bundle = api.bundle(flavors.sklearn(tmp_path / "m"), tmp_path / "b", row_wise=False, compiling=UNMEASURED)
    assert not bundle.manifest.row_wise
    assert "--no-row-wise" in api.selected(bundle)
    assert json.loads((tmp_path / "b" / "likewise.json").read_bytes())["measured"]["rows"]["source"] == "user"
