"""Kinds of engines: the interface that each one implements, and the lookup by name.

A kind is one class.  It is found by an entry point of the group `likewise.engines`, whose name is the kind's name, so
that another package adds an engine as this one adds its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import ClassVar

from likewise.bundles.format import EngineEntry, LoggedEnvironment
from likewise.bundles.open import Bundle
from likewise.core.engine import Engine
from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.engine.engine_options import CompileOptions

GROUP = "likewise.engines"


@dataclass(frozen=True)
class ModelFacts:
    """What the `MLmodel` file of a logged model declares; nothing of the model has run.

    folder: the MLflow model.  flavors: as `MLmodel` has them, by name.  pipeline: the declared pipeline that needs none
    of the model's code, or None.  references: URIs that the model declares to open.  row_wise: as declared, else None.
    """

    folder: Path
    flavors: Mapping[str, Mapping[str, object]]
    signature_raw: Mapping[str, object] | None
    row_wise: bool | None
    references: tuple[str, ...]
    pipeline: Mapping[str, object] | None
    environment: LoggedEnvironment

    def engines(self) -> tuple[EngineEntry, ...]:
        """What runs this model without compiling, best first: engines that run its code come last."""
        return tuple(entry for kind in self.kinds() for entry in kind.offers(self))

    def kinds(self) -> list[EngineKind]:
        """The installed kinds that take this model."""
        return [kind for kind in kinds() if kind.takes(self)]

    @property
    def needs_code(self) -> bool:
        """Whether no engine can run this model without its own code."""
        return all(kind.runs_code for kind in self.kinds())


@dataclass(frozen=True, slots=True)
class ImageContents:
    """What a container image for an engine can do without.

    files: by distribution, patterns (`fnmatch`) of files in its wheel that the engine never opens.
    dependencies: by distribution, those that it declares and the engine never imports.
    """

    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dependencies: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CalibrationTexts:
    """Texts to calibrate an engine on.

    source: a description for the report.  factor: what measured drift is multiplied by; larger where the texts are
    generated and may lack the kind of text that drifts most.
    """

    values: tuple[str, ...]
    source: str
    factor: float


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What `EngineKind.compile` gets beside the bundle.

    texts: of the calibration file that the user gave, or None.  model: what is compiled.  work: a scratch folder.
    report: takes a line for the user.
    """

    options: CompileOptions
    texts: CalibrationTexts | None
    model: ModelFacts
    work: Path
    report: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CompiledEngines:
    """entries: new engines of the bundle, best first.  texts: a sample to time engines on, or none.

    failure: why no bundle may be made at all, where the engine is wrong on what the user gave or asked for.
    """

    entries: tuple[EngineEntry, ...] = ()
    texts: tuple[str, ...] = ()
    failure: LikewiseError | None = None


class EngineKind:
    """One way to run models: subclass it, and name the subclass in an entry point of the group `likewise.engines`.

    name: in manifests, options and labels; that of the entry point.  runs_code: whether `open` may execute the model's
    own Python code or unpickle its files, and so needs the user's trust; decided here, never by a file in a bundle.
    requirements: what it needs installed beside Likewise, as pip takes it.  library: the importable distribution that
    `likewise doctor` looks for, and purpose what it says of it.  image: what a container image can do without.
    The module of a kind is imported to look it up, so it imports heavy libraries only inside functions.
    """

    name: ClassVar[str]
    runs_code: ClassVar[bool] = True
    requirements: ClassVar[tuple[str, ...]] = ()
    library: ClassVar[str] = ""
    purpose: ClassVar[str] = ""
    image: ClassVar[ImageContents] = ImageContents()

    def takes(self, model: ModelFacts) -> bool:
        """Whether this kind can run `model`, as it was logged or compiled."""
        raise NotImplementedError

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:
        """The engines that run `model`, which this kind takes, as it was logged; none by default."""
        return ()

    def compile(self, bundle: Bundle, request: CompileRequest) -> CompiledEngines:
        """Compile the model, which this kind takes, into `engine/NAME/` of the unfinished `bundle`; nothing by default.

        Must not run the model's code unless `runs_code`.  Raises EngineUnavailable where it cannot be compiled here:
        that is reported, and the bundle is made without it.
        """
        return CompiledEngines()

    def open(self, bundle: Bundle, entry: EngineEntry) -> Engine:
        """Load the engine; it answers `entry.name` and `entry.precision` in its spec.

        Raises MissingExtra, EngineUnavailable (both: the next engine is tried), ModelInvalid.
        """
        raise NotImplementedError

    def unread(self, bundle: Bundle) -> Sequence[str]:
        """Files of the bundle, as its manifest names them, that the engine never opens; an image leaves them out."""
        return ()


def kinds() -> list[EngineKind]:
    """Every kind that is installed: those that run no code of the model's first, then by name.

    Raises EngineUnavailable for an entry point that does not load.
    """
    found = {point.name: point for point in (*_installed(tuple(sys.path)), *_own())}
    return sorted(map(_load, found.values()), key=lambda kind: (kind.runs_code, kind.name))


def kind_of(name: str) -> EngineKind:
    """The kind `name`; EngineUnavailable where none is installed."""
    point = next((each for each in _candidates() if each.name == name), None)
    if point is None:
        raise EngineUnavailable(
            f"no engine {name!r} is installed here",
            remedy="upgrade Likewise, or install the package that provides the engine",
        )
    return _load(point)


def runs_code(entry: EngineEntry) -> bool:
    """Whether the engine runs the model's own code, by its class; yes where that is not installed."""
    try:
        return kind_of(entry.name).runs_code
    except EngineUnavailable:
        return True


def _candidates() -> Iterator[EntryPoint]:
    """Ours first: reading every distribution's metadata takes a tenth of a second, and none may replace ours."""
    yield from _own()
    yield from _installed(tuple(sys.path))


@cache
def _installed(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001  read once a path
    return tuple(entry_points(group=GROUP))


@cache
def _own() -> tuple[EntryPoint, ...]:
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
    except Exception as error:  # whatever another package's module raises
        raise EngineUnavailable(
            f"the engine {point.name!r} ({point.value}) does not load: {type(error).__name__}: {error}",
            remedy="repair or uninstall the package that provides it",
        ) from error
    if not isinstance(kind, EngineKind) or kind.name != point.name:
        raise EngineUnavailable(
            f"the entry point {point.name!r} ({point.value}) does not name an EngineKind of that name",
            remedy="repair or uninstall the package that provides it",
        )
    return kind
