"""The pipeline: a sequence of steps over columns, in two phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from likewise.core.errors import LikewiseError, ModelInvalid, RowRefused, WrongUsage
from likewise.core.extras import need
from likewise.core.text import why_not_text
from likewise.engine.text import TextEngine
from likewise.pipeline.declaration import FORMAT, build_step, declare_step, is_built_in
from likewise.pipeline.fit import BOOK, check_fit, name_of, remedy
from likewise.pipeline.steps import Cache, Classify, Opening, Rows, Step


class Pipeline:
    """A sequence of steps that turns texts into answers. Thread-safe after `open`.

    The first phase consists of the steps before the first that has a `run`, and of that step's `prepare`; everything
    else is the second phase. So tokenization can overlap with forward passes, and steps that need a model's output
    still run after it.
    """

    def __init__(self, *steps: Step, uri: str = "", fitting: bool = True) -> None:
        """uri: the URI of the logged pipeline, set by `log_model`.  fitting: whether to check that the steps fit.

        Raises WrongUsage if a step needs a column that no earlier step gives, or no step gives `answer`.
        """
        if not steps:
            raise WrongUsage("a pipeline needs at least one step", remedy=BOOK)
        if any(isinstance(step, Cache) for step in steps[1:]):
            raise WrongUsage("Cache stores complete answers and must be the first step", remedy="move it to the front")
        if fitting:
            check_fit(steps)
        self.steps = steps
        self.uri = uri
        self._cache = steps[0] if isinstance(steps[0], Cache) else Cache(size=0)
        with_run = (index for index, step in enumerate(steps) if type(step).run is not Step.run)
        self._boundary = next(with_run, len(steps) - 1)
        self._open = False

    @classmethod
    def from_declaration(cls, declaration: Mapping[str, object], *, allow_code: bool = False) -> Pipeline:
        """The pipeline that `declaration` describes.

        Raises ModelInvalid if it is invalid, CodeNotTrusted if it has custom steps, unless `allow_code`.
        """
        declared = declaration.get("steps")
        if declaration.get("format") != FORMAT or not isinstance(declared, list):
            raise ModelInvalid(
                f"unsupported pipeline format {declaration.get('format')!r}",
                remedy=f"log the pipeline again: this version reads format {FORMAT}",
            )
        steps = [build_step(each, allow_code=allow_code) for each in declared]
        return cls(*steps, uri=str(declaration.get("uri", "")), fitting=False)  # logging it has checked them

    def declaration(self) -> dict[str, object]:
        """`{"format": 1, "uri": …, "steps": […]}`, a JSON object that `from_declaration` accepts."""
        return {"format": FORMAT, "uri": self.uri, "steps": [declare_step(step) for step in self.steps]}

    @property
    def references(self) -> tuple[str, ...]:
        """The distinct URIs that the pipeline opens, in order."""
        return tuple(dict.fromkeys(uri for step in self.steps for uri in step.references()))

    @property
    def built_in(self) -> bool:
        """Whether every step is built in, so that the declaration is sufficient to run the pipeline."""
        return all(is_built_in(step) for step in self.steps)

    def open(
        self,
        resolve: Callable[[str], Path] | None = None,
        *,
        open_text: Callable[[str, int], TextEngine] | None = None,
    ) -> Pipeline:
        """Load every step; returns the pipeline itself.

        resolve: maps a reference's URI to its local path; by default it is downloaded with MLflow.
        open_text: opens the text classifier at a URI; by default in the reference runtime.
        """
        opening = Opening(resolve or _download, self.uri, open_text)
        if self.built_in:  # concurrently, because a server's start-up waits for them
            with ThreadPoolExecutor(thread_name_prefix="likewise-open") as pool:
                list(pool.map(lambda step: step.open(opening), self.steps))
        else:
            for step in self.steps:
                step.open(opening)
        self._open = True
        return self

    def answer(self, texts: Sequence[object]) -> list[str]:
        """One answer per text, in order; equal texts are computed once, cached ones not at all.

        Raises RowRefused, with the number of the first row that is not a text.
        """
        if not self._open:
            raise WrongUsage("the pipeline is not open", remedy="call pipeline.open() first")
        for row, text in enumerate(texts):
            if why := why_not_text(text):
                raise RowRefused(f"row {row}: {why}", remedy=TEXT_REMEDY)
        valid = cast("Sequence[str]", texts)
        distinct = dict.fromkeys(valid)
        known = self._cache.recall(distinct)
        if missing := [text for text in distinct if text not in known]:
            fresh = dict(zip(missing, self.run(self.prepare({"text": missing})), strict=True))
            self._cache.remember(fresh)
            known |= fresh
        return [known[text] for text in valid]

    def prepare(self, rows: Rows) -> Rows:
        """The first phase: from the column `text` to all columns that the second phase needs."""
        for step in self.steps[: self._boundary + 1]:
            rows = _added(rows, step, step.prepare)
        return rows

    def run(self, rows: Rows) -> list[str]:
        """The second phase: one answer per row."""
        first, *rest = self.steps[self._boundary :]
        rows = _added(rows, first, first.run)
        for step in rest:
            rows = _added(rows, step, step.prepare)
            rows = _added(rows, step, step.run)
        if "answer" not in rows:
            raise ModelInvalid(
                "no step has added the column 'answer'", remedy="add Respond() or a custom step that adds it at the end"
            )
        return list(rows["answer"])

    def trace(self, text: str) -> list[dict[str, object]]:
        """For each step its name as `step` and, by column, the values that it adds: texts and numbers only."""
        rows: Rows = {"text": [text]}
        traced: list[dict[str, object]] = []
        for step in self.steps:
            after = _added(rows, step, step.prepare)
            after = _added(after, step, step.run)
            added = {name: values[0] for name, values in after.items() if values is not rows.get(name)}
            plain = {name: value for name, value in added.items() if isinstance(value, (str, int, float))}
            traced.append({"step": name_of(step), **plain})
            rows = after
        return traced


TEXT_REMEDY = "send a string in the column 'text'"


def _added(rows: Rows, step: Step, phase: Callable[[Rows], Rows]) -> Rows:
    """`rows` with the columns that one phase of a step returns for them."""
    count = len(rows["text"])
    try:
        new = phase(rows)
    except KeyError as error:
        if error.args[0] in rows or not isinstance(error.args[0], str):
            raise
        raise ModelInvalid(
            f"the step {name_of(step)} needs the column {error}, which no earlier step has added",
            remedy=remedy([error.args[0]], step, rows),
        ) from error
    for column, values in new.items():
        if len(values) != count:
            raise ModelInvalid(
                f"the step {name_of(step)} returned {len(values)} values of {column!r} for {count} rows",
                remedy="return one value per row, in order",
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
    """The classifier models of a declared pipeline, with the maximum length in tokens for each."""
    steps = Pipeline.from_declaration(declaration).steps if declaration else ()
    lengths: dict[str, int] = {}
    for step in steps:
        if isinstance(step, Classify):
            lengths[step.model] = max(step.max_length, lengths.get(step.model, 0))
    return lengths
