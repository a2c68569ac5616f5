"""Compares the predictions of a bundle on this machine with those of other backends, row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from likewise import api
from likewise.core.errors import WrongUsage
from likewise.core.signature import Field
from likewise.core.uris import redacted
from likewise.engine.engine_options import EngineOptions
from likewise.parity.backends import predict_locally, predict_on
from likewise.parity.compare import Difference, RefusedRow, distance, shown
from likewise.parity.golden import Golden, golden_rows, logged_example
from likewise.parity.verify_options import VerifyOptions
from likewise.targets.http_client import Served

MAX_SHOWN = 5  # differing rows reported per backend


@dataclass(frozen=True, slots=True)
class BackendParity:
    """The comparison of one backend with this machine.

    bundle, build: model digest and build digest of what it serves, None if unknown. same: rows with identical
    predictions. close: rows whose numbers differ within the tolerance, by `largest` at most. differ: all other rows;
    `first` has a few of them. refused: rows that both sides refuse (included in `same`). seconds: duration, including
    the start of processes.
    """

    where: str
    bundle: str | None
    build: str | None
    rows: int
    same: int
    close: int
    differ: int
    refused: int
    largest: float
    seconds: float
    first: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether no row differs."""
        return self.differ == 0


@dataclass(frozen=True, slots=True)
class Parity:
    """The result of a comparison, with one entry in `places` per backend.

    bundle, build: model digest and build digest. golden: source of the rows. engine: label of the engine that ran on
    this machine.
    """

    bundle: str
    build: str
    engine: str
    golden: str
    rows: int
    tolerance: float
    places: tuple[BackendParity, ...]

    @property
    def agrees(self) -> bool:
        """Whether every backend agrees."""
        return all(backend.agrees for backend in self.places)

    def as_dict(self) -> dict[str, object]:
        """The JSON object that `likewise verify --json` prints."""
        places = [{**asdict(backend), "agrees": backend.agrees} for backend in self.places]
        return {**asdict(self), "places": places, "agrees": self.agrees}


def verify(
    model: str | Path | api.Bundle,
    against: Sequence[str],
    *,
    options: VerifyOptions | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    report: Callable[[str], None] | None = None,
) -> Parity:
    """Predict the same rows on this machine and on each backend, and compare the predictions.

    against: names of deployments, URLs, batch runners (`local`, `spark`), or `mlflow` (plain
    `mlflow.pyfunc.load_model`, which runs the model's own code).  A URL's user information is sent as Basic credentials
    and does not appear in the result.  engine, precision: to use on this machine.  allow_versions: see `Bundle`.
    Raises WrongUsage, the errors of `find` and `Bundle.engine`, and NotDeployed, TargetUnavailable or DeployFailed if a
    backend does not respond properly. Predictions that differ do not raise an error.
    """
    options, report_progress = options or VerifyOptions(), report or (lambda _: None)
    if not against:
        raise WrongUsage("there is nothing to compare with", remedy="add --against NAME, URL, local, spark or mlflow")
    if isinstance(model, api.Bundle):
        bundle = model
    else:
        bundle = api.find(model, trust=trust, allow_versions=allow_versions, report=report)
    bundle = replace(bundle, choice=EngineOptions.of(bundle.spec(engine, precision)))
    golden = _golden(bundle, options)
    report_progress(f"{len(golden)} rows of {golden.source}")
    label, ours = predict_locally(golden, bundle)
    uri, backends = str(model.path if isinstance(model, api.Bundle) else model), []
    for where in against:
        start = time.monotonic()
        serving, theirs = predict_on(where, golden, bundle, uri, options)
        pairs = _pairs(ours, theirs, bundle.signature.outputs)
        backend = _compare(redacted(where), serving, pairs, options.tolerance, time.monotonic() - start)
        backends.append(backend)
        report_progress(f"{backend.where}: {backend.rows - backend.differ} of {backend.rows} rows agree")
    return Parity(bundle.digest, bundle.build, label, golden.source, len(golden), options.tolerance, tuple(backends))


def _golden(bundle: api.Bundle, options: VerifyOptions) -> Golden:
    if options.golden is None:
        return logged_example(bundle.model_path, bundle.signature)
    return golden_rows(options.golden, bundle.signature, options.column, options.header)


def _compare(
    where: str, serving: Served, pairs: Sequence[tuple[object, object]], tolerance: float, seconds: float
) -> BackendParity:
    distances = [distance(*pair, tolerance) for pair in pairs]
    differ = [row for row, each in enumerate(distances) if each is None]
    close = [each for each, (a, b) in zip(distances, pairs, strict=True) if each is not None and not _identical(a, b)]
    return BackendParity(
        where,
        *serving,
        rows=len(pairs),
        same=len(pairs) - len(close) - len(differ),
        close=len(close),
        differ=len(differ),
        refused=sum(isinstance(a, RefusedRow) and isinstance(b, RefusedRow) for a, b in pairs),
        largest=max(close, default=0.0),
        seconds=seconds,
        first=tuple(Difference(row, shown(pairs[row][0]), shown(pairs[row][1])) for row in differ[:MAX_SHOWN]),
    )


def _identical(a: object, b: object) -> bool:
    return a == b or (isinstance(a, RefusedRow) and isinstance(b, RefusedRow))


def _pairs(
    ours: Sequence[object], theirs: Sequence[object], outputs: tuple[Field, ...] | None
) -> list[tuple[object, object]]:
    """The predictions of both sides by row. If one side has a single one for all rows, it is repeated for each row."""
    count = max(len(ours), len(theirs))
    sides = [[_value(each, outputs) for each in side] * (count if len(side) == 1 else 1) for side in (ours, theirs)]
    return list(zip(*sides, strict=True))


def _value(prediction: object, outputs: tuple[Field, ...] | None) -> object:
    """The value of a record with a single column, which batch jobs write without its name."""
    if isinstance(prediction, dict) and len(prediction) == 1:
        ((name, value),) = prediction.items()
        return value if outputs is None or [field.name for field in outputs] == [name] else prediction
    return prediction
