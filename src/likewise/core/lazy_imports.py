"""Modules that are imported when they are first used, for libraries that import at their start what few models need."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_executing = threading.RLock()


@contextmanager
def executed_when_used(*packages: str) -> Iterator[None]:
    """`packages` that are imported in this context run their code when they are first used after it.

    In the context, a module inside of a package can be imported without running the package, because a library may do
    that while it is half imported; `importlib.util.LazyLoader` would run it then.  Afterwards, a package runs before
    what is inside of it, as usual.  Packages that are already imported stay as they are.
    """
    finder = _Finder(frozenset(packages) - sys.modules.keys())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.packages:
            if isinstance(package := sys.modules.get(name), _Package) and _PENDING in vars(package):
                _wait(package, vars(package)[_PENDING])


class _Finder:
    def __init__(self, packages: frozenset[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in self.packages else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)  # type: ignore[assignment]
        return spec


class _Later:
    """Creates a package without running its code."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        vars(module)[_PENDING] = self._loader


_PENDING = "__likewise_pending__"
_PUBLIC = ("__all__", "__path__")


def _wait(package: ModuleType, loader: Any) -> None:
    """Let `loader` run the package when it is used, also by an import of what is inside, which needs its path."""
    vars(package).pop("__path__", None)
    vars(package)[_PENDING] = loader


class _Package(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name not in _PUBLIC:  # requested by import statements and by warnings
            raise AttributeError(name)
        with _executing:  # other threads wait for the first one
            loader = vars(self).pop(_PENDING, None)
            if loader is not None:
                if self.__spec__ is not None:
                    vars(self)["__path__"] = self.__spec__.submodule_search_locations
                try:
                    loader.exec_module(self)
                except BaseException:
                    _wait(self, loader)
                    raise
                self.__class__ = ModuleType  # type: ignore[assignment]
        try:
            return vars(self)[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None


@contextmanager
def deferred(*modules: str) -> Iterator[None]:
    """Functions that are imported from `modules` in this context import their module when they are first called.

    For libraries that import at their start what they seldom use.  Modules that are already imported stay as they are.
    """
    stubs = {name: _Deferred(name) for name in modules if name not in sys.modules}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name, stub in stubs.items():
            if sys.modules.get(name) is stub:
                del sys.modules[name]


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        module = self.__name__

        def call(*arguments: Any, **named: Any) -> Any:
            return getattr(importlib.import_module(module), name)(*arguments, **named)

        return call
