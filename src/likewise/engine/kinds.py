"""Engine kinds: the interface that each implements, and their lookup by name.

A kind is a class that is registered with an entry point in the group `likewise.engines`, under the kind's name.  Other
packages can add kinds in the same way as Likewise does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import ClassVar

from likewise.bundles.format import EngineEntry, LoggedEnvironment
from likewise.bundles.open import Bundle
from likewise.core.engine import Engine
from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.engine.engine_options import TOLERANT, CompileOptions

GROUP = "likewise.engines"


@dataclass(frozen=True)
class ModelFacts:
    """What the `MLmodel` file of a logged model declares; read without running the model's code.

    folder: the MLflow model.  flavors: by name, as in `MLmodel`.  signature_raw: as in `MLmodel`, or None.
    row_wise: whether its rows are independent, or None if not declared.
    references: URIs that the model opens according to its metadata.
    pipeline: the declared pipeline, which needs none of the model's code, or None.
    """

    folder: Path
    flavors: Mapping[str, Mapping[str, object]]
    signature_raw: Mapping[str, object] | None
    row_wise: bool | None
    references: tuple[str, ...]
    pipeline: Mapping[str, object] | None
    environment: LoggedEnvironment

    def engines(self) -> tuple[EngineEntry, ...]:
        """Engines that run this model without compilation, best first: engines that run its code come last."""
        return tuple(entry for kind in self.kinds() for entry in kind.offers(self))

    def kinds(self) -> list[EngineKind]:
        """The installed kinds that support this model."""
        return [kind for kind in kinds() if kind.takes(self)]

    def rows_independent(self) -> bool:
        """Whether the contract of the model's flavour, according to a kind that supports it, makes rows independent."""
        return any(kind.row_wise(self) for kind in self.kinds())

    @property
    def needs_code(self) -> bool:
        """Whether no engine can run this model without its own code."""
        return all(kind.runs_code for kind in self.kinds())


@dataclass(frozen=True, slots=True)
class ImageContents:
    """Files and dependencies that a container image for an engine does not need.

    files: for each distribution, `fnmatch` patterns of files in its wheel that the engine never opens.
    dependencies: for each distribution, its declared dependencies that the engine never imports.
    """

    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dependencies: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CalibrationTexts:
    """Texts to calibrate an engine on.

    source: a description for the report.  factor: the safety factor for the measured drift; larger for generated texts,
    which may lack the kind of text for which bf16 differs most from fp32.
    """

    values: tuple[str, ...]
    source: str
    factor: float


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """The arguments of `EngineKind.compile` in addition to the bundle.

    texts: from the user's calibration file, or None.  model: the model to compile.  work: a scratch folder.
    report: called with a line of text for the user.  progress: called with the completed fraction of what was reported
    last.  code: whether the model's own code may run.
    """

    options: CompileOptions
    texts: CalibrationTexts | None
    model: ModelFacts
    work: Path
    report: Callable[[str], None]
    progress: Callable[[float], None] | None = None
    code: bool = False


@dataclass(frozen=True, slots=True)
class CompiledEngines:
    """The result of `EngineKind.compile`.

    entries: new engines of the bundle, best first.  texts: a sample for timing engines, or empty.
    failure: an error that must stop the build, because the engine is wrong on the user's texts or options.
    measured: what was measured, for the manifest.
    """

    entries: tuple[EngineEntry, ...] = ()
    texts: tuple[str, ...] = ()
    failure: LikewiseError | None = None
    measured: Mapping[str, object] = field(default_factory=dict)


