"""Selects and loads the engine of a bundle: the requested one, or the fastest measured on this kind of CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from likewise.bundles.format import EngineEntry, Manifest
from likewise.bundles.open import Bundle
from likewise.bundles.trust import not_trusted
from likewise.core.engine import Engine, EngineSpec, Work
from likewise.core.errors import CodeNotTrusted, EngineUnavailable, MissingExtra, VersionsDiffer
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.core.spec import ModelSpec
from likewise.engine.code_free import why_code
from likewise.engine.engine_options import ANY, EngineOptions
from likewise.engine.kinds import is_compiled, kind_of, logged_libraries, runs_code
from likewise.engine.merging import describe_rows
from likewise.engine.rates import PLAIN, by_speed, cpu_class, known_rates, label, speeds
from likewise.engine.versions import mlmodel_of, versions_of

ALIKE = 0.87  # ratios between this and its inverse are noise


def allowed_engines(manifest: Manifest, model: ModelSpec) -> list[EngineEntry]:
    """The engines that `model` selects and that may run, the fastest on this machine first; at least one.

    Every interface calls this function before it loads, ships or installs anything.  An engine that runs the model's
    own code, according to its class, is allowed only if `model.trust` is set.
    Raises EngineUnavailable (no such engine), CodeNotTrusted (only engines that run the model's code match).
    """
    matching = _matching(manifest, model)
    if not matching:
        options = EngineOptions.of(model)
        available = ", ".join(label(e) for e in manifest.engines) or "none"
        raise EngineUnavailable(
            f"the bundle has no engine {options}; it has: {available}", remedy=f"use one of: {available}"
        )
    allowed = [entry for entry in matching if model.trust or not runs_code(entry)]
    if not allowed:
        raise not_trusted(f"the bundle {model.folder}", manifest.build)
    return allowed


def _matching(manifest: Manifest, model: ModelSpec) -> list[EngineEntry]:
    options = EngineOptions.of(model)
    return by_speed([e for e in manifest.engines if options.takes(e)], known_rates(manifest))


def open_engine(bundle: Bundle, model: ModelSpec) -> Engine:
    """Load the first of `allowed_engines` that runs on this machine.

    Raises EngineUnavailable (no such engine, or none that can run here), CodeNotTrusted, VersionsDiffer (unless
    `model.allow_versions`), and what loading raises.
    """
    return open_first(bundle, allowed_engines(bundle.manifest, model), model)


def open_first(bundle: Bundle, entries: Sequence[EngineEntry], model: ModelSpec) -> Engine:
    """`open_engine`, for a part of `allowed_engines`; at least one."""
    first_error: MissingExtra | EngineUnavailable | None = None
    for entry in entries:
        try:
            require_versions(bundle, entry, allow=model.allow_versions)
            return open_entry(bundle, entry)
        except (MissingExtra, EngineUnavailable) as error:
            first_error = first_error or error
    assert first_error is not None  # noqa: S101  there is at least one engine
    raise first_error


def require_versions(bundle: Bundle, entry: EngineEntry, *, allow: bool) -> str | None:
    """VersionsDiffer if `entry` needs libraries that differ too much from the logged ones, unless `allow` is set.

    Returns a line for the user on the differences that do not matter, None if there are none.
    """
    if not logged_libraries(entry):
        return None
    versions = versions_of(bundle)
    if not allow and (refusal := versions.refusal) is not None:
        raise refusal
    return versions.note


def check_versions(bundle: Bundle, model: ModelSpec) -> str | None:
    """`require_versions` for the first engine that may run `model` here; None if no engine may."""
    refused: VersionsDiffer | None = None
    for entry in _matching(bundle.manifest, model):
        if model.trust or not runs_code(entry):
            try:
                return require_versions(bundle, entry, allow=model.allow_versions)
            except VersionsDiffer as error:
                refused = refused or error
    if refused is not None:
        raise refused
    return None


def why_unmeasured(bundle: Bundle, options: EngineOptions = ANY) -> str | None:
    """A notice for the user if there are several engines but no speed measurements for this kind of CPU; else None."""
    candidates = [e for e in bundle.manifest.engines if options.takes(e) and not runs_code(e)]
    if len(candidates) < 2 or known_rates(bundle.manifest):
        return None
    first = label(by_speed(candidates, {})[0])
    return (
        f"the engines have not been measured on this kind of CPU ({cpu_class()}), so the safe choice {first} is used; "
        f"to measure them: likewise inspect {bundle.path} --measure"
    )


def describe_engine(bundle: Bundle, model: ModelSpec) -> str:
    """One line: the engine that is used first, how it compares with plain `load_model` here, and what would help."""
    rows = describe_rows(bundle.manifest)
    try:
        entry = allowed_engines(bundle.manifest, model)[0]
    except CodeNotTrusted:
        return f"no engine may run without --trust, because {why_code(bundle.model_path)}; {rows}"
    known = speeds(bundle.manifest)
    ours, plain = known.get(label(entry)), known.get(PLAIN)
    if ours is None:
        timed = bundle.manifest.pipeline is not None or is_compiled(bundle.manifest.engines)
        timed = timed or "saved_input_example_info" in mlmodel_of(bundle.model_path)
        how = f"likewise inspect {bundle.path} --measure" if timed else "log it with an input_example, which is timed"
        speed = f"not compared with plain load_model on this kind of CPU ({how})"
    elif plain is None:
        speed = f"{ours:,.0f} rows/s on this kind of CPU"
    else:
        speed = f"{_times(ours / plain)} plain load_model on this kind of CPU"
    return f"engine {label(entry)}: {speed}; {rows}"


def _times(ratio: float) -> str:
    if ALIKE <= ratio <= 1 / ALIKE:
        return "as fast as"
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x"


def open_entry(bundle: Bundle, entry: EngineEntry) -> Engine:
    """Load the engine `entry`, which `allowed_engines` returned; EngineUnavailable if this copy lacks files for it."""
    kind = kind_of(entry.name)
    if needed := sorted(bundle.missing.difference(kind.unread(bundle) if bundle.missing else ())):
        raise EngineUnavailable(
            f"this copy of the bundle lacks {needed[0]}, which the engine {entry.name} reads",
            remedy="use the engine that the image was built for, or build an image for this one",
        )
    return kind.open(bundle, entry)


class LazyEngine:
    """An engine that is loaded when its spec or a prediction is first needed.

    It is loaded only once, also with several threads, and again when it is used after `close`.
    """

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._loaded: Engine | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> Engine:
        """The engine itself, loaded if necessary."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    @property
    def spec(self) -> EngineSpec:
        return self.loaded.spec

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return self.loaded.prepare(items)

    def run(self, work: Sequence[Work]) -> list[Result]:
        return self.loaded.run(work)

    def close(self) -> None:
        with self._lock:
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()
