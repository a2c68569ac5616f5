"""Which names in a pickle are usual in models, which are unusual, and which are dangerous: the last by fickling."""

from __future__ import annotations

import contextlib
import io
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from functools import cache
from types import ModuleType

from likewise.builder.scan.findings import LEVELS, Import, Level
from likewise.builder.scan.machine import COMPUTED, Name, Walk
from likewise.core.extras import need

WELL_KNOWN = frozenset(
    {
        *("numpy", "scipy", "sklearn", "pandas", "xgboost", "lightgbm", "catboost", "torch", "statsmodels", "mlflow"),
        *("keras", "tensorflow"),
        *("builtins", "__builtin__", "collections", "copyreg", "copy_reg", "_codecs", "array", "datetime", "decimal"),
        *("enum", "fractions", "numbers", "pathlib", "random", "re", "zoneinfo"),
    }
)
ORDINARY = frozenset(
    {
        "joblib.numpy_pickle.NumpyArrayWrapper",
        "joblib.numpy_pickle_compat.NDArrayWrapper",
        "joblib.numpy_pickle_compat.ZNDArrayWrapper",
        "numpy.random._pickle.__randomstate_ctor",
        "numpy.random._pickle.__generator_ctor",
        "numpy.random._pickle.__bit_generator_ctor",
    }
)
"""Names that fickling rejects with their module, which do nothing but build the object of that name."""

CODE = frozenset({"cloudpickle", "dill", "types", "marshal"})  # packages that build functions from code in the pickle
_ACTIVE = re.compile(r"_*(?:load|read|eval|exec|open|run|compile|import|system|query|call|save|write|dump)")
_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
MOST_OPERATIONS, MOST_BYTES = 100_000, 4 << 20  # of a pickle that fickling's interpreter reads too


class Judge:
    """Judges names with fickling; raises MissingExtra if it is not installed."""

    def __init__(self) -> None:
        self._fickle: ModuleType = need("fickling.fickle", extra="mlflow")
        self._analysis: ModuleType = need("fickling.analysis", extra="mlflow")
        self.zip_file = need("fickling.loader", extra="mlflow").RelaxedZipFile  # reads what torch reads
        self.level = cache(self._highest)

    def imports(self, walk: Walk, operations: bytes | None = None) -> tuple[Import, ...]:
        """The names in a pickle, the most dangerous first.

        operations: the pickle without arrays, if fickling's interpreter shall look for further names.
        """
        further = set() if operations is None or COMPUTED in walk.uses else self._names(operations) - walk.uses.keys()
        uses = {**walk.uses, **dict.fromkeys(further, 1)}
        found = [Import(str(name), uses[name], walk.calls[name], *self.level(name)) for name in uses]
        return tuple(sorted(found, key=lambda each: (each.level != "dangerous", each.level != "unusual", each.name)))

    def dangerous(self, name: Name) -> bool:
        """Whether a pickle with this name can run any code."""
        level: Level = self.level(name)[0]
        return level == "dangerous"

    def _highest(self, name: Name) -> tuple[Level, str]:
        """The level and its reason, for the name as it is and as Python 3 reads it in a pickle of Python 2."""
        return max(self._level(name), self._level(_of_python_3(name)), key=lambda judged: LEVELS.index(judged[0]))

    def _level(self, name: Name) -> tuple[Level, str]:
        package = name.module.partition(".")[0]
        if name == COMPUTED:
            return "unusual", "cannot be known without loading it"
        if not _DOTTED.fullmatch(name.module) or not _DOTTED.fullmatch(name.name):
            return "unusual", "is not the name of a class or function"
        if str(name) in ORDINARY:
            return "usual", ""
        if self._rejected(name):
            return "dangerous", (
                "builds functions or classes from code in the file"
                if package in CODE
                else "can run any code, read or change files, or use the network"
            )
        if package not in WELL_KNOWN:
            return "unusual", "is not from a well-known library for models"
        if _ACTIVE.match(name.name.rpartition(".")[2]):
            return "unusual", "may load, change or run something"
        return "usual", ""

    def _rejected(self, name: Name) -> bool:
        """Fickling's opinion of a pickle that does nothing but name this class or function."""
        fickle, analysis = self._fickle, self._analysis
        with _quiet():
            pickled = fickle.Pickled([fickle.Global(f"{name.module} {name.name}"), fickle.Stop()])
            severity = analysis.check_safety(pickled).severity
        return bool(severity >= analysis.Severity.LIKELY_OVERTLY_MALICIOUS)

    def _names(self, operations: bytes) -> set[Name]:
        """The names that fickling's interpreter finds; none if the pickle has operations that it does not know."""
        try:
            with _quiet():
                nodes = self._fickle.Pickled.load(operations, fail_on_decode_error=False).properties.imports
        except Exception:  # noqa: BLE001  a second opinion: the pickle was read without it
            return set()
        return {
            Name(node.module, alias.name) for node in nodes if getattr(node, "module", None) for alias in node.names
        }


def _of_python_3(name: Name) -> Name:
    if (renamed := NAME_MAPPING.get((name.module, name.name))) is not None:
        return Name(*renamed)
    return Name(IMPORT_MAPPING.get(name.module, name.module), name.name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep fickling's warnings from stdout and stderr."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
