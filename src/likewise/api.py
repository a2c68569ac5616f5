"""The Python API (`import likewise`), on which the command line is a thin layer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from likewise.bundles.open import Bundle as StoredBundle
from likewise.bundles.open import is_bundle
from likewise.bundles.open import open_bundle as open_stored
from likewise.bundles.trust import Trust
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import EngineUnavailable, VersionsDiffer
from likewise.core.extras import need
from likewise.core.html_table import html_table
from likewise.core.items import Item, Request
from likewise.core.notebook import notebook_line, notebook_report
from likewise.core.processes import own_python
from likewise.core.results import Failed, Result
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.description import facts
from likewise.engine.engine_options import ANY, EngineOptions
from likewise.engine.frames import as_frame, table_of
from likewise.engine.kinds import logged_libraries
from likewise.engine.load import (
    LazyEngine,
    allowed_engines,
    check_versions,
    describe_engine,
    open_engine,
    why_unmeasured,
)
from likewise.engine.pyfunc import PyfuncEngine
from likewise.server import ServerOptions
from likewise.wire.params import ParamsFitter

if TYPE_CHECKING:
    from likewise.batch import JobReport, Progress, ScoreOptions
    from likewise.builder.measure import Measurement
    from likewise.engine.engine_options import CompileOptions

OnProgress = Callable[[str], None]
log = logging.getLogger(__name__)
_reported: set[str] = set()  # build digests of the bundles whose versions have been reported


@dataclass(frozen=True, repr=False)
class Bundle(StoredBundle):
    """A verified bundle that can predict.

    `predict` loads an engine and keeps it loaded until `close`, or until the end of a `with` block.  `choice`: the
    engine that `predict`, and `engine()` without arguments, use.  allow_versions: whether it may run with another major
    version of its library, or of Python, than it was logged with.
    """

    trust: Trust = field(default_factory=Trust, repr=False)
    choice: EngineOptions = ANY
    allow_versions: bool = False
    _loaded: LazyEngine = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_loaded", LazyEngine(self.engine))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        with suppress(EngineUnavailable):  # the requested engine is not in the bundle
            return html_table("Bundle", facts(self, selected(self) if self.manifest.engines else None))
        return html_table("Bundle", facts(self))

    def close(self) -> None:
        """Close the engine that `predict` has loaded; a later `predict` loads it again."""
        self._loaded.close()

    def engine(self, name: str | None = None, *, precision: str | None = None) -> Engine:
        """Load the engine `name` in `precision` (`bf16` or `fp32`), by default the fastest here; the caller closes it.

        Raises EngineUnavailable, CodeNotTrusted, MissingExtra, WrongUsage (unknown precision).
        """
        return open_engine(self, self.spec(name, precision))

    def spec(self, engine: str | None = None, precision: str | None = None) -> ModelSpec:
        """A ModelSpec of this bundle with the given engine and precision, by default those of `choice`.

        Raises WrongUsage for an unknown precision, and VersionsDiffer if the model's library has another major version
        here, or its pickled code needs another Python.  Smaller differences are logged.
        """
        spec = self.uncompared_spec(engine, precision)
        if (note := check_versions(self, spec)) is not None and self.build not in _reported:
            _reported.add(self.build)
            log.warning(note)
        return spec

    def uncompared_spec(self, engine: str | None = None, precision: str | None = None) -> ModelSpec:
        """`spec`, without comparing versions: for a model that will run in another environment."""
        requested = EngineOptions(engine, precision)
        choice, source = requested if requested.pinned else self.choice, self.manifest.source.clean.uri
        trusted = self.trust.allows_bundle(self)
        folder = self.path.absolute()
        names = choice.name, choice.precision
        return ModelSpec(self.digest, folder, source, *names, trusted, self.build, self.allow_versions, own_python())

    def reporting(self, report: OnProgress | None) -> Self:
        """This bundle, after a line on what differs from its logged versions; refusing it is left to `spec`."""
        if report is not None:
            with suppress(VersionsDiffer):
                if (note := check_versions(self, self.uncompared_spec())) is not None:
                    report(note)
                _reported.add(self.build)
        return self

    def predict(self, data: Any, params: Mapping[str, object] | None = None) -> Any:
        """The same predictions as `mlflow.pyfunc.load_model(…).predict(data, params)`, from the bundle's best engine.

        data: whatever MLflow takes: a DataFrame, a Series, arrays, lists, dicts of them, text.  It is not changed.
        Returns what the model returns if its own code runs; from a compiled engine a DataFrame if the predictions have
        columns, an array if the signature declares one, else a list with one value per row.  Raises the error of the
        first row that fails.
        """
        engine = self._loaded
        if isinstance(engine.loaded, PyfuncEngine):
            return engine.loaded.predict(data, params)
        table = table_of(data, self.signature)
        items: list[Item] = list(table.split(params)) if engine.spec.row_wise else [Request(table, params)]
        results = predict_items(engine, items)
        values = [_value(result) for result in results]
        predictions = values if engine.spec.row_wise else values[0]
        return _like_a_frame(predictions, data, self.signature)


def _value(result: Result) -> object:
    if isinstance(result, Failed):
        raise result.error
    return result.value


def _like_a_frame(predictions: object, data: Any, signature: Signature) -> Any:
    if not isinstance(predictions, list) or not all(isinstance(p, dict) for p in predictions):
        tensor = signature.outputs[0] if signature.outputs and len(signature.outputs) == 1 else None
        if tensor is None or tensor.kind != "tensor" or tensor.name is not None:
            return predictions
        return need("numpy", extra="mlflow").asarray(predictions, dtype=tensor.raw["tensor-spec"]["dtype"])  # type: ignore[index]
    return as_frame(predictions, data, [f.name for f in signature.outputs or () if f.kind != "tensor" and f.name])


def find(
    model: str | Path,
    *,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    report: OnProgress | None = None,
) -> Bundle:
    """Open `model`: a bundle folder, or any MLflow model URI, which is first bundled into the cache.

    engine, precision: the engine that its `predict` uses.  allow_versions: see `Bundle`.  report: called with progress
    messages, which a notebook shows by default.  Raises the errors of `open_bundle` and `bundle`.
    """
    report = report or notebook_report()
    choice = EngineOptions(engine, precision)
    if is_bundle(Path(model)):
        opened = _predicting(open_stored(model), Trust(allow=trust), choice, allow_versions)
        if report is not None and opened.manifest.lacks:
            report(opened.manifest.lacks)
        return opened.reporting(report)
    from likewise.builder.bundle import cached_bundle, trusts

    requested = Trust(allow=trust)
    cached = cached_bundle(str(model), trust=requested, allow_versions=allow_versions, report=report)
    allowed = Trust(allow=trusts(cached, str(model), requested))
    return _predicting(cached, allowed, choice, allow_versions).reporting(report and _already)


def open_bundle(
    path: str | Path,
    *,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
) -> Bundle:
    """Open a bundle folder after verifying the digests of all its files.

    engine, precision: the engine that its `predict` uses.  allow_versions: see `Bundle`.
    Raises ModelNotFound, BundleInvalid, BundleTampered, UnsafeArchive, ReferenceMissing, WrongUsage.
    """
    choice = EngineOptions(engine, precision)
    return _predicting(open_stored(path), Trust(allow=trust), choice, allow_versions)


def _already(note: str) -> None:
    """Report nothing: the build has reported it, or nobody listens."""


def _predicting(
    stored: StoredBundle, trust: Trust, choice: EngineOptions = ANY, allow_versions: bool = False
) -> Bundle:
    return Bundle(stored.path, stored.manifest, trust, choice, allow_versions, original=stored.original)


def measure(bundle: Bundle, progress: Callable[[float], None] | None = None) -> Measurement:
    """Measure the speed of the bundle's engines on this machine and store it for future starts on this kind of CPU.

    Also that of plain `load_model`, if the model needs no code or its code is trusted.  progress: as for `bundle`.
    Raises EngineUnavailable if there is nothing to compare.
    """
    from likewise.builder.measure import measure as run_measurement
    from likewise.engine.rates import remember_rates

    measurement = run_measurement(bundle, code=bundle.trust.allows_bundle(bundle), progress=progress)
    remember_rates(bundle.manifest, measurement.rates)
    return measurement


def bundle(
    model: str | Path,
    output: str | Path,
    *,
    references: Sequence[str] = (),
    row_wise: bool | None = None,
    compiling: CompileOptions | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    report: OnProgress | None = None,
    progress: Callable[[float], None] | None = None,
) -> Bundle:
    """Create a self-contained bundle of an MLflow model at `output`, and verify that it works without its store.

    references: URIs that the model opens and that are not detected automatically. row_wise: overrides what the model
    declares. compiling: how the fast engine is compiled and measured. allow_versions: see `Bundle`. report: called with
    a message for each step; progress: called, from another thread, with the completed fraction of the step, 0 to 1. A
    notebook shows both by default.
    Raises VersionsDiffer, ModelNotFound, ModelInvalid, StoreUnreachable, CodeNotTrusted, NotSelfContained,
    RowWiseRefuted, ReferenceMissing, UnsafeArchive, OutputRefused, EngineUnavailable, InputNotFound, InputInvalid.
    """
    from likewise.builder.bundle import build_bundle, trusts

    if report is None and (line := notebook_line()) is not None:
        report, progress = line.show, progress or line.completed
    requested = Trust(allow=trust)
    existed = is_bundle(Path(output))  # perhaps built by someone else: `build_bundle` only compares the models
    created = build_bundle(
        str(model),
        Path(output),
        trust=requested,
        references=references,
        row_wise=row_wise,
        compiling=compiling,
        existing=existed,
        allow_versions=allow_versions,
        report=report,
        progress=progress,
    )
    trusted = requested if existed else Trust(allow=trusts(created, str(model), requested))
    return _predicting(created, trusted, allow_versions=allow_versions).reporting(report and _already)


def serve(
    model: str | Path | Bundle,
    *,
    options: ServerOptions | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    listening: OnProgress | None = None,
    ready: OnProgress | None = None,
) -> None:
    """Serve a model over HTTP in the foreground until SIGTERM or Ctrl-C.

    listening, ready: each called once with the service's URL.  Raises PortTaken, and the errors of `find` and
    `Bundle.engine`.
    """
    from likewise.server.run import run
    from likewise.serving import bundle_app

    options = options or ServerOptions()
    opened = bundle_of(model, trust, allow_versions)
    spec = opened.spec(engine, precision)
    allowed_engines(opened.manifest, spec)
    run(bundle_app(opened, spec, options), options, on_listening=listening, on_ready=ready)


def score(
    model: str | Path | Bundle,
    source: Any,
    output: str | Path,
    *,
    options: ScoreOptions | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> JobReport:
    """Score CSV, JSON Lines or Parquet files into `output`; returns the report, which is also in `_likewise.json`.

    source: a file, a folder or a glob pattern, local or `s3://`, or a pandas, Polars or PyArrow table; runners may
    support other inputs.  If a job was interrupted, the same call resumes it.  progress: by default a line in a
    notebook.
    Raises InputNotFound, InputInvalid, OutputRefused, ModelFailed, Interrupted, TooManyQuarantined, NothingScored, and
    the errors of `find` and `Bundle.engine`.
    """
    from likewise.batch import score as score_file
    from likewise.batch.frames import as_input
    from likewise.batch.runners import output_path

    opened = bundle_of(model, trust, allow_versions)
    spec = opened.spec(engine, precision)
    allowed_engines(opened.manifest, spec)
    lazy = LazyEngine(partial(open_engine, opened, spec))
    progress = progress or _job_line()
    if options is not None and options.params is not None:
        options = replace(options, params=ParamsFitter(opened.signature).strictly(options.params))
    try:
        with as_input(source, output_path(str(output))) as path:
            return score_file(lazy, opened.digest, opened.signature, path, output, options, progress, spec)
    finally:
        lazy.close()


def _job_line() -> Callable[[Progress], None] | None:
    """Shows the progress of a job in a notebook."""
    line, first = notebook_line(), None
    if line is None:
        return None

    def show(progress: Progress) -> None:
        nonlocal first
        first = first or progress
        line.show(progress.describe(first), progress.fraction)

    return show


def environment(
    model: str | Path | Bundle,
    *,
    engine: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    extras: Sequence[str] = (),
    report: OnProgress | None = None,
) -> Path | None:
    """The Python of an environment with the versions that `model` was logged with, created unless it is in the cache.

    None if no library of the model runs: `engine`, or the one that would be chosen, brings its own.  trust: whether all
    of its requirements are installed, or only the libraries of MLflow's flavors.  allow_versions: whether this Python
    may take the place of one that is not installed.  extras: of Likewise, to install as well.
    Raises EnvironmentFailed, OutputRefused, CodeNotTrusted, WrongUsage (a requirement is a URL or a path), and the
    errors of `open_bundle` and `bundle`.
    """
    from likewise.images.bundled_wheels import bundled_wheels
    from likewise.shipping.logged_environment import environment_python, wanted

    progress, requested = report or _already, Trust(allow=trust)
    needs = partial(wanted, extras=extras, other_python=allow_versions, report=progress)
    if isinstance(model, Bundle) or is_bundle(Path(model)):
        opened = model if isinstance(model, Bundle) else open_bundle(model, engine=engine, trust=trust)
        spec = opened.uncompared_spec(engine)
        if not logged_libraries(allowed_engines(opened.manifest, spec)[0]):
            return None
        wheels = bundled_wheels(opened, ()).values() if spec.trust else ()
        needed = needs(opened.manifest.environment, trusted=spec.trust, wheels=wheels)
        return environment_python(needed, progress)
    from likewise.builder.logged import fetched

    with fetched(str(model), requested) as (facts, code):
        kinds = [each for each in facts.kinds() if engine in (None, each.name) and (code or not each.runs_code)]
        if not all(kind.needs_libraries for kind in kinds):
            return None
        needed = needs(facts.environment, trusted=code)
    return environment_python(needed, progress)


def advice(bundle: Bundle) -> str | None:
    """A hint how to get the fastest engine; None if the engines have been measured on this kind of CPU."""
    return why_unmeasured(bundle, bundle.choice)


def selected(bundle: Bundle) -> str:
    """One line: the engine that is used, how it compares with plain `load_model` on this kind of CPU, what would help.

    Raises EngineUnavailable if the bundle has no such engine.
    """
    return describe_engine(bundle, bundle.uncompared_spec())


def bundle_of(model: str | Path | Bundle, trust: bool, allow_versions: bool = False) -> Bundle:
    """`model` itself if it is an open bundle, else the bundle that `find` opens."""
    return model if isinstance(model, Bundle) else find(model, trust=trust, allow_versions=allow_versions)
