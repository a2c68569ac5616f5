"""`import likewise`: the library, which the command line is a thin layer over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from likewise.batch import Progress, ScoreOptions
from likewise.batch import Report as JobReport
from likewise.batch import score as score_file
from likewise.bundles.open import Bundle as StoredBundle
from likewise.bundles.open import is_bundle
from likewise.bundles.open import open_bundle as open_stored
from likewise.bundles.trust import Trust
from likewise.core.engine import Engine, answers
from likewise.core.items import Item, Request, Table
from likewise.core.results import Failed, Result
from likewise.core.signature import Signature
from likewise.engine.load import LazyEngine, open_engine
from likewise.server import ServedModel, ServerOptions, create_app, run

if TYPE_CHECKING:
    import pandas as pd

Report = Callable[[str], None]


@dataclass(frozen=True)
class Bundle(StoredBundle):
    """A verified bundle that can answer.

    `predict` loads an engine and keeps it until `close`, which leaving `with` calls too.
    """

    trust: Trust = field(default_factory=Trust, repr=False)
    _kept: LazyEngine = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kept", LazyEngine(self.engine))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the engine that `predict` has loaded; a later `predict` loads it anew."""
        self._kept.close()

    def engine(self, name: str | None = None) -> Engine:
        """Load the engine `name`, or the best one that runs here; the caller closes it."""
        return open_engine(self, name, trust=self.trust)

    def predict(self, data: pd.DataFrame, params: Mapping[str, object] | None = None) -> Any:
        """What `mlflow.pyfunc.load_model(…).predict(data, params)` answers, from the bundle's best engine.

        data: one row an item. Returns a frame where the model's records have columns, else a list of one value a row.
        Raises the first failed row's error.
        """
        engine = self._kept
        columns = tuple(str(c) for c in data.columns)
        table = Table(columns, list(data.itertuples(index=False, name=None)))
        items: list[Item] = list(table.split(params or {})) if engine.spec.row_wise else [Request(table, params or {})]
        results = answers(engine, items)
        values = [_value(result) for result in results]
        predictions = values if engine.spec.row_wise else values[0]
        return _like_a_frame(predictions, data, self.signature)


def _value(result: Result) -> object:
    if isinstance(result, Failed):
        raise result.error
    return result.value


def _like_a_frame(predictions: object, data: pd.DataFrame, signature: Signature) -> Any:
    if not isinstance(predictions, list) or not all(isinstance(p, dict) for p in predictions):
        return predictions
    names = [f.name for f in signature.outputs or () if f.kind != "tensor" and f.name is not None]
    if not predictions and not names:
        return predictions
    index = data.index if len(predictions) == len(data) else None
    return type(data)(predictions, index=index, columns=None if predictions else names)


def find(model: str | Path, *, trust: bool = False, report: Report | None = None) -> Bundle:
    """The bundle that `model` names: a bundle folder is opened, any MLflow model URI is bundled into the cache first.

    Raises what `open_bundle` and `bundle` raise.
    """
    if is_bundle(Path(model)):
        return open_bundle(model, trust=trust)
    from likewise.build.bundle import cached_bundle, trusts

    allowed = Trust(allow=trust)
    made = cached_bundle(str(model), trust=allowed, report=report)
    return Bundle(made.path, made.manifest, Trust(allow=trusts(made, str(model), allowed)))


def open_bundle(path: str | Path, *, trust: bool = False) -> Bundle:
    """Open a bundle folder after checking its every byte.

    Raises ModelNotFound, BundleInvalid, BundleTampered, UnsafeArchive, ReferenceMissing.
    """
    opened = open_stored(path)
    return Bundle(opened.path, opened.manifest, Trust(allow=trust))


def bundle(
    model: str | Path,
    output: str | Path,
    *,
    references: Sequence[str] = (),
    row_wise: bool | None = None,
    trust: bool = False,
    report: Report | None = None,
) -> Bundle:
    """Make a self-contained bundle of an MLflow model at `output`, and prove that it answers away from its store.

    references: URIs that the model opens and that neither it nor a trace tells. row_wise: overrides what it declares.
    Raises ModelNotFound, ModelInvalid, StoreUnreachable, CodeNotTrusted, NotSelfContained, RowWiseRefuted,
    ReferenceMissing, UnsafeArchive, OutputRefused.
    """
    from likewise.build.bundle import build_bundle, trusts

    allowed = Trust(allow=trust)
    made = build_bundle(
        str(model), Path(output), trust=allowed, references=references, row_wise=row_wise, report=report
    )
    return Bundle(made.path, made.manifest, Trust(allow=trusts(made, str(model), allowed)))


def serve(
    model: str | Path | Bundle,
    *,
    options: ServerOptions | None = None,
    engine: str | None = None,
    trust: bool = False,
    listening: Report | None = None,
    ready: Report | None = None,
) -> None:
    """Answer over HTTP in the foreground until SIGTERM or Ctrl-C.

    `listening` and `ready` get the service's URL once each.  Raises PortTaken, and what `find` and `Bundle.engine` do.
    """
    options = options or ServerOptions()
    found = _found(model, trust)
    load: Callable[[], Engine] = partial(found.engine, engine)
    if options.workers:
        load = partial(_pool_of, partial(_worker_engine, str(found.path), engine, found.trust.allow), options.workers)
    app = create_app(load, served_model(found), options)
    run(app, options, on_listening=listening, on_ready=ready)


def _pool_of(opener: Callable[[], Engine], count: int) -> Engine:
    from likewise.workers import open_pool

    return open_pool(opener, count)


def _worker_engine(path: str, engine: str | None, trust: bool) -> Engine:
    """What each worker process runs."""
    return open_bundle(path, trust=trust).engine(engine)


def score(
    model: str | Path | Bundle,
    source: str | Path,
    output: str | Path,
    *,
    options: ScoreOptions | None = None,
    engine: str | None = None,
    trust: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> JobReport:
    """Score a CSV, JSON-lines or Parquet file into `output`; returns what `_likewise.json` says.

    Raises InputNotFound, InputInvalid, OutputRefused, TooManyQuarantined, and what `find` and `Bundle.engine` do.
    """
    found = _found(model, trust)
    loaded = LazyEngine(lambda: found.engine(engine))
    try:
        return score_file(loaded, found.digest, found.signature, source, output, options, progress)
    finally:
        loaded.close()


def served_model(bundle: StoredBundle) -> ServedModel:
    """What the server tells of the model, with the JSON request body that was logged as its example."""
    example = bundle.model_path / "serving_input_example.json"
    return ServedModel(
        name=bundle.manifest.source.uri,
        version=_registered_version(bundle.manifest.source.resolved),
        digest=bundle.digest,
        signature=bundle.signature,
        example=example.read_bytes() if example.is_file() else None,
    )


def _registered_version(uri: str) -> str:
    """The version in `models:/NAME/VERSION`, else none."""
    found = re.fullmatch(r"models:/[^/]+/(\d+)", uri)
    return found[1] if found else ""


def _found(model: str | Path | Bundle, trust: bool) -> Bundle:
    return model if isinstance(model, Bundle) else find(model, trust=trust)
