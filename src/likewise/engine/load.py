"""Which engine runs a bundle: the fastest that was measured on this kind of CPU, or the one that is named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.bundles.trust import Trust
from likewise.core.engine import Engine, EngineSpec, Work
from likewise.core.errors import EngineUnavailable, MissingExtra
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.core.spec import ModelSpec
from likewise.engine.engine_options import ANY, EngineOptions
from likewise.engine.kinds import kind_of, runs_code
from likewise.engine.rates import by_speed, cpu_class, known_rates, label


def open_engine(bundle: Bundle, model: ModelSpec) -> Engine:
    """Load the engine of `bundle` that `model` names, or else the fastest that runs here.

    Raises EngineUnavailable (no such engine, or none that runs here), CodeNotTrusted, and what loading raises.
    """
    options, trust = EngineOptions.of(model), Trust(allow=model.trust, entries=())
    entries = by_speed([e for e in bundle.manifest.engines if options.takes(e)], known_rates(bundle.manifest))
    if not entries:
        held = ", ".join(label(e) for e in bundle.manifest.engines) or "none"
        raise EngineUnavailable(f"the bundle has no engine {options}; it has: {held}", remedy=f"name one of: {held}")
    refused: MissingExtra | EngineUnavailable | None = None
    for entry in entries:
        try:
            return open_entry(bundle, entry, trust=trust)
        except (MissingExtra, EngineUnavailable) as error:
            refused = refused or error
    assert refused is not None  # noqa: S101  entries is not empty
    raise refused


def why_unmeasured(bundle: Bundle, options: EngineOptions = ANY) -> str | None:
    """A line for the user where engines could be chosen by speed and nobody has measured them on such a CPU."""
    choice = [e for e in bundle.manifest.engines if options.takes(e) and not runs_code(e)]
    if len(choice) < 2 or known_rates(bundle.manifest):
        return None
    first = label(by_speed(choice, {})[0])
    return (
        f"its engines were not measured on such a CPU ({cpu_class()}): {first} runs, the safe choice; to measure them: "
        f"likewise inspect {bundle.path} --measure"
    )


def open_entry(bundle: Bundle, entry: EngineEntry, *, trust: Trust) -> Engine:
    """Load this very engine; CodeNotTrusted where it runs the model's code and nobody allowed that."""
    kind = kind_of(entry.name)
    if kind.runs_code:
        trust.require_bundle(bundle)
    return kind.open(bundle, entry)


class LazyEngine:
    """An engine that loads when it is first asked for its spec or for work; never, where nobody asks.

    It loads once, whichever threads ask; anew, where it is asked after `close`.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._loaded: Engine | None = None
        self._lock = threading.Lock()

    @property
    def _engine(self) -> Engine:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    @property
    def spec(self) -> EngineSpec:
        return self._engine.spec

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return self._engine.prepare(items)

    def run(self, work: Sequence[Work]) -> list[Result]:
        return self._engine.run(work)

    def close(self) -> None:
        with self._lock:
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()
