"""Compares the predictions of a bundle on this machine with those of other backends, row by row."""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from likewise import api
from likewise.batch import Progress
from likewise.batch.rows import single_value
from likewise.core.bounds import upper_bound
from likewise.core.errors import InputInvalid, LikewiseError, ModelFailed, WrongUsage
from likewise.core.notebook import notebook_report
from likewise.core.option_fields import nearest
from likewise.engine.accelerate.agreement import agreements_of
from likewise.engine.engine_options import EngineOptions
from likewise.parity.backends import Backend, backend, jobs
from likewise.parity.backends.scored import like
from likewise.parity.batches import batches, predict_batch
from likewise.parity.captured import captured_set
from likewise.parity.compare import Difference, Mismatch, RefusedRow, Tolerance, compare, paths, shown, via_json
from likewise.parity.comparison import Comparison
from likewise.parity.golden import EXPECTED, Golden, content, golden_set
from likewise.parity.result import MAX_SHOWN, BackendParity, Parity, judged
from likewise.parity.steps import with_steps
from likewise.parity.verify_options import VerifyOptions

MAX_KEPT = 1_000  # differing rows per backend
HERE = "this machine"
OnProgress = Callable[[str, Progress], None]


def verify(
    model: str | Path | api.Bundle,
    against: Sequence[str] = (),
    *,
    options: VerifyOptions | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    report: Callable[[str], None] | None = None,
    progress: OnProgress | None = None,
) -> Parity:
    """Predict the same rows on this machine and on each backend, and compare the predictions.

    against: `mlflow` (`mlflow.pyfunc.load_model(…).predict` with typed rows, which runs the model's own code) and
    `mlflow-serve` (its scoring server), names of deployments, URLs, `image:NAME:TAG`, `ray`, batch runners (`local`,
    `spark`, `spark://HOST:PORT`), files or folders that `likewise score` wrote.  May be empty if the golden file has
    expected predictions.  A URL's user information is sent as Basic credentials and does not appear in the result.
    engine, precision: to use on this machine.  allow_versions: see `Bundle`.  report: called with messages.  progress:
    called with the name of a backend and its progress.
    Raises WrongUsage, NotDeployed and InputNotFound (an unknown backend) before anything is loaded, then the errors of
    `find`, `golden_set` and `Bundle.engine`.  A backend that fails and predictions that differ do not raise an error.
    """
    options, report = options or VerifyOptions(), report or notebook_report()
    backends = backends_of(against, options)
    if isinstance(model, api.Bundle):
        bundle = model
    else:
        bundle = api.find(model, trust=trust, allow_versions=allow_versions, report=report)
    bundle = replace(bundle, choice=EngineOptions.of(bundle.spec(engine, precision)))
    if any(each.code for each in backends):
        bundle.trust.require_for_mlflow(bundle)
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    scored = next((each.scored for each in backends if each.scored is not None), None)
    golden = captured_set(options, bundle.signature, seed)
    if golden is None:
        golden = golden_set(options, bundle.model_path, bundle.signature, scored, seed)
    check_bound(golden, options)
    for each in backends:
        if each.job and each.scored is None:
            jobs.refuse(golden, each.name)
    if not backends and not golden.expected:
        raise WrongUsage(
            "there is nothing to compare with",
            remedy=f"add --against NAME, URL, local, spark or mlflow, or a column `{EXPECTED}` to the golden set",
        )
    say = report or (lambda _: None)
    say(f"{len(golden):,} rows of {golden.source}")
    for line in golden.omitted:
        say(line)
    uri = str(model.path if isinstance(model, api.Bundle) else model)
    run = _Run(golden, bundle, uri, options, seed, progress or (lambda *_: None), say)
    return run.result(backends)


def check_bound(golden: Golden, options: VerifyOptions) -> None:
    """InputInvalid if the rows are too few to prove `options.bound`, even if none differs."""
    rows = len(golden.expected) or len(golden)
    if options.bound is not None and options.wanted is not None and rows < options.wanted:
        with_answers = f", of which {rows:,} have an expected prediction" if rows < len(golden) else ""
        provable = math.ceil(1e4 * upper_bound(0, rows, options.confidence / 100)) / 100
        raise InputInvalid(
            f"{golden.source} has {len(golden):,} rows{with_answers}, and --bound {options.bound:g} takes "
            f"{options.wanted:,}",
            remedy=f"add rows, or use --bound {provable:g}" if provable < 100 else "add rows",
        )


def backends_of(against: Sequence[str], options: VerifyOptions) -> list[Backend]:
    """The backends that `against` names; raises NotDeployed, InputNotFound or WrongUsage for one that is unknown."""
    return [backend(where, options) for where in against]


