"""The pipeline: steps in a row, in two phases, over columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from likewise.core.errors import LikewiseError, ModelInvalid, RowRefused, WrongUsage
from likewise.core.extras import need
from likewise.engine.text import TextEngine
from likewise.pipeline.declaration import FORMAT, build_step, declare_step, is_built_in
from likewise.pipeline.steps import Cache, Classify, Opening, Rows, Step


class Pipeline:
    """Steps that turn a text into an answer. Thread safe once open.

    The steps before the first that has a `run`, and that step's `prepare`, are the first phase; all the rest is the
    second. So tokenization overlaps with forward passes, and a step that needs a model's output still comes after it.
    """

    def __init__(self, *steps: Step, uri: str = "") -> None:
        """`uri`: under which the pipeline is logged; `log_model` sets it."""
        if not steps:
            raise WrongUsage("a pipeline needs at least one step", remedy="Pipeline(Classify(uri), …)")
        if any(isinstance(step, Cache) for step in steps[1:]):
            raise WrongUsage(
                "Cache remembers whole answers, and stands first or nowhere", remedy="move it to the front"
            )
        self.steps = steps
        self.uri = uri
        self._cache = steps[0] if isinstance(steps[0], Cache) else Cache(size=0)
        heavy = (place for place, step in enumerate(steps) if type(step).run is not Step.run)
        self._turn = next(heavy, len(steps) - 1)
        self._open = False

    @classmethod
    def from_declaration(cls, declaration: Mapping[str, object], *, allow_code: bool = False) -> Pipeline:
        """The pipeline that `declaration` describes.

        Raises ModelInvalid where it cannot be read, CodeNotTrusted where it names steps that are not built in, unless
        `allow_code`.
        """
        declared = declaration.get("steps")
        if declaration.get("format") != FORMAT or not isinstance(declared, list):
            raise ModelInvalid(
                f"a pipeline of format {declaration.get('format')!r}", remedy=f"this version reads format {FORMAT}"
            )
        steps = [build_step(each, allow_code=allow_code) for each in declared]
        return cls(*steps, uri=str(declaration.get("uri", "")))

    def declaration(self) -> dict[str, object]:
        """`{"format": 1, "uri": …, "steps": […]}`, plain JSON; `from_declaration` reads it."""
        return {"format": FORMAT, "uri": self.uri, "steps": [declare_step(step) for step in self.steps]}

    @property
    def references(self) -> tuple[str, ...]:
        """The URIs that the pipeline opens, once each, in order."""
        return tuple(dict.fromkeys(uri for step in self.steps for uri in step.references()))

    @property
    def built_in(self) -> bool:
        """Whether every step is Likewise's own, so that the declaration alone is enough to answer."""
        return all(is_built_in(step) for step in self.steps)

    def open(
        self,
        resolve: Callable[[str], Path] | None = None,
        *,
        open_text: Callable[[str, int], TextEngine] | None = None,
    ) -> Pipeline:
        """Load every step; returns the pipeline itself.

        resolve: a reference's URI to the path where it lies; the default downloads it with MLflow.
        open_text: opens the text classifier of a URI; the default is the reference runtime.
        """
        opening = Opening(resolve or _download, self.uri, open_text)
        if self.built_in:  # beside each other: a server's start waits for them
            with ThreadPoolExecutor(thread_name_prefix="likewise-open") as pool:
                list(pool.map(lambda step: step.open(opening), self.steps))
        else:
            for step in self.steps:
                step.open(opening)
        self._open = True
        return self

    def answer(self, texts: Sequence[object]) -> list[str]:
        """One answer a text, in order; equal texts are answered once, remembered ones not again.

        Raises RowRefused, naming the first row, for what is not a text.
        """
        if not self._open:
            raise WrongUsage("the pipeline is not open", remedy="pipeline.open()")
        for row, text in enumerate(texts):
            if why := why_not_text(text):
                raise RowRefused(f"row {row}: {why}", remedy=TEXT_REMEDY)
        asked = cast("Sequence[str]", texts)
        distinct = dict.fromkeys(asked)
        known = self._cache.recall(distinct)
        if missing := [text for text in distinct if text not in known]:
            fresh = dict(zip(missing, self.run(self.prepare({"text": missing})), strict=True))
            self._cache.remember(fresh)
            known |= fresh
        return [known[text] for text in asked]

    def prepare(self, rows: Rows) -> Rows:
        """The first phase: from the column `text` to all that the second phase needs."""
        for step in self.steps[: self._turn + 1]:
            rows = _added(rows, step, step.prepare(rows))
        return rows

    def run(self, rows: Rows) -> list[str]:
        """The second phase: one answer a row."""
        turn, *rest = self.steps[self._turn :]
        rows = _added(rows, turn, turn.run(rows))
        for step in rest:
            rows = _added(rows, step, step.prepare(rows))
            rows = _added(rows, step, step.run(rows))
        if "answer" not in rows:
            raise ModelInvalid("no step left the column 'answer'", remedy="let the last step be Respond(), or your own")
        return list(rows["answer"])


TEXT_REMEDY = "send a string in the column 'text'"


def why_not_text(value: object) -> str | None:
    """Why no pipeline can take `value` as its text; None where it can."""
    if value is None or (isinstance(value, float) and value != value):  # NaN: how pandas spells a missing string
        return "text is null"
    if not isinstance(value, str):
        return f"text must be a string, got {type(value).__name__}"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"text is not valid Unicode: lone surrogate at position {error.start}"
    return None


def _added(rows: Rows, step: Step, new: Rows) -> Rows:
    count = len(rows["text"])
    for column, values in new.items():
        if len(values) != count:
            raise ModelInvalid(
                f"the step {type(step).__name__} left {len(values)} values of {column!r} for {count} rows",
                remedy="return one value a row, in order",
            )
    return {**rows, **new}


def _download(uri: str) -> Path:
    artifacts = need("mlflow.artifacts", extra="mlflow")
    try:
        return Path(artifacts.download_artifacts(artifact_uri=uri))
    except LikewiseError:
        raise
    except Exception as error:
        raise ModelInvalid(f"cannot fetch {uri}: {error}", remedy="check the URI and MLFLOW_TRACKING_URI") from error


def classifiers(declaration: Mapping[str, object] | None) -> dict[str, int]:
    """The models that a declared pipeline classifies with, and the longest text in tokens that it gives each."""
    steps = Pipeline.from_declaration(declaration).steps if declaration else ()
    found: dict[str, int] = {}
    for step in steps:
        if isinstance(step, Classify):
            found[step.model] = max(step.max_length, found.get(step.model, 0))
    return found
