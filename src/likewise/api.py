"""`import likewise`: the library, which the command line is a thin layer over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from likewise.batch import JobReport, Progress, ScoreOptions
from likewise.batch import score as score_file
from likewise.bundles.open import Bundle as StoredBundle
from likewise.bundles.open import is_bundle
from likewise.bundles.open import open_bundle as open_stored
from likewise.bundles.trust import Trust
from likewise.core.engine import Engine, predict_items
from likewise.core.items import Item, Request, Table
from likewise.core.results import Failed, Result
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.engine.engine_options import ANY, EngineOptions
from likewise.engine.load import LazyEngine, open_engine, why_unmeasured
from likewise.server import ServerOptions

if TYPE_CHECKING:
    import pandas as pd

    from likewise.builder.measure import Measurement
    from likewise.engine.engine_options import CompileOptions

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Bundle(StoredBundle):
    """A verified bundle that can answer.

    `predict` loads an engine and keeps it until `close`, which leaving `with` calls too.  `choice`: which engine that
    is, and `engine()` without arguments.
    """

    trust: Trust = field(default_factory=Trust, repr=False)
    choice: EngineOptions = ANY
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

    def engine(self, name: str | None = None, *, precision: str | None = None) -> Engine:
        """Load the engine `name` in `precision` (`bf16` or `fp32`), or the fastest here; the caller closes it.

        Raises EngineUnavailable, CodeNotTrusted, MissingExtra, WrongUsage (no such precision).
        """
        return open_engine(self, self.spec(name, precision))

    def spec(self, engine: str | None = None, precision: str | None = None) -> ModelSpec:
        """The bundle with what is asked for here, or else `choice`; WrongUsage for a precision that there is not."""
        asked = EngineOptions(engine, precision)
        choice, source = asked if asked.pinned else self.choice, self.manifest.source.uri
        trusted = self.trust.allows_bundle(self)
        return ModelSpec(self.digest, self.path.absolute(), source, choice.name, choice.precision, trusted)

    def predict(self, data: pd.DataFrame, params: Mapping[str, object] | None = None) -> Any:
        """What `mlflow.pyfunc.load_model(…).predict(data, params)` answers, from the bundle's best engine.

        data: one row an item. Returns a frame where the model's records have columns, else a list of one value a row.
        Raises the first failed row's error.
        """
        engine = self._kept
        columns = tuple(str(c) for c in data.columns)
        table = Table(columns, list(data.itertuples(index=False, name=None)))
        items: list[Item] = list(table.split(params or {})) if engine.spec.row_wise else [Request(table, params or {})]
        results = predict_items(engine, items)
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


def find(
    model: str | Path,
    *,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    report: OnProgress | None = None,
) -> Bundle:
    """The bundle that `model` names: a bundle folder is opened, any MLflow model URI is bundled into the cache first.

    engine, precision: which engine its `predict` uses.  Raises what `open_bundle` and `bundle` raise.
    """
    choice = EngineOptions(engine, precision)
    if is_bundle(Path(model)):
        return open_bundle(model, engine=engine, precision=precision, trust=trust)
    from likewise.builder.bundle import cached_bundle, trusts

    allowed = Trust(allow=trust)
    made = cached_bundle(str(model), trust=allowed, report=report)
    return Bundle(made.path, made.manifest, Trust(allow=trusts(made, str(model), allowed)), choice)


def open_bundle(
    path: str | Path, *, engine: str | None = None, precision: str | None = None, trust: bool = False
) -> Bundle:
    """Open a bundle folder after checking its every byte.

    engine, precision: which engine its `predict` uses.
    Raises ModelNotFound, BundleInvalid, BundleTampered, UnsafeArchive, ReferenceMissing, WrongUsage.
    """
    choice = EngineOptions(engine, precision)
    opened = open_stored(path)
    return Bundle(opened.path, opened.manifest, Trust(allow=trust), choice)


def measure(bundle: Bundle) -> Measurement:
    """Time the bundle's engines on this machine, and remember it here for its next starts on such a CPU.

    Raises EngineUnavailable where there are no two to choose between.
    """
    from likewise.builder.measure import measure as timed
    from likewise.engine.rates import remember_rates

    found = timed(bundle)
    remember_rates(bundle.manifest, found.rates)
    return found


def bundle(
    model: str | Path,
    output: str | Path,
    *,
    references: Sequence[str] = (),
    row_wise: bool | None = None,
    compiling: CompileOptions | None = None,
    trust: bool = False,
    report: OnProgress | None = None,
) -> Bundle:
    """Make a self-contained bundle of an MLflow model at `output`, and prove that it answers away from its store.

    references: URIs that the model opens and that neither it nor a trace tells. row_wise: overrides what it declares.
    compiling: how the fast engine is made and measured.
    Raises ModelNotFound, ModelInvalid, StoreUnreachable, CodeNotTrusted, NotSelfContained, RowWiseRefuted,
    ReferenceMissing, UnsafeArchive, OutputRefused, EngineUnavailable, InputNotFound, InputInvalid.
    """
    from likewise.builder.bundle import build_bundle, trusts

    allowed = Trust(allow=trust)
    made = build_bundle(
        str(model),
        Path(output),
        trust=allowed,
        references=references,
        row_wise=row_wise,
        compiling=compiling,
        report=report,
    )
    return Bundle(made.path, made.manifest, Trust(allow=trusts(made, str(model), allowed)))


def serve(
    model: str | Path | Bundle,
    *,
    options: ServerOptions | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    listening: OnProgress | None = None,
    ready: OnProgress | None = None,
) -> None:
    """Answer over HTTP in the foreground until SIGTERM or Ctrl-C.

    `listening` and `ready` get the service's URL once each.  Raises PortTaken, and what `find` and `Bundle.engine` do.
    """
    from likewise.server.run import run
    from likewise.serving import bundle_app

    options = options or ServerOptions()
    found = bundle_of(model, trust)
    run(bundle_app(found, found.spec(engine, precision), options), options, on_listening=listening, on_ready=ready)


def score(
    model: str | Path | Bundle,
    source: str | Path,
    output: str | Path,
    *,
    options: ScoreOptions | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> JobReport:
    """Score CSV, JSON-lines or Parquet files into `output`; returns what `_likewise.json` says.

    source: a file, a folder, a glob, or the like at `s3://`; a runner may read other things.
    Called again after it was stopped, it scores what is missing.
    Raises InputNotFound, InputInvalid, OutputRefused, ModelFailed, Interrupted, TooManyQuarantined, and what `find` and
    `Bundle.engine` do.
    """
    found = bundle_of(model, trust)
    spec = found.spec(engine, precision)
    loaded = LazyEngine(partial(open_engine, found, spec))
    try:
        return score_file(loaded, found.digest, found.signature, source, output, options, progress, spec)
    finally:
        loaded.close()


def advice(bundle: Bundle) -> str | None:
    """A line for whoever serves or scores: how to have the fastest engine, where nobody has measured them here."""
    return why_unmeasured(bundle, bundle.choice)


def bundle_of(model: str | Path | Bundle, trust: bool) -> Bundle:
    """An open bundle as it is, else what `find` gives."""
    return model if isinstance(model, Bundle) else find(model, trust=trust)