@dataclass
class _Run:
    """One golden set, on this machine and on all backends."""

    golden: Golden
    bundle: api.Bundle
    model: str
    options: VerifyOptions
    seed: int
    progress: OnProgress
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._tolerance = Tolerance(self.options.tolerance, self.options.tolerance_of)
        self._ours: Sequence[object] = ()

    def result(self, backends: Sequence[Backend]) -> Parity:
        """Predict everywhere, one backend after the other."""
        label, ours = self._predicted_here()
        if (certificate := agreements_of(self.bundle.manifest).get(label)) is not None:
            self.say(f"{label} was compared when it was built: {certificate}")
        self._check(ours)
        self._ours = ours
        places = []
        if self.golden.expected:
            places.append(self._place(EXPECTED, self._expected(ours), None, single=False))
        for each in backends:
            comparison = self._comparison(ours, each.name)
            comparison.report(0)  # it may take long to start
            error: LikewiseError | None = None
            try:
                each.predict(comparison)
            except LikewiseError as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001  the other backends are compared nevertheless
                error = LikewiseError(f"{type(failure).__name__}: {failure}", remedy="report this as a bug")
            places.append(self._place(each.name, comparison, error, single=each.job))
        golden, options, bundle = self.golden, self.options, self.bundle
        return Parity(
            bundle=bundle.digest,
            build=bundle.build,
            engine=label,
            certificate=None if certificate is None else str(certificate),
            golden=golden.source,
            rows=len(golden),
            tolerance=options.tolerance,
            tolerance_of=options.tolerance_of,
            allow=options.allow,
            max_p99=options.max_p99,
            confidence=options.confidence / 100,
            seed=self.seed,
            places=tuple(places),
            left_out=golden.left_out,
            why=golden.why,
            omitted=tuple(golden.omitted),
        )

    def _check(self, ours: Sequence[object]) -> None:
        """Raise ModelFailed if this machine predicts no row, WrongUsage if a tolerance is for none of its values."""
        refused = [each for each in ours if isinstance(each, RefusedRow)]
        if len(refused) == len(ours):
            raise ModelFailed(
                f"this machine refuses all {len(ours):,} rows; the first: {shown(refused[0])}",
                remedy="correct the golden set, or the model",
            )
        if not self.options.tolerance_of:
            return
        found = {path for each in ours if not isinstance(each, RefusedRow) for path in paths(each)}
        for name in self.options.tolerance_of:
            if name not in found:
                raise WrongUsage(
                    f"--tolerance-of {name}: no prediction has such a part",
                    remedy=f"{nearest(name, found)}the predictions have: {', '.join(sorted(found)) or 'one value'}",
                )

    def _comparison(self, ours: Sequence[object], where: str) -> Comparison:
        order = random.Random(f"{self.seed} {where}")  # noqa: S311  only the order depends on it
        return Comparison(self.golden, ours, self.bundle, self.model, order, lambda each: self.progress(where, each))

    def _predicted_here(self) -> tuple[str, list[object]]:
        """The engine's label and the predictions, as a client receives them: encoded to JSON and decoded again."""
        comparison = self._comparison((), HERE)
        with closing(self.bundle.engine()) as engine:
            for batch in batches(self.golden.items, engine.spec.row_wise):
                comparison.answered(batch.indices, [via_json(each) for each in predict_batch(engine, batch)])
            return engine.spec.label, [comparison.answers[index] for index in range(len(self.golden))]

    def _expected(self, ours: Sequence[object]) -> Comparison:
        """The right predictions: records, or the value of a single column without its name."""
        mine = list(ours)
        found = self._comparison(mine, EXPECTED)
        for index, value in self.golden.expected.items():
            whole, record = mine[index], like(value, mine[index], self.golden.format)
            if not (isinstance(record, dict) and isinstance(whole, dict) and record.keys() == whole.keys()):
                mine[index] = self._single(whole)
            found.answers[index] = like(value, mine[index], self.golden.format)
        return found

    def _single(self, value: object) -> object:
        """A prediction as jobs write it: without the name of a single column."""
        return value if isinstance(value, RefusedRow) else single_value(value, self.bundle.signature.outputs)

    def _tolerance_for(self, index: int, part: object) -> Tolerance:
        """The tolerance for what is compared: a prediction, or the value of its single column."""
        whole = self._ours[index]
        if isinstance(whole, dict) and len(whole) == 1 and part is not whole:
            return replace(self._tolerance, base=tuple(whole))
        return self._tolerance

    def _place(self, where: str, found: Comparison, error: LikewiseError | None, *, single: bool) -> BackendParity:
        """Compare the answers of a backend.

        single: whether they are without the name of a single column, as jobs write them.
        """
        seconds = time.monotonic() - found.started
        same = close = differ = refused = 0
        largest = 0.0
        differences: list[Difference] = []
        for index, theirs in sorted(found.answers.items()):
            ours = self._single(found.ours[index]) if single else found.ours[index]
            outcome = compare(ours, theirs, self._tolerance_for(index, ours))
            if isinstance(outcome, Mismatch):
                differ += 1
                if len(differences) < MAX_KEPT:
                    row = shown(via_json(content(self.golden.items[index])))
                    differences.append(Difference(index, row, outcome.path, outcome.here, outcome.there))
            elif isinstance(ours, RefusedRow):
                same, refused = same + 1, refused + 1
            elif ours == theirs:
                same += 1
            else:
                close, largest = close + 1, max(largest, outcome)
        first = differences[:MAX_SHOWN]
        with suppress(Exception):  # they are an explanation only
            first = with_steps(first, where, found, self._tolerance) if differ else []
        numbered = [replace(each, row=self.golden.number(each.row)) for each in [*first, *differences[MAX_SHOWN:]]]
        total = len(self.golden.expected) if where == EXPECTED else len(self.golden)
        counts = {
            "bundle": found.served.bundle,
            "build": found.served.build,
            "rows": len(found.answers),
            "same": same,
            "close": close,
            "differ": differ,
            "refused": refused,
            "missing": total - len(found.answers),
            "largest": largest,
            "seconds": seconds,
        }
        failure = None if error is None else error.as_dict()
        place = judged(where, counts, found.latencies, self.options, failure, numbered)
        self.say(f"{where}: {place.verdict}; {place.proves(self.options.confidence / 100)}")
        return place
