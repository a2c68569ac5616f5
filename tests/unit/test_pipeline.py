"""Pipelines: phases, duplicates, caching, invalid rows, declarations."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.classifier import TEXTS, make_classifier

from likewise.core.errors import CodeNotTrusted, ModelInvalid, RowRefused, WrongUsage
from likewise.pipeline import Cache, Classify, DetectLanguage, Pipeline, Respond, Rows, Step

MODEL = "runs:/0123/model"
PIPELINE = "runs:/4567/inference_pipeline_model"


@dataclass
class Count(Step):
    """Records the number of rows in each call."""

    calls: list[int] = field(init=False, default_factory=list)

    def run(self, rows: Rows) -> Rows:
        self.calls.append(len(rows["text"]))
        return {}


@dataclass
class Shout(Step):
    """Produces answers without a model."""

    marks: int = 1

    def run(self, rows: Rows) -> Rows:
        return {"answer": [text.upper() + "!" * self.marks for text in rows["text"]]}


@dataclass
class Translate(Step):
    """A step with heavy work before the classifier."""

    def run(self, rows: Rows) -> Rows:
        return {"text": [text.replace("Fett", "Bold") for text in rows["text"]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return book(folder)


def book(folder: Path, size: int = 100) -> Pipeline:
    steps = Cache(size=size), DetectLanguage(), Classify(MODEL), Respond()
    return Pipeline(*steps, uri=PIPELINE).open({MODEL: folder}.__getitem__)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_answer_has_exactly_the_books_format(pipeline: Pipeline) -> None:
    [answer] = pipeline.answer(["This is the best movie we saw."])
    label = json.loads(answer)["response"]["prediction_label"][0]
    assert label in ("positive", "negative")
    assert answer == (
        '{"response": {"prediction_label": ["' + label + '"]}, "metadata": {"language_detected": "en"}, '
        '"model_metadata": {"finetuned_model_uri": "runs:/0123/model", '
        '"inference_pipeline_model_uri": "runs:/4567/inference_pipeline_model"}}'
    )


def test_order_duplicates_and_caching_do_not_change_answers(folder: Path) -> None:
    alone = {text: book(folder, size=0).answer([text])[0] for text in TEXTS}
    cached = book(folder, size=3)
    for texts in (TEXTS, TEXTS[::-1], TEXTS * 2, [TEXTS[0]] * 5, []):
        assert cached.answer(texts) == [alone[text] for text in texts]


def test_equal_texts_are_processed_once() -> None:
    count = Count()
    answers = Pipeline(count, Shout()).open().answer(["a", "b", "a", "a"])
    assert answers == ["A!", "B!", "A!", "A!"]
    assert count.calls == [2]


def test_cached_texts_are_not_processed_again() -> None:
    count = Count()
    pipeline = Pipeline(Cache(size=2), count, Shout()).open()
    pipeline.answer(["a", "b"])
    pipeline.answer(["a"])  # "b" is now the least recently used
    assert count.calls == [2]
    pipeline.answer(["c"])
    pipeline.answer(["a", "c"])
    assert count.calls == [2, 1]
    pipeline.answer(["b"])
    assert count.calls == [2, 1, 1]


def test_more_texts_than_the_cache_size_are_all_answered() -> None:
    pipeline = Pipeline(Cache(size=2), Shout()).open()
    texts = [f"text {n}" for n in range(50)]
    assert pipeline.answer(texts) == [text.upper() + "!" for text in texts]
    assert len(pipeline.steps[0].recall(texts)) == 2  # type: ignore[attr-defined]


def test_threads_share_the_cache_and_get_the_right_answers() -> None:
    pipeline = Pipeline(Cache(size=5), Shout()).open()
    wrong: list[list[str]] = []

    def call(first: int) -> None:
        for repeat in range(300):
            texts = [f"{(first + repeat + step) % 17}" for step in range(4)]
            if (answers := pipeline.answer(texts)) != [text + "!" for text in texts]:
                wrong.append(answers)

    threads = [threading.Thread(target=call, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_step_that_needs_a_model_output_runs_after_it(folder: Path) -> None:
    texts = ["Fett und gut", "Bold und gut"]
    steps = Translate(), DetectLanguage(), Classify(MODEL), Respond()
    translated = Pipeline(*steps, uri=PIPELINE).open({MODEL: folder}.__getitem__)
    [first, second] = translated.answer(texts)
    assert first == second == book(folder).answer(["Bold und gut"])[0]
    assert "encoding" not in translated.prepare({"text": texts})  # tokenized only after the translation


def test_first_phase_includes_tokenization(pipeline: Pipeline) -> None:
    rows = pipeline.prepare({"text": TEXTS})
    assert [len(each) for each in rows["encoding"]] == rows["tokens"]
    assert "label" not in rows


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "null"),
        (float("nan"), "null"),
        (3, "int"),
        (["a"], "list"),
        (b"a", "bytes"),
        ("a\ud800", "surrogate at position 1"),
    ],
)
def test_invalid_text_is_rejected_with_its_row_number(pipeline: Pipeline, value: object, why: str) -> None:
    with pytest.raises(RowRefused, match=f"row 2: .*{why}"):
        pipeline.answer(["fine", "fine too", value])


def test_step_that_loses_a_row_is_reported() -> None:
    @dataclass
    class Lose(Step):
        def run(self, rows: Rows) -> Rows:
            return {"answer": list(rows["text"])[1:]}

    with pytest.raises(ModelInvalid, match="Lose returned 1 values of 'answer' for 2 rows"):
        Pipeline(Lose()).open().answer(["a", "b"])


def test_pipeline_without_answers_is_reported() -> None:
    @dataclass
    class Undeclared(Step):
        """May give anything."""

    with pytest.raises(ModelInvalid, match="'answer'"):
        Pipeline(Undeclared()).open().answer(["a"])


def test_pipeline_that_is_not_open_is_reported() -> None:
    with pytest.raises(WrongUsage, match="not open"):
        Pipeline(Shout()).answer(["a"])


def test_cache_must_be_the_first_step() -> None:
    with pytest.raises(WrongUsage, match="first"):
        Pipeline(Shout(), Cache())


def test_pipeline_without_steps_is_rejected() -> None:
    with pytest.raises(WrongUsage, match="at least one"):
        Pipeline()


# --- declarations -----------------------------------------------------------------------------------------------------


def test_declaration_is_json_and_restores_the_pipeline(folder: Path, pipeline: Pipeline) -> None:
    declaration = json.loads(json.dumps(pipeline.declaration()))
    restored = Pipeline.from_declaration(declaration)
    assert restored.steps == pipeline.steps
    assert restored.declaration() == pipeline.declaration()
    assert restored.references == (MODEL,)
    assert restored.built_in
    assert restored.open({MODEL: folder}.__getitem__).answer(TEXTS) == pipeline.answer(TEXTS)


def test_custom_step_is_only_imported_with_trust() -> None:
    declaration = Pipeline(Shout(marks=3)).declaration()
    assert declaration["steps"] == [{"step": f"{__name__}:Shout", "marks": 3}]
    assert not Pipeline(Shout()).built_in
    with pytest.raises(CodeNotTrusted, match="Shout"):
        Pipeline.from_declaration(declaration)
    trusted = Pipeline.from_declaration(declaration, allow_code=True)
    assert trusted.open().answer(["a"]) == ["A!!!"]


def test_subclass_of_a_built_in_step_is_a_custom_step() -> None:
    @dataclass
    class German(DetectLanguage):
        default: str = "de"

    assert not Pipeline(German(), Shout()).built_in


def test_step_that_is_not_a_dataclass_cannot_be_declared() -> None:
    class Plain(Shout):
        pass

    with pytest.raises(WrongUsage, match="Plain is not a dataclass"):
        Pipeline(Plain()).declaration()


@pytest.mark.parametrize(
    ("declaration", "why"),
    [
        ({"format": 2, "steps": []}, "format 2"),
        ({"format": 1, "steps": "cache"}, "format 1"),
        ({"format": 1, "steps": [{"step": "dance"}]}, "'dance'"),
        ({"format": 1, "steps": [{"step": "cache", "colour": "red"}]}, "colour"),
        ({"format": 1, "steps": [{"step": "classify"}]}, "model"),
        ({"format": 1, "steps": [{"step": "json:JSONDecoder"}]}, "not a Step"),
    ],
)
def test_invalid_declaration_is_reported(declaration: dict[str, object], why: str) -> None:
    with pytest.raises(ModelInvalid, match=why):
        Pipeline.from_declaration(declaration, allow_code=True)


def test_defining_a_pipeline_does_not_import_mlflow_pandas_or_torch() -> None:
    code = "import likewise.pipeline, sys; print(*{'mlflow', 'pandas', 'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
