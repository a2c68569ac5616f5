"""What a scan found, and how fickling judges it: usual in models, unusual or dangerous."""

from __future__ import annotations

import io
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Literal

from likewise.builder.scan.pickles import WRAPPER, Name
from likewise.core.extras import need

Level = Literal["usual", "unusual", "dangerous"]
LEVELS: tuple[Level, ...] = ("usual", "unusual", "dangerous")
WELL_KNOWN = {
    *("numpy", "scipy", "sklearn", "pandas", "xgboost", "lightgbm", "catboost", "torch", "statsmodels", "mlflow"),
    *("keras", "tensorflow", "builtins", "__builtin__", "collections", "copyreg", "copy_reg", "_codecs", "array"),
    *("datetime", "decimal", "enum", "fractions", "numbers", "pathlib", "random", "re", "zoneinfo"),
}
ORDINARY = {  # fickling rejects them with their module, but they only build the object of that name
    WRAPPER,
    *(Name("numpy.random._pickle", f"__{kind}_ctor") for kind in ("randomstate", "generator", "bit_generator")),
}
CODE = {"cloudpickle", "dill", "types", "marshal"}  # packages that build functions from code in the pickle
_ACTIVE = re.compile(r"_*(?:load|read|eval|exec|open|run|compile|import|system|query|call|save|write|dump)")
_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def plain(text: str) -> str:
    """`text`, which anybody may have written, for a terminal: without control characters, and not too long."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:300])


@dataclass(frozen=True, slots=True)
class Import:
    """A class or function, dotted with its module, that loading a file imports.  why: empty for the level `usual`."""

    path: str
    name: str
    level: Level
    why: str


@dataclass(frozen=True, slots=True)
class Remark:
    """A text about a file, for example that it contains code."""

    path: str
    text: str


@dataclass
class Scan:
    """What one model contains.  digest: of a bundle.  files: how many were read.  code: runs without being in a pickle.

    In a path, `!` separates an archive from its member.
    """

    model: str
    digest: str | None = None
    files: int = 0
    imports: list[Import] = field(default_factory=list)
    code: list[Remark] = field(default_factory=list)
    not_analysed: list[Remark] = field(default_factory=list)

    @property
    def level(self) -> Level:
        """The highest level of anything found; code is `unusual`, because only a person can judge it."""
        return max([*(each.level for each in self.imports), "unusual" if self.code else "usual"], key=LEVELS.index)

    def reaches(self, level: str) -> bool:
        """Whether anything of `level` or above was found, or might be in a file that was not analysed."""
        return bool(self.not_analysed) or LEVELS.index(self.level) >= LEVELS.index(level)

    def as_dict(self) -> Mapping[str, object]:
        """The JSON object that `likewise scan --json` prints."""
        return {**asdict(self), "level": self.level, "complete": not self.not_analysed}


def imports(path: str, names: Iterable[Name]) -> list[Import]:
    """The names in a file with their levels; raises MissingExtra if fickling is not installed."""
    return [Import(plain(path), plain(".".join(filter(None, name))), *level(name)) for name in names]


@cache
def level(name: Name) -> tuple[Level, str]:
    """The level and its reason, for the name, as Python 3 reads it in a pickle of Python 2, and for its parts."""
    renamed = NAME_MAPPING.get(name, (IMPORT_MAPPING.get(name.module, name.module), name.name))
    parts = name.name.split(".")
    return max(map(_level, (name, Name(*renamed), *map(Name, parts, parts[1:]))), key=lambda one: LEVELS.index(one[0]))


def _level(name: Name) -> tuple[Level, str]:
    package = name.module.partition(".")[0]
    if not _DOTTED.fullmatch(name.module) or not _DOTTED.fullmatch(name.name):
        return "unusual", "is not the name of a class or function"
    if name in ORDINARY:
        return "usual", ""
    if _rejected(name):
        if package in CODE:
            return "dangerous", "builds functions or classes from code in the file"
        return "dangerous", "can run any code, read or change files, or use the network"
    if package not in WELL_KNOWN:
        return "unusual", "is not from a well-known library for models"
    if "." in name.name or _ACTIVE.match(name.name):
        return "unusual", "may load, change or run something"
    return "usual", ""


def _rejected(name: Name) -> bool:
    """Fickling's opinion of a pickle that does nothing but name this class or function, without its warnings."""
    fickle, analysis = (need(f"fickling.{module}", extra="mlflow") for module in ("fickle", "analysis"))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        severity = analysis.check_safety(fickle.Pickled([fickle.Global(" ".join(name)), fickle.Stop()])).severity
    return bool(severity >= analysis.Severity.LIKELY_OVERTLY_MALICIOUS)