class EngineKind:
    """A way to run models. Subclass it and register the subclass with an entry point in the group `likewise.engines`.

    name: the name in manifests, options and labels, equal to the entry point's.  runs_code: whether `open` may execute
    the model's own Python code or unpickle its files, and so needs the user's trust; set by the class, never by a file
    in a bundle.  logged_libraries: whether it needs the libraries that the model was logged with although it runs no
    code of the model; one that runs code always does.  requirements: pip requirements in addition to Likewise.
    library: the importable distribution that `likewise doctor` checks, and purpose its description there.  image: what
    a container image does not need.
    The module of a kind is imported to look it up, so it should import heavy libraries only inside functions.
    """

    name: ClassVar[str]
    runs_code: ClassVar[bool] = True
    logged_libraries: ClassVar[bool] = False
    requirements: ClassVar[tuple[str, ...]] = ()
    library: ClassVar[str] = ""
    purpose: ClassVar[str] = ""
    image: ClassVar[ImageContents] = ImageContents()

    @property
    def needs_libraries(self) -> bool:
        """Whether it runs the model with the libraries that it was logged with, so that their versions matter."""
        return self.runs_code or self.logged_libraries

    def takes(self, model: ModelFacts) -> bool:
        """Whether this kind can run `model`, as logged or after compilation."""
        raise NotImplementedError

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:
        """The engines that run `model`, which `takes` has accepted, as it was logged; none by default."""
        return ()

    def row_wise(self, model: ModelFacts) -> bool:
        """Whether the contract of `model`'s flavour states that rows are independent, so that they may share a batch.

        A model's own declaration and the user's take precedence, and the build tries to refute it on the example.
        """
        return False

    def compile(self, bundle: Bundle, request: CompileRequest) -> CompiledEngines:
        """Compile the model into `engine/NAME/` of the unfinished `bundle`; does nothing by default.

        Only called for kinds that do not run the model's code, or if `request.code` is set.  Raises EngineUnavailable
        if compilation is not possible on this machine: it is reported, and the bundle is built without the engine.
        """
        return CompiledEngines()

    def open(self, bundle: Bundle, entry: EngineEntry) -> Engine:
        """Load the engine; its spec must have `entry.name` and `entry.precision`.

        Raises MissingExtra or EngineUnavailable (the next engine is tried in both cases), ModelInvalid.
        """
        raise NotImplementedError

    def approximate(self, entry: EngineEntry) -> bool:
        """Whether its numbers may differ from those of other engines, within a tolerance that `compile` has checked."""
        return entry.precision == TOLERANT

    def in_processes(self, bundle: Bundle) -> bool:
        """Whether a server should run it in worker processes, which can be ended, and use all cores."""
        return self.runs_code

    def libraries(self, logged: Sequence[str]) -> Sequence[str]:
        """Those of the model's `logged` requirement lines that the engine needs; its author chooses their versions."""
        return logged if self.needs_libraries else ()

    def unread(self, bundle: Bundle) -> Sequence[str]:
        """Files of the bundle, as named in its manifest, that the engine never opens; images omit them."""
        return ()


def kinds() -> list[EngineKind]:
    """All installed kinds: those that do not run the model's code first, then by name.

    Raises EngineUnavailable if an entry point does not load.
    """
    points = {point.name: point for point in (*_installed(tuple(sys.path)), *_built_in())}
    return sorted(map(_load, points.values()), key=lambda kind: (kind.runs_code, kind.name))


def kind_of(name: str) -> EngineKind:
    """The kind `name`; raises EngineUnavailable if it is not installed."""
    point = next((each for each in _candidates() if each.name == name), None)
    if point is None:
        raise EngineUnavailable(
            f"the engine {name!r} is not installed",
            remedy="upgrade Likewise, or install the package that provides the engine",
        )
    return _load(point)


def is_compiled(engines: Iterable[EngineEntry]) -> bool:
    """Whether one of them has compiled modules of a flavor or a pyfunc, which are timed on texts."""
    return any(entry.name.endswith("-openvino") for entry in engines)


def runs_code(entry: EngineEntry) -> bool:
    """Whether the engine runs the model's own code, according to its class; True if that is not installed."""
    try:
        return kind_of(entry.name).runs_code
    except EngineUnavailable:
        return True


def in_processes(entry: EngineEntry, bundle: Bundle) -> bool:
    """Whether a server should run the engine in worker processes; True if its class is not installed."""
    try:
        return kind_of(entry.name).in_processes(bundle)
    except EngineUnavailable:
        return True


def logged_libraries(entry: EngineEntry) -> bool:
    """Whether the versions of the model's own libraries matter to the engine; False if its class is not installed."""
    try:
        return kind_of(entry.name).needs_libraries
    except EngineUnavailable:
        return False


def _candidates() -> Iterator[EntryPoint]:
    """Entry points, built-in ones first: other packages cannot replace them, and reading all metadata takes 0.1 s."""
    yield from _built_in()
    yield from _installed(tuple(sys.path))


@cache
def _installed(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001  cached per path
    return tuple(entry_points(group=GROUP))


@cache
def _built_in() -> tuple[EntryPoint, ...]:
    try:
        return tuple(distribution("likewise").entry_points.select(group=GROUP))
    except PackageNotFoundError:
        return ()


@cache
def _load(point: EntryPoint) -> EngineKind:
    try:
        kind = point.load()()
    except LikewiseError:
        raise
    except Exception as error:  # another package's module may raise anything
        raise EngineUnavailable(
            f"the engine {point.name!r} ({point.value}) does not load: {type(error).__name__}: {error}",
            remedy="fix or uninstall the package that provides it",
        ) from error
    if not isinstance(kind, EngineKind) or kind.name != point.name:
        raise EngineUnavailable(
            f"the entry point {point.name!r} ({point.value}) does not refer to an EngineKind with that name",
            remedy="fix or uninstall the package that provides it",
        )
    return kind
