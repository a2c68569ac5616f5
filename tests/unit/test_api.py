"""The Python API's bundle: trust, choice of the engine, loading and closing it."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.support.classifier import TEXTS, classifier_bundle
from tests.support.models import save_code, seal

from likewise import api
from likewise.core.engine import Engine
from likewise.core.errors import CodeNotTrusted, RowRefused
from likewise.pipeline import Pipeline
from likewise.pipeline.model import PipelineModel
from likewise.testing.models import pyfunc_bundle

CODE = """
import mlflow

class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return list(model_input["x"])

mlflow.models.set_model(Echo())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_bundle(tmp_path_factory.mktemp("api") / "bundle")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that only its own code can run."""
    bundle = tmp_path_factory.mktemp("code") / "bundle"
    save_code(bundle / "model", CODE)
    return seal(bundle).path


def test_trust_applies_to_a_single_call(code: Path) -> None:
    frame = pd.DataFrame({"x": ["a"]})
    trusted = api.open_bundle(code, trust=True)
    assert trusted.predict(frame) == ["a"]
    with pytest.raises(CodeNotTrusted):
        api.open_bundle(code).predict(frame)
    trusted.close()


@pytest.mark.parametrize("kind", ["compiled", "code"])
@pytest.mark.parametrize("data", [pd.DataFrame({"other": ["a"]}), {"other": ["a"]}])
def test_missing_column_is_named(folder: Path, tmp_path: Path, kind: str, data: object) -> None:
    bundle = folder if kind == "compiled" else pyfunc_bundle(tmp_path / "pyfunc", "")
    with api.open_bundle(bundle, trust=True) as opened, pytest.raises(RowRefused) as refused:
        opened.predict(data)
    assert refused.value.cause == "the input lacks the column 'text'; it has: other"


def test_concurrent_calls_load_one_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_engine, both, loads = api.open_engine, threading.Barrier(2), []

    def slowly(*args: Any, **kwargs: Any) -> Engine:
        loads.append(threading.get_ident())
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.5)  # a second thread that loads would arrive here, too
        return open_engine(*args, **kwargs)

    monkeypatch.setattr(api, "open_engine", slowly)
    bundle, frame, results = api.open_bundle(folder), pd.DataFrame({"text": TEXTS}), []
    threads = [threading.Thread(target=lambda: results.append(bundle.predict(frame))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(results) == 4
    bundle.close()


def test_engine_stays_loaded_until_it_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, closed = [], []
    open_engine = api.open_engine

    def watched(*args: Any, **kwargs: Any) -> Engine:
        engine = open_engine(*args, **kwargs)
        opened.append(engine)
        monkeypatch.setattr(engine, "close", lambda: closed.append(engine))
        return engine

    monkeypatch.setattr(api, "open_engine", watched)
    frame = pd.DataFrame({"text": TEXTS[:2]})
    with api.open_bundle(folder) as bundle:
        first = bundle.predict(frame)
        pd.testing.assert_frame_equal(bundle.predict(frame), first)
        assert len(opened) == 1
        assert closed == []
    assert closed == opened
    bundle.close()
    assert len(closed) == 1
    pd.testing.assert_frame_equal(bundle.predict(frame), first)
    assert len(opened) == 2


def test_empty_input_gives_the_same_result_as_mlflow(folder: Path) -> None:
    bundle = api.open_bundle(folder)
    plain = PipelineModel({})
    plain._pipeline = Pipeline.from_declaration(bundle.manifest.pipeline or {}).open(bundle.resolve)
    for frame in (pd.DataFrame({"text": []}, dtype=object), pd.DataFrame({"text": TEXTS}).iloc[:0]):
        predictions = bundle.predict(frame)
        # pandas guesses the types of columns without rows
        pd.testing.assert_frame_equal(predictions, plain.predict(None, frame), check_dtype=False)
    some = pd.DataFrame({"text": TEXTS[:3]}, index=[7, 3, 5])
    pd.testing.assert_frame_equal(bundle.predict(some), plain.predict(None, some))


def test_empty_input_of_a_model_without_named_outputs_gives_a_list(code: Path) -> None:
    with api.open_bundle(code, trust=True) as bundle:
        assert bundle.predict(pd.DataFrame({"x": []})) == []


def test_digests_depend_on_the_weights(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "same")
    classifier_bundle(tmp_path / "other", seed=2)
    one, same, other = (api.open_bundle(path) for path in (folder, tmp_path / "same", tmp_path / "other"))
    assert one.manifest.engines == other.manifest.engines
    assert (one.digest, one.build) == (same.digest, same.build)
    assert (one.digest == other.digest, one.build == other.build) == (False, False)
