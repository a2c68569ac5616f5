"""A small model of each flavor through each interface, next to plain MLflow: `pytest tests/models -k xgboost`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest
from pyspark.errors import PySparkException
from tests.models import checks, page, pyfuncs, tabular, texts
from tests.models.logged import Logged
from tests.support.shared import once_a_run

from likewise.core.errors import LikewiseError

pytest_plugins = ("tests.support.spark.fixtures",)
BY_ROW = ("score CSV", "score Parquet", "Spark")
NOT_ROWS = dict.fromkeys(BY_ROW, "no: without a signature, it takes arrays by name instead of rows")
PER_TOKEN = dict.fromkeys(BY_ROW, "no: it returns a row per token, not per text")
PER_LABEL = dict.fromkeys(BY_ROW, "no: it returns a row per label, not per text")


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    needs: libraries of the extra `zoo`.  quick: whether `make test` tries it.  why: cells that are refused, and why.
    """

    make: Callable[[], Logged]
    needs: tuple[str, ...] = ()
    quick: bool = False
    why: Mapping[str, str] = field(default_factory=dict)


ZOO = {
    entry.make.__name__.replace("_", " "): entry
    for entry in (
        Entry(tabular.sklearn_classifier, quick=True),
        Entry(tabular.sklearn_probabilities),
        Entry(tabular.sklearn_text),
        Entry(tabular.sklearn_array),
        Entry(tabular.sklearn_sparse),
        Entry(tabular.sklearn_unsigned),
        Entry(tabular.sklearn_numbered_columns),
        Entry(tabular.xgboost_classifier),
        Entry(tabular.xgboost_booster),
        Entry(tabular.lightgbm_booster, needs=("lightgbm",)),
        Entry(tabular.catboost_classifier, needs=("catboost",)),
        Entry(tabular.statsmodels_ols, needs=("statsmodels",)),
        Entry(tabular.onnx_sklearn, quick=True),
        Entry(tabular.onnx_sklearn_unsigned, why=NOT_ROWS),
        Entry(texts.onnx_text),
        Entry(texts.onnx_text_unsigned, why=NOT_ROWS),
        Entry(tabular.keras_classifier, needs=("keras",)),
        Entry(tabular.torch_tabular),
        Entry(tabular.torch_images),
        Entry(texts.transformers_text_classification),
        Entry(texts.transformers_token_classification),
        Entry(texts.transformers_feature_extraction, why=PER_TOKEN),
        Entry(texts.transformers_fill_mask),
        Entry(texts.transformers_text_generation),
        Entry(texts.transformers_zero_shot, why=PER_LABEL),
        Entry(texts.sentence_transformers_signed, needs=("sentence_transformers",)),
        Entry(texts.sentence_transformers_unsigned, needs=("sentence_transformers",)),
        Entry(pyfuncs.pyfunc_from_code, quick=True),
        Entry(pyfuncs.pyfunc_code_paths),
        Entry(pyfuncs.pyfunc_artifacts),
        Entry(pyfuncs.pyfunc_params),
        Entry(pyfuncs.pyfunc_list_hint),
        Entry(pyfuncs.pyfunc_pydantic_hint),
        Entry(pyfuncs.chat_model),
        Entry(pyfuncs.responses_agent),
        Entry(pyfuncs.book_over_transformers),
        Entry(pyfuncs.book_over_pytorch),
    )
}


def _parameters(*marks: Any) -> list[Any]:
    chosen = ((name, [] if entry.quick else [pytest.mark.long]) for name, entry in ZOO.items())
    return [pytest.param(name, id=name.replace(" ", "_"), marks=[*length, *marks]) for name, length in chosen]


@pytest.fixture(scope="session")
def zoo_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a tracking store for the whole run."""

    def make(folder: Path) -> str:
        folder.mkdir()
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        mlflow.MlflowClient(uri).create_experiment("zoo", artifact_location=(folder / "artifacts").as_uri())
        return uri

    return str(once_a_run(tmp_path_factory, "zoo-store", make)[1])


@pytest.fixture
def model(
    name: str, zoo_store: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[checks.Model]:
    """The bundled model, made once per run."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # before Keras is imported
    for library in ZOO[name].needs:
        pytest.importorskip(library, reason=f"{library} is in the extra zoo")
    mlflow.set_tracking_uri(zoo_store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "zoo")
    try:
        folder, facts = once_a_run(
            tmp_path_factory, f"zoo-{name.replace(' ', '-')}", lambda folder: checks.prepare(folder, ZOO[name].make())
        )
        yield checks.Model(folder, **facts)
    finally:
        mlflow.set_tracking_uri(None)


def _cell(name: str, cell: str, check: Callable[[], None]) -> str:
    """ "yes", or the reason why the interface refuses the model, which it must do."""
    if (why := ZOO[name].why.get(cell)) is None:
        check()
        return "yes"
    with pytest.raises((LikewiseError, PySparkException)):  # whose message has the text of the error
        check()
    return why


@pytest.mark.parametrize("name", _parameters())
def test_answers_are_those_of_plain_mlflow(name: str, model: checks.Model) -> None:
    engine, merged = checks.engine(model)
    cells = {"bundle": "yes", "trust": "yes" if model.trust else "no", "engine": f"`{engine}`", "merged": merged}
    by_example = "score Parquet" in ZOO[name].why
    with checks.served(model) as url:
        cells["serve"] = _cell(name, "serve", partial(checks.serve, model, url))
        for cell, check in checks.JOBS.items():
            cells[cell] = _cell(name, cell, partial(check, model))
        cells["verify"] = _cell(name, "verify", partial(checks.verify, model, url, by_example=by_example))
    page.compare(name, cells, list(ZOO))


@pytest.mark.parametrize("name", _parameters(pytest.mark.xdist_group("spark")))
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_spark_gives_the_same_answers(name: str, model: checks.Model, spark: Any) -> None:
    page.compare(name, {"Spark": _cell(name, "Spark", partial(checks.spark, model, spark))}, list(ZOO))


def test_page_has_a_row_for_each_model() -> None:
    rows = page.read()
    assert list(rows) == list(ZOO)
    assert page.PAGE.read_text() == page.text(rows)
    unknown = [(name, column) for name, row in rows.items() for column, cell in row.items() if cell == page.UNKNOWN]
    assert not unknown
