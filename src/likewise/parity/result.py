"""The result of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from likewise.core.bounds import stated, upper_bound
from likewise.core.extras import need
from likewise.parity.compare import Difference
from likewise.parity.verify_options import VerifyOptions

EXIT_FAILED, EXIT_DIFFERENT = 1, 3
MAX_SHOWN = 5  # differing rows that are printed per backend


@dataclass(frozen=True, slots=True)
class BackendParity:
    """The comparison of one backend with this machine.

    bundle, build: model digest and build digest of what it serves, None if unknown.  rows: compared.  same: rows with
    identical predictions.  close: rows whose numbers differ within the tolerance, by `largest` at most.  differ: all
    other rows; `differences` has the first thousand.  refused: rows that both sides refuse (included in `same`).
    missing: rows without an answer, because the backend failed with `error`.  seconds: duration, including the start
    of processes.  p50_ms, p99_ms: of its requests, None for jobs and files.  bound: at most this fraction of all rows
    differ, at the confidence of the comparison.  few: whether no more rows differ than are allowed.  slow: whether
    p99_ms exceeds the limit.
    """

    where: str
    bundle: str | None
    build: str | None
    rows: int
    same: int
    close: int
    differ: int
    refused: int
    missing: int
    largest: float
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    bound: float
    few: bool
    slow: bool
    error: Mapping[str, str] | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether few rows differ, all are answered, and it is not slow."""
        return self.few and not (self.slow or self.missing or self.error)

    @property
    def verdict(self) -> str:
        """`agrees`, `differs`, `failed` or `slow`."""
        if self.agrees:
            return "agrees"
        if self.error or self.missing:
            return "failed"
        return "slow" if self.slow and self.few else "differs"

    @property
    def first(self) -> tuple[Difference, ...]:
        """The first few differences."""
        return self.differences[:MAX_SHOWN]

    def proves(self, confidence: float) -> str:
        """`0 of 2,500 rows differ: at most 0.12 % differ, at 95 % confidence`."""
        return f"{self.differ:,} of {self.rows:,} rows differ: {stated(self.differ, self.rows, confidence)}"


@dataclass(frozen=True, slots=True, repr=False)
class Parity:
    """The result of a comparison, with one entry in `places` per backend.

    bundle, build: model digest and build digest.  golden: source of the rows.  engine: label of the engine that ran on
    this machine.  left_out: rows that cannot be read; `why` the first cannot.  omitted: these and others that are not
    compared, in words.  confidence: of the bounds, 0 to 1.  seed: repeats the sample, the order and the sizes of
    requests.  certificate: how that engine agreed with `load_model` when it was built, if it is a compiled one.
    """

    bundle: str
    build: str
    engine: str
    golden: str
    rows: int
    tolerance: float
    tolerance_of: Mapping[str, float]
    allow: float
    max_p99: float | None
    confidence: float
    seed: int
    places: tuple[BackendParity, ...]
    left_out: int = 0
    why: str = ""
    omitted: tuple[str, ...] = ()
    certificate: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether every backend agrees."""
        return all(backend.agrees for backend in self.places)

    @property
    def bound(self) -> float:
        """At most this fraction of all rows differ on any backend, at this confidence, 0 to 1."""
        return max((backend.bound for backend in self.places), default=1.0)

    @property
    def exit_code(self) -> int:
        """0 if every backend agrees, 3 if one has too many differences, else 1."""
        if self.agrees:
            return 0
        return EXIT_FAILED if all(each.few for each in self.places) else EXIT_DIFFERENT

    @property
    def differences(self) -> Any:
        """The differing rows as a pandas data frame: backend, row, given, path, here, there, step."""
        rows = [{"backend": place.where, **asdict(each)} for place in self.places for each in place.differences]
        columns = ["backend", *Difference.__dataclass_fields__]
        return need("pandas", extra="mlflow").DataFrame(rows, columns=columns)

    def as_dict(self) -> dict[str, object]:
        """The JSON object that `likewise verify --json` prints."""
        places = [
            {
                **asdict(each),
                "agrees": each.agrees,
                "verdict": each.verdict,
                "proves": each.proves(self.confidence),
                "first": [asdict(one) for one in each.first],
            }
            for each in self.places
        ]
        rest = {"places": places, "agrees": self.agrees, "bound": self.bound}
        return {**{name: getattr(self, name) for name in self.__slots__}, **rest}

    def __repr__(self) -> str:
        verdicts = ", ".join(f"{each.where} {each.verdict}" for each in self.places)
        return f"<Parity: {self.rows:,} rows of {self.golden}, {self.engine} against {verdicts}>"

    def _repr_html_(self) -> str:
        from likewise.parity.report import fragment

        return fragment(self)


def judged(
    where: str,
    counts: Mapping[str, Any],
    latencies: Sequence[float],
    options: VerifyOptions,
    error: Mapping[str, str] | None,
    differences: Sequence[Difference],
) -> BackendParity:
    """The entry of a backend.  counts: the fields that are counted or measured."""
    p50, p99 = (_quantile(latencies, part) for part in (0.5, 0.99))
    return BackendParity(
        where,
        **counts,
        p50_ms=p50,
        p99_ms=p99,
        bound=upper_bound(counts["differ"], counts["rows"], options.confidence / 100),
        few=100 * counts["differ"] <= options.allow * max(1, counts["rows"]),
        slow=options.max_p99 is not None and p99 is not None and p99 > options.max_p99,
        error=error,
        differences=tuple(differences),
    )


def _quantile(seconds: Sequence[float], part: float) -> float | None:
    """The nearest-rank quantile in milliseconds; None without any."""
    ordered = sorted(seconds)
    return round(1e3 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3) if ordered else None
