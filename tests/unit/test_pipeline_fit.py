"""Pipelines whose steps do not fit are refused when they are made; the others run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.classifier import make_classifier

from likewise.core.errors import ModelInvalid, WrongUsage
from likewise.pipeline import Cache, Classify, DetectLanguage, Pipeline, Respond, Rows, Step

URI = "runs:/0123/model"
TEXTS = ["This is the best movie we saw.", "What a movie!"]


@dataclass
class Shout(Step):
    """Replaces the label."""

    needs = ("label",)
    gives = ("label",)

    def run(self, rows: Rows) -> Rows:
        return {"label": [label.upper() for label in rows["label"]]}


@dataclass
class Topic(Step):
    """Adds a column that no built-in step has."""

    gives = ("topic",)

    def prepare(self, rows: Rows) -> Rows:
        return {"topic": ["film" for _ in rows["text"]]}


@dataclass
class Plain(Step):
    """Answers from the topic."""

    needs = ("topic",)
    gives = ("answer",)

    def run(self, rows: Rows) -> Rows:
        return {"answer": list(rows["topic"])}


@dataclass
class Undeclared(Step):
    """Does not declare that it adds the language."""

    def prepare(self, rows: Rows) -> Rows:
        return {"language": ["en" for _ in rows["text"]]}


STEPS = st.sampled_from([Cache(size=2), DetectLanguage(), Classify(URI), Respond(), Shout(), Topic(), Plain()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier"))


def _fits(steps: list[Step]) -> bool:
    known = {"text"}
    for position, step in enumerate(steps):
        if (isinstance(step, Cache) and position) or not known.issuperset(step.needs):
            return False
        known.update(step.gives or ())
    return "answer" in known


@settings(max_examples=200)
@given(st.lists(STEPS, min_size=1, max_size=6))
def test_what_the_constructor_accepts_runs_and_what_it_refuses_would_not(folder: Path, steps: list[Step]) -> None:
    if not _fits(steps):
        with pytest.raises(WrongUsage) as refused:
            Pipeline(*steps)
        assert refused.value.remedy
        return
    answers = Pipeline(*steps).open({URI: folder}.__getitem__).answer(TEXTS)
    assert [type(answer) for answer in answers] == [str] * len(TEXTS)


@pytest.mark.parametrize(
    ("steps", "cause", "remedy"),
    [
        ([Classify(URI), Respond()], "Respond needs the column 'language'", "put DetectLanguage() before Respond"),
        (
            [DetectLanguage(), Respond()],
            "Respond needs the columns 'label' and 'model_uri'",
            "put Classify(MODEL_URI) before Respond",
        ),
        ([Respond()], "'label' and 'language'", "put Classify(MODEL_URI) and DetectLanguage() before Respond"),
        (
            [Respond(), Classify(URI), DetectLanguage()],
            "Respond needs",
            "put Classify(MODEL_URI) and DetectLanguage() before Respond",
        ),
        ([Shout(), Classify(URI)], "Shout needs the column 'label'", "put Classify(MODEL_URI) before Shout"),
        ([Plain(), Topic()], "Plain needs the column 'topic'", "put Topic before Plain"),
        ([Plain()], "Plain needs the column 'topic'", "put a custom step with gives = ('topic',) before Plain"),
        ([Classify(URI)], "no step gives the column 'answer'", "put DetectLanguage() and Respond() at the end"),
        ([Classify(URI), DetectLanguage()], "no step gives the column 'answer'", "put Respond() at the end"),
        ([Cache()], "'answer'", "put Classify(MODEL_URI) and DetectLanguage() and Respond() at the end"),
    ],
)
def test_misfit_is_refused_with_the_missing_step(steps: list[Step], cause: str, remedy: str) -> None:
    with pytest.raises(WrongUsage, match=re.escape(cause)) as refused:
        Pipeline(*steps)
    assert refused.value.remedy == remedy


def test_column_of_an_undeclared_step_is_accepted_and_a_missing_one_is_named_when_a_row_is_processed(
    folder: Path,
) -> None:
    Pipeline(Classify(URI), Undeclared(), Respond()).open({URI: folder}.__getitem__).answer(TEXTS)
    with pytest.raises(
        ModelInvalid, match="Respond needs the column 'label', which no earlier step has added"
    ) as raised:
        Pipeline(Undeclared(), Respond()).open().answer(TEXTS)
    assert raised.value.remedy == "put Classify(MODEL_URI) before Respond"


@pytest.mark.parametrize("names", ["label", None, [1]])
def test_needs_that_are_not_names_are_refused(names: object) -> None:
    step = Shout()
    step.needs = names  # type: ignore[assignment, misc]
    with pytest.raises(WrongUsage, match="needs of the step Shout is"):
        Pipeline(Classify(URI), step)
