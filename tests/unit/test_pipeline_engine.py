"""The engine for declared pipelines: it gives the pipeline's answers, one result per row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.classifier import TEXTS, make_classifier

from likewise.core.engine import Engine, Work
from likewise.core.errors import CodeNotTrusted, RowRefused
from likewise.core.items import Request, Row, Table
from likewise.core.results import Failed, Ok
from likewise.core.windows import windows
from likewise.pipeline import Cache, Classify, DetectLanguage, Pipeline, Respond
from likewise.pipeline.engine import PipelineEngine

MODEL = "runs:/0123/model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    steps = Cache(), DetectLanguage(), Classify(MODEL), Respond()
    return Pipeline(*steps, uri="runs:/4567/inference_pipeline_model").open({MODEL: folder}.__getitem__)


@pytest.fixture(scope="module")
def engine(folder: Path, pipeline: Pipeline) -> PipelineEngine:
    return PipelineEngine(pipeline.declaration(), resolve={MODEL: folder}.__getitem__)


def rows(*texts: object) -> list[Row]:
    return [Row(("text",), (text,)) for text in texts]


def test_engine_properties(engine: PipelineEngine) -> None:
    assert isinstance(engine, Engine)
    assert engine.spec.row_wise
    assert engine.spec.pure
    assert engine.spec.label == "torch/fp32"


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(len(TEXTS))), count=st.integers(1, len(TEXTS)), budget=st.integers(1, 500))
def test_results_are_the_pipelines_in_any_batch(
    engine: PipelineEngine, pipeline: Pipeline, order: list[int], count: int, budget: int
) -> None:
    texts = [TEXTS[index] for index in order[:count]]
    works = [work for work in engine.prepare(rows(*texts)) if isinstance(work, Work)]
    results: dict[int, object] = {}
    for window in windows([work.cost for work in works], budget):
        results.update(zip(window, engine.run([works[index] for index in window]), strict=True))
    expected = [Ok({"text": answer}) for answer in pipeline.answer(texts)]
    assert [results[index] for index in range(count)] == expected


def test_invalid_row_does_not_affect_other_rows(engine: PipelineEngine, pipeline: Pipeline) -> None:
    prepared = engine.prepare(rows("good", None, "good too", 7, "lone \ud83d half"))
    assert [isinstance(each, Work) for each in prepared] == [True, False, True, False, False]
    causes = [each.error.cause for each in prepared if isinstance(each, Failed)]
    assert causes[0] == "text is null"
    assert "int" in causes[1]
    assert "surrogate" in causes[2]
    assert all(isinstance(each.error, RowRefused) for each in prepared if isinstance(each, Failed))
    results = engine.run([each for each in prepared if isinstance(each, Work)])
    assert results == [Ok({"text": answer}) for answer in pipeline.answer(["good", "good too"])]


def test_other_columns_are_ignored_and_a_missing_one_is_reported(engine: PipelineEngine) -> None:
    [other, missing, bare] = engine.prepare(
        [Row(("id", "text"), (1, "good")), Row(("id",), (1,)), Row(None, ("good",))]
    )
    assert isinstance(other, Work)
    assert isinstance(bare, Work)
    assert other.key == bare.key
    assert isinstance(missing, Failed)
    assert "'text' is missing" in missing.error.cause


def test_whole_request_is_rejected(engine: PipelineEngine) -> None:
    [refused] = engine.prepare([Request(Table(("text",), [("good",)]))])
    assert isinstance(refused, Failed)


def test_keys_identify_texts_and_costs_are_tokens(engine: PipelineEngine) -> None:
    first, same, other = (work for work in engine.prepare(rows("a b", "a b", "a c d")) if isinstance(work, Work))
    assert first.key == same.key != other.key
    assert first.cost == 4
    assert other.cost == 5


def test_empty_input_gives_empty_output(engine: PipelineEngine) -> None:
    assert engine.prepare([]) == []
    assert engine.run([]) == []


def test_custom_step_in_a_declaration_is_never_imported(folder: Path) -> None:
    declaration = {"format": 1, "steps": [{"step": "antigravity:Fly"}]}
    with pytest.raises(CodeNotTrusted, match="antigravity"):
        PipelineEngine(declaration, resolve=lambda _: folder)
    assert "antigravity" not in sys.modules


@pytest.mark.slow
def test_engine_works_without_mlflow_and_pandas(folder: Path, pipeline: Pipeline) -> None:
    code = f"""
import sys
from pathlib import Path
sys.modules.update(mlflow=None, pandas=None)  # imports of them fail
from likewise.core.items import Row
from likewise.pipeline.engine import PipelineEngine
engine = PipelineEngine({pipeline.declaration()!r}, resolve=lambda uri: Path({str(folder)!r}))
print(engine.run(engine.prepare([Row(("text",), ("What a movie!",))]))[0].value["text"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == pipeline.answer(["What a movie!"])[0]
