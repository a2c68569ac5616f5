"""Keeps the Python code of several models in one process apart, although Python has one table of modules.

MLflow puts a model's `code/` folder at the front of `sys.path`, and leaves it there.  The second of two models with a
module of the same name, for example two versions of one model, would run the first one's module.

Here, the modules that were imported from a model's folder belong to that model.  They are in `sys.modules`, and its
folders in `sys.path`, only while the model loads or predicts; modules of the same names that the process had imported
are put aside during that time.  Such models therefore take turns in a process.  A model that contains no modules
does none of this and does not wait.

Limits: while a model runs, the other threads of the process find its modules too.  Between its calls, a thread that the
model has started keeps the modules that it has, but cannot import the model's own.  A module of an installed library
that imports a model's module keeps it.  Processes that several models share, such as joblib's, are not kept apart.  A
model must not wait for another thread that runs another model of the same process.
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import machinery
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Self

from likewise.bundles.open import Bundle

MODULES = (*machinery.all_suffixes(), ".zip", ".egg", ".whl")
CODE = "code"  # MLflow's name for the folder of a model's `code_paths`
# MLflow and Likewise exchange objects of these packages with a model, so it cannot have its own.
SHARED = frozenset({"likewise", "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "scipy"})

Link = tuple[ModuleType, str, ModuleType]  # a package, the name of an attribute, a module

_turn = threading.RLock()
_running: ModelCode | None = None


def model_code(bundle: Bundle) -> AbstractContextManager[object]:
    """The context in which the model of `bundle` must load and predict; it does nothing for a model without modules."""
    if not any(map(_is_module, bundle.manifest.files)):
        return nullcontext()
    models = [(bundle.path / name).parent for name in bundle.manifest.files if PurePosixPath(name).name == "MLmodel"]
    return ModelCode(bundle.path, [model / CODE for model in models if (model / CODE).is_dir()])


def _is_module(name: str) -> bool:
    """Whether the file `name` of a bundle can be imported; MLflow runs the script of a model under a unique name."""
    folder, *parts = PurePosixPath(name).parts
    return folder in ("model", "references") and len(parts) > 1 and name.endswith(MODULES)


class ModelCode:
    """A context in which the modules of one model are imported, and those of all other models are not.

    It may be entered by several threads, which wait for each other, and within the context of another model.
    """

    def __init__(self, bundle: Path, code: Iterable[Path]) -> None:
        """bundle: the folder whose modules are the model's.  code: the folders that MLflow adds to `sys.path`."""
        self._folders = tuple({f"{path}{os.sep}" for path in (os.path.abspath(bundle), bundle.resolve())})
        self._names = {name for folder in code for name in _modules_in(folder) if not _is_shared(name)}
        self._modules: dict[str, ModuleType] = {}
        self._links: list[Link] = []
        self._entries: list[str] = []  # of sys.path

    def __enter__(self) -> Self:
        global _running
        _turn.acquire()
        self._outer, _running = _running, self
        if self._outer is not None:
            self._outer._take_out()
        self._put_in()
        return self

    def __exit__(self, *raised: object) -> None:
        global _running
        try:
            self._take_out()
            _running = self._outer
            if self._outer is not None:
                self._outer._put_in()
        finally:
            _turn.release()

    def _put_in(self) -> None:
        self._path, self._path_before = sys.path, list(sys.path)
        sys.path[:0] = self._entries
        self._aside = _imported([name for name in self._names if name in sys.modules])
        self._aside_links = _links(self._aside)
        _pop(self._aside, self._aside_links)
        self._others = len(sys.modules)
        _restore(self._modules, self._links)
        self._state = _state()

    def _take_out(self) -> None:
        self._restore_path()
        if self._state is None or _state() != self._state:
            self._find_modules()
        self._modules = _pop(self._modules, self._links)
        _restore(self._aside, self._aside_links)

    def _find_modules(self) -> None:
        """Find out which modules were imported in this context."""
        names = dict.fromkeys([*self._modules, *list(sys.modules)[self._others :]])  # new modules are at the end
        found = {name: sys.modules[name] for name in names if name in sys.modules}
        self._modules = {n: module for n, module in found.items() if n in self._modules or self._owns(n, module)}
        self._links = _links(self._modules)
        self._names |= {name for name in self._modules if name.rpartition(".")[0] not in self._modules}
        for path in list(sys.path_importer_cache):
            if self._has(path):
                sys.path_importer_cache.pop(path, None)

    def _owns(self, name: str, module: object) -> bool:
        """Whether a module that was imported in this context belongs to the model."""
        parts = name.split(".")
        if any(".".join(parts[:count]) in self._names for count in range(1, len(parts) + 1)):
            return True
        facts = getattr(module, "__dict__", {})
        if isinstance(file := facts.get("__file__"), str):
            return self._has(file)
        folders = [str(folder) for folder in facts.get("__path__") or ()]  # of a package without `__init__.py`
        return bool(folders) and all(map(self._has, folders))

    def _has(self, path: str) -> bool:
        return f"{path}{os.sep}".startswith((*self._folders, *(f"{entry}{os.sep}" for entry in self._entries)))

    def _restore_path(self) -> None:
        """Make `sys.path` the list that it was; entries that a library has added stay in it."""
        before = self._path_before
        if sys.path is not self._path or sys.path != [*self._entries, *before]:
            expected = Counter(before)
            added: list[str] = []
            for entry in reversed(sys.path):  # MLflow adds entries at the front, even if they are in the path already
                expected[entry] -= 1
                if expected[entry] < 0:
                    added.insert(0, entry)
            self._entries = [entry for entry in added if self._adds(entry)]
            before = [*before, *(entry for entry in added if entry not in self._entries)]
        self._path[:] = before
        sys.path = self._path

    def _adds(self, entry: str) -> bool:
        """Whether a new entry of `sys.path` is the model's: in the bundle, or unpacked to a temporary folder."""
        if self._has(os.path.abspath(entry)):
            return True
        libraries = tuple(f"{folder}{os.sep}" for folder in self._path_before if folder)
        return entry.startswith(f"{tempfile.gettempdir()}{os.sep}") and not entry.startswith(libraries)


