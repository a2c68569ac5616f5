"""Packages whose code runs when they are first used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from likewise.core.lazy_imports import executed_when_used

LIBRARY = "from lazily import seldom\nimport lazily.seldom.inside\n"
SELDOM = """
from lazily.seldom import inside
runs = globals().get("runs", 0) + 1
inside.running.set()
inside.may_end.wait(20)
if not inside.works:
    raise ValueError("does not work")
answer = 42
"""
INSIDE = """
import threading
works, running, may_end = True, threading.Event(), threading.Event()
may_end.set()
"""
MLFLOW = """
import sys
from likewise.core.extras import need
need("mlflow.pyfunc", extra="mlflow")
print("mlflow.genai.judges" in sys.modules, "fastapi" in sys.modules)
import mlflow.genai.judges.instructions_judge  # only works after the package around it
import mlflow.store.tracking.sqlalchemy_store
from mlflow.gateway.config import EndpointConfig
print(mlflow.genai.evaluate.__name__, mlflow.genai.judges.__name__, EndpointConfig.__name__)
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A library that has imported its package `seldom` and a module inside of it."""
    package = tmp_path / "lazily"
    (package / "seldom").mkdir(parents=True)
    (package / "__init__.py").write_text(LIBRARY)
    (package / "seldom" / "__init__.py").write_text(SELDOM)
    (package / "seldom" / "inside.py").write_text(INSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    with executed_when_used("lazily.seldom"):
        imported = importlib.import_module("lazily")
    assert sys.meta_path == finders
    yield imported
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazily"]:
        del sys.modules[name]


def test_package_runs_when_an_attribute_is_first_used(library: ModuleType) -> None:
    assert "runs" not in vars(library.seldom)
    assert sys.modules["lazily.seldom.inside"].works
    assert not hasattr(library.seldom, "__warningregistry__")
    assert "runs" not in vars(library.seldom)
    assert (library.seldom.answer, library.seldom.runs) == (42, 1)
    assert type(library.seldom) is ModuleType
    with pytest.raises(AttributeError, match=r"'lazily\.seldom' has no attribute 'nothing'"):
        _ = library.seldom.nothing


def test_package_runs_before_what_is_inside_of_it(library: ModuleType) -> None:
    (Path(str(library.__file__)).parent / "seldom" / "other.py").write_text("from lazily.seldom import answer\n")
    assert importlib.import_module("lazily.seldom.other").answer == 42
    assert library.seldom.runs == 1


def test_threads_wait_for_the_first(library: ModuleType) -> None:
    inside: Any = sys.modules["lazily.seldom.inside"]
    inside.may_end.clear()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: library.seldom.answer)
        assert inside.running.wait(20)
        second = threads.submit(lambda: library.seldom.answer)
        assert wait([first, second], 0.1).done == set()
        inside.may_end.set()
        assert (first.result(20), second.result(20)) == (42, 42)
    assert library.seldom.runs == 1


def test_failure_is_raised_each_time_until_it_runs(library: ModuleType) -> None:
    inside: Any = sys.modules["lazily.seldom.inside"]
    inside.works = False
    for _ in range(2):
        with pytest.raises(ValueError, match="does not work"):
            _ = library.seldom.answer
    inside.works = True
    assert library.seldom.answer == 42


def test_packages_that_are_imported_already_stay(library: ModuleType) -> None:
    with executed_when_used("lazily.seldom"):
        assert importlib.import_module("lazily.seldom") is library.seldom


@pytest.mark.slow
def test_mlflow_is_imported_without_what_models_seldom_use() -> None:
    done = subprocess.run([sys.executable, "-c", MLFLOW], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["False False", "evaluate mlflow.genai.judges EndpointConfig"], done.stderr
