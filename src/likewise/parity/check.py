"""The comparison: what the bundle answers here, and what each place answers, row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from likewise import api
from likewise.core.errors import WrongUsage
from likewise.core.signature import Field
from likewise.engine.engine_options import EngineOptions
from likewise.parity.backends import here, there
from likewise.parity.compare import Difference, RefusedRow, distance, shown
from likewise.parity.golden import Golden, golden_rows, logged_example
from likewise.parity.verify_options import VerifyOptions

MOST_SHOWN = 5  # differing rows of a place


@dataclass(frozen=True, slots=True)
class PlaceParity:
    """One place's answers beside those here.

    bundle: digest of the one that it serves, None where it does not say. same: rows that are answered alike to the
    letter; close: those whose numbers differ within the tolerance, by `largest` at most; differ: all others, of which
    `first` has a few. refused: rows that neither answers (counted under `same`). seconds: what the asking took, starts
    of processes included.
    """

    where: str
    bundle: str | None
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
        """Whether no row is answered in two ways."""
        return self.differ == 0


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared, and how each place did.

    golden: where the rows are from. engine: the one that answered here.
    """

    bundle: str
    engine: str
    golden: str
    rows: int
    tolerance: float
    places: tuple[PlaceParity, ...]

    @property
    def agrees(self) -> bool:
        """Whether every place does."""
        return all(place.agrees for place in self.places)

    def as_dict(self) -> dict[str, object]:
        """As `likewise verify --json` prints it."""
        places = [{**asdict(place), "agrees": place.agrees} for place in self.places]
        return {**asdict(self), "places": places, "agrees": self.agrees}


def verify(
    model: str | Path | api.Bundle,
    against: Sequence[str],
    *,
    options: VerifyOptions | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    report: Callable[[str], None] | None = None,
) -> Parity:
    """Ask the bundle here and each place the same rows, and compare their answers.

    against: names of deployments, URLs, runners of batch jobs (`local`, `spark`), `mlflow` (plain
    `mlflow.pyfunc.load_model`, which runs the model's own code).  engine, precision: of the answers here.
    Raises WrongUsage, what `find` and `Bundle.engine` raise, and where a place does not answer at all NotDeployed,
    TargetUnavailable or DeployFailed; answers that differ are no error.
    """
    options, tell = options or VerifyOptions(), report or (lambda _: None)
    if not against:
        raise WrongUsage("there is nothing to compare with", remedy="--against NAME, a URL, local, spark or mlflow")
    found = model if isinstance(model, api.Bundle) else api.find(model, trust=trust, report=report)
    chosen = replace(found, choice=EngineOptions.of(found.spec(engine, precision)))
    golden = _golden(chosen, options)
    tell(f"{len(golden)} rows of {golden.source}")
    label, ours = here(golden, chosen)
    uri, places = str(model.path if isinstance(model, api.Bundle) else model), []
    for where in against:
        begun = time.monotonic()
        digest, theirs = there(where, golden, chosen, uri, options)
        pairs = _paired(ours, theirs, found.signature.outputs)
        places.append(_compared(where, digest, pairs, options.tolerance, time.monotonic() - begun))
        tell(f"{where}: {places[-1].rows - places[-1].differ} of {places[-1].rows} rows agree")
    return Parity(found.digest, label, golden.source, len(golden), options.tolerance, tuple(places))


def _golden(bundle: api.Bundle, options: VerifyOptions) -> Golden:
    if options.golden is None:
        return logged_example(bundle.model_path, bundle.signature)
    return golden_rows(options.golden, bundle.signature, options.column)


def _compared(
    where: str, bundle: str | None, pairs: Sequence[tuple[object, object]], tolerance: float, seconds: float
) -> PlaceParity:
    apart = [distance(*pair, tolerance) for pair in pairs]
    differ = [row for row, found in enumerate(apart) if found is None]
    close = [found for found, (a, b) in zip(apart, pairs, strict=True) if found is not None and not _alike(a, b)]
    return PlaceParity(
        where,
        bundle,
        rows=len(pairs),
        same=len(pairs) - len(close) - len(differ),
        close=len(close),
        differ=len(differ),
        refused=sum(isinstance(a, RefusedRow) and isinstance(b, RefusedRow) for a, b in pairs),
        largest=max(close, default=0.0),
        seconds=seconds,
        first=tuple(Difference(row, shown(pairs[row][0]), shown(pairs[row][1])) for row in differ[:MOST_SHOWN]),
    )


def _alike(a: object, b: object) -> bool:
    return a == b or (isinstance(a, RefusedRow) and isinstance(b, RefusedRow))


def _paired(
    here: Sequence[object], there: Sequence[object], outputs: tuple[Field, ...] | None
) -> list[tuple[object, object]]:
    """By row; where only one of the two has an answer for each row, the other's is each row's."""
    most = max(len(here), len(there))
    longer = [[_value(each, outputs) for each in side] * (most if len(side) == 1 else 1) for side in (here, there)]
    return list(zip(*longer, strict=True))


def _value(answer: object, outputs: tuple[Field, ...] | None) -> object:
    """The one value of a record with one column, which batch jobs write without its name."""
    if isinstance(answer, dict) and len(answer) == 1:
        ((name, value),) = answer.items()
        return value if outputs is None or [field.name for field in outputs] == [name] else answer
    return answer