def _modules_in(folder: Path, parent: str = "") -> Iterator[str]:
    """The names of the modules and packages in `folder`, without those inside of packages."""
    for path in folder.iterdir():
        if not path.is_dir():
            if (name := inspect.getmodulename(path.name)) is not None:
                yield parent + name
        elif any(inspect.getmodulename(file.name) == "__init__" for file in path.iterdir()):
            yield parent + path.name
        else:
            yield from _modules_in(path, f"{parent}{path.name}.")


def _is_shared(name: str) -> bool:
    """Whether a model uses the process's module `name`, as in a dedicated process, which imports it earlier."""
    top = name.partition(".")[0]
    return top in SHARED or (top in sys.stdlib_module_names and top in sys.modules)


def _state() -> tuple[int, str] | None:
    """Changes when a module is imported or removed; None if another thread is doing so."""
    try:
        return len(sys.modules), next(reversed(sys.modules))
    except RuntimeError:
        return None


def _imported(names: Sequence[str]) -> dict[str, ModuleType]:
    """The modules `names` and those below them."""
    modules = {name: sys.modules[name] for name in names}
    below = tuple(f"{name}." for name, module in modules.items() if hasattr(module, "__path__"))
    return modules | (
        {name: sys.modules[name] for name in list(sys.modules) if name.startswith(below)} if below else {}
    )


def _links(modules: Mapping[str, ModuleType]) -> list[Link]:
    """The packages outside of `modules` of which they are attributes."""
    split = [(name.rpartition("."), module) for name, module in modules.items()]
    return [
        (sys.modules[package], attribute, module)
        for (package, _, attribute), module in split
        if package and package not in modules and package in sys.modules
    ]


def _pop(modules: Mapping[str, ModuleType], links: Iterable[Link]) -> dict[str, ModuleType]:
    """Remove `modules` from `sys.modules` and from packages; returns those that were there."""
    for package, attribute, module in links:
        if vars(package).get(attribute) is module:
            delattr(package, attribute)
    return {name: sys.modules.pop(name) for name in modules if name in sys.modules}


def _restore(modules: Mapping[str, ModuleType], links: Iterable[Link]) -> None:
    """Undo `_pop`."""
    for package, attribute, module in links:
        setattr(package, attribute, module)
    sys.modules.update(modules)
