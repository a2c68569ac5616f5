"""Imports of optional libraries, with installation instructions if one is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from likewise.core.errors import MissingExtra


def need(module: str, *, extra: str) -> ModuleType:
    """Import `module`; raises MissingExtra with the installation command if it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise MissingExtra(
            f"this needs {top}, which is not installed", remedy=f"pip install 'likewise[{extra}]'"
        ) from error


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
