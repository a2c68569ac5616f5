"""A pyfunc that is thread-safe is called by several threads at once; any other one by one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.models import save_code, seal

from likewise.core.engine import Engine, predict_items
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok
from likewise.engine.kinds import kind_of

pytestmark = pytest.mark.slow

THREADS = 4
CODE = """
import threading
import mlflow

class Model(mlflow.pyfunc.PythonModel):
    def __init__(self):
        self.lock, self.inside, self.most = threading.Lock(), 0, 0
        self.met = threading.Barrier(2)

    def predict(self, context, model_input, params=None):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            return [self.one(text) for text in model_input["text"]]
        finally:
            with self.lock:
                self.inside -= 1

    def one(self, text):
        if text == "meet":
            self.met.wait(60)
        if text == "most":
            return self.most
        return text.upper()

mlflow.models.set_model(Model())
"""


@contextmanager
def engine(folder: Path, **options: Any) -> Iterator[Engine]:
    save_code(folder / "bundle" / "model", CODE, **options)
    bundle = seal(folder / "bundle")
    opened = kind_of("pyfunc").open(bundle, bundle.manifest.engines[0])
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def concurrent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("concurrent"), metadata={"likewise": {"thread_safe": True}}) as opened:
        yield opened


def value(model: Engine, text: str, params: dict[str, object] | None = None) -> object:
    rows: list[Item] = [Row(("text",), (text,), params)]
    (result,) = predict_items(model, rows)
    return result.value if isinstance(result, Ok) else result


def test_thread_safe_model_is_called_at_once(concurrent: Engine) -> None:
    """Each of two calls returns only when the other one has begun."""
    assert concurrent.spec.slots >= THREADS
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda text: value(concurrent, text), ["meet", "meet"])) == ["MEET", "MEET"]


def test_only_a_thread_safe_model_stays_in_the_servers_process(tmp_path: Path) -> None:
    kind = kind_of("pyfunc")
    for name, metadata, expected in (("safe", {"likewise": {"thread_safe": True}}, False), ("other", None, True)):
        save_code(tmp_path / name / "model", CODE, metadata=metadata)
        assert kind.in_processes(seal(tmp_path / name)) is expected


@pytest.mark.parametrize(
    "options", [{}, {"metadata": {"likewise": {"thread_safe": False}}}], ids=["default", "declared"]
)
def test_other_models_are_called_one_by_one(tmp_path: Path, options: dict[str, Any]) -> None:
    with engine(tmp_path, **options) as model, ThreadPoolExecutor(THREADS) as pool:
        assert model.spec.slots == 1
        assert list(pool.map(lambda text: value(model, text), ["a"] * 100)) == ["A"] * 100
        assert value(model, "most") == 1


def test_bad_row_fails_alone(concurrent: Engine) -> None:
    rows: list[Item] = [Row(("text",), (each,)) for each in ("a", 1, "b")]
    first, bad, last = predict_items(concurrent, rows)
    assert (first, last) == (Ok("A"), Ok("B"))
    assert isinstance(bad, Failed)
