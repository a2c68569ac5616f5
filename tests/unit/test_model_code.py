"""Models with modules of the same names in one process: each runs its own, and the process keeps its own too."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import mlflow
import pandas as pd
import pytest
from tests.support.models import save_code, save_with_modules, seal

from likewise import api
from likewise.bundles.open import Bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import ModelInvalid
from likewise.core.items import Item, Table
from likewise.core.results import Ok
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine
from likewise.engine.model_code import model_code
from likewise.engine.pyfunc import PyfuncEngine
from likewise.targets.spark.worker import engine_of

NAMES = ("helper", "lib", "parts", "late")
LOOKUPS = """
import importlib, mlflow, pickle, sys, threading
import helper
from lib import Thing
from lib.words import MARK

thing = pickle.dumps(Thing())

def in_thread(find):
    found = []
    thread = threading.Thread(target=lambda: found.append(find()))
    thread.start()
    thread.join()
    return found[0]

def lazily():
    import late
    return late.MARK

def relatively():
    from lib.late import MARK
    return MARK

def deeply():
    import lib.deep.end
    return lib.deep.end.MARK

def without_init():
    from parts import more
    return more.MARK

WAYS = {
    "loaded": lambda: helper.MARK,
    "package": lambda: MARK,
    "lazily": lazily,
    "relatively": relatively,
    "deeply": deeply,
    "without __init__": without_init,
    "by name": lambda: importlib.import_module("lib.late").MARK,
    "from a pickle": lambda: pickle.loads(thing).mark(),
    "in sys.modules": lambda: sys.modules["helper"].MARK,
    "in a thread": lambda: in_thread(relatively),
    "again": lambda: importlib.reload(helper).MARK,
}

class M(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [WAYS[way]() for way in model_input["way"]]

mlflow.models.set_model(M())
"""
WAYS = (
    *("loaded", "package", "lazily", "relatively", "deeply", "without __init__", "by name", "from a pickle"),
    *("in sys.modules", "in a thread", "again"),
)


def modules(mark: str) -> dict[str, str]:
    word = f"MARK = {mark!r}\n"
    return {
        "helper.py": word,
        "late.py": word,
        "lib/__init__.py": "from .words import MARK\nclass Thing:\n    def mark(self):\n        return MARK\n",
        "lib/words.py": word,
        "lib/late.py": "from .words import MARK\n",
        "lib/deep/__init__.py": "",
        "lib/deep/end.py": "from ..words import MARK\n",
        "parts/more.py": word,
    }


def make(folder: Path, mark: str, code: str = LOOKUPS) -> Bundle:
    save_with_modules(folder / mark / "model", modules(mark), code)
    return seal(folder / mark)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("versions")
    return {mark: make(folder, mark) for mark in ("one", "two")}


@pytest.fixture(autouse=True)
def _process_is_as_before() -> Iterator[None]:
    """What the process has imported, and from where it imports, is the same after each test."""
    path, entries, imported = sys.path, list(sys.path), own_modules()
    yield
    assert sys.path is path
    assert sys.path == entries
    assert own_modules() == imported


def own_modules() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in NAMES}


def load(bundle: Bundle) -> PyfuncEngine:
    engine = open_engine(bundle, ModelSpec(bundle.digest, trust=True))
    assert isinstance(engine, PyfuncEngine)
    return engine


def found(engine: Engine, *ways: str) -> dict[str, object]:
    """What the model finds in each of the `ways`; one call per way."""
    items: list[Item] = [row for way in ways for row in Table(("way",), [(way,)]).split()]
    results = predict_items(engine, items)
    assert all(isinstance(result, Ok) for result in results), results
    return {way: result.value for way, result in zip(ways, results, strict=True) if isinstance(result, Ok)}


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_each_model_runs_its_own_modules(bundles: dict[str, Bundle], order: tuple[str, str]) -> None:
    before = own_modules()
    engines = {mark: load(bundles[mark]) for mark in order}
    assert own_modules() == before
    for way in WAYS:  # in turns, so that both import late modules after the other has been loaded
        for mark in (*order, *order):
            assert found(engines[mark], way) == {way: mark}
            assert own_modules() == before
    first, second = order
    engines[first].close()
    assert found(engines[second], *WAYS) == dict.fromkeys(WAYS, second)
    assert found(load(bundles[first]), *WAYS) == dict.fromkeys(WAYS, first)


def test_in_every_interface_of_a_process(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    frame = pd.DataFrame({"way": WAYS})
    frame.to_csv(tmp_path / "ways.csv", index=False)
    with ExitStack() as stack:
        opened = {m: stack.enter_context(api.open_bundle(b.path, trust=True)) for m, b in bundles.items()}
        for mark, bundle in (*opened.items(), *opened.items()):
            assert bundle.predict(frame) == [mark] * len(WAYS)
        for mark, bundle in opened.items():
            api.score(bundle, tmp_path / "ways.csv", tmp_path / f"{mark}.csv")
            assert pd.read_csv(tmp_path / f"{mark}.csv")["predictions"].tolist() == [mark] * len(WAYS)
    engines = {mark: engine_of(mark, bundle.spec(), None) for mark, bundle in opened.items()}  # of a Spark worker
    for mark, engine in (*engines.items(), *engines.items()):
        assert found(engine, *WAYS) == dict.fromkeys(WAYS, mark)


def test_models_run_from_several_threads(bundles: dict[str, Bundle]) -> None:
    engines = {mark: load(bundle) for mark, bundle in bundles.items()}
    start = threading.Barrier(4)
    seen: dict[str, list[object]] = {mark: [] for mark in bundles}

    def run(mark: str) -> None:
        start.wait()
        seen[mark].extend([found(engines[mark], *WAYS) for _ in range(20)])

    threads = [threading.Thread(target=run, args=(mark,)) for mark in (*bundles, *bundles)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {mark: [dict.fromkeys(WAYS, mark)] * 40 for mark in bundles}


def test_models_load_from_several_threads(bundles: dict[str, Bundle]) -> None:
    seen: list[tuple[str, object]] = []

    def run(mark: str) -> None:
        seen.append((mark, found(load(bundles[mark]), "loaded", "relatively")))

    threads = [threading.Thread(target=run, args=(mark,)) for mark in ("one", "two") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen, key=str) == sorted(
        ((mark, {"loaded": mark, "relatively": mark}) for mark in ("one", "two") * 3), key=str
    )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], object]]:
    """The process's own modules of the same names, some of them imported; returns a function that imports more."""
    for name, text in modules("host").items():
        (tmp_path / "host" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "host" / name).write_text(text)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "host"))
        for name in ("helper", "lib", "parts.more"):
            importlib.import_module(name)
        yield lambda name: importlib.import_module(name).MARK
        for name in own_modules():
            del sys.modules[name]
    importlib.invalidate_caches()


def test_modules_of_the_process_are_neither_used_nor_changed(
    bundles: dict[str, Bundle], host: Callable[[str], object]
) -> None:
    before, parts = own_modules(), sys.modules["parts"]
    for mark, bundle in bundles.items():
        engine = load(bundle)
        assert own_modules() == before
        assert found(engine, *WAYS) == dict.fromkeys(WAYS, mark)
        assert own_modules() == before
        engine.close()
    assert vars(parts)["more"] is before["parts.more"]
    assert [host(name) for name in ("helper", "lib", "lib.late", "lib.deep.end", "parts.more", "late")] == ["host"] * 6
    assert found(load(bundles["one"]), *WAYS) == dict.fromkeys(WAYS, "one")  # also hides what was imported since


def test_modules_that_the_process_imports_later_are_its_own(
    bundles: dict[str, Bundle], request: pytest.FixtureRequest
) -> None:
    engine = load(bundles["one"])
    assert found(engine, "loaded") == {"loaded": "one"}
    host = request.getfixturevalue("host")
    assert host("lib.late") == "host"
    assert found(engine, *WAYS) == dict.fromkeys(WAYS, "one")
    assert host("lib.late") == "host"


def test_plain_mlflow_in_the_same_process(bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        plain = mlflow.pyfunc.load_model(str(bundles["one"].model_path))
        entries = list(sys.path)
        for mark, bundle in bundles.items():
            assert found(load(bundle), *WAYS) == dict.fromkeys(WAYS, mark)
            assert sys.path == entries
        assert plain.unwrap_python_model() is not None
        for name in own_modules():
            del sys.modules[name]


def test_failed_load_leaves_nothing(tmp_path: Path, bundles: dict[str, Bundle]) -> None:
    before = own_modules()
    with pytest.raises(ModelInvalid, match="broken on purpose"):
        load(make(tmp_path, "broken", "import helper, lib.late\nraise ValueError('broken on purpose')\n"))
    assert own_modules() == before
    assert found(load(bundles["two"]), *WAYS) == dict.fromkeys(WAYS, "two")


def test_failed_prediction_leaves_nothing(tmp_path: Path, bundles: dict[str, Bundle]) -> None:
    code = """
    import mlflow
    class M(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            import lib.late
            raise ValueError(lib.late.MARK)
    mlflow.models.set_model(M())
    """
    engine, before = load(make(tmp_path, "broken", code)), own_modules()
    (result,) = predict_items(engine, list(Table(("way",), [("any",)]).split()))
    assert "broken" in str(result)
    assert own_modules() == before
    assert found(load(bundles["two"]), *WAYS) == dict.fromkeys(WAYS, "two")


def test_pickled_models_and_loader_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose class is pickled by name, and one that its own module loads."""
    engines = {}
    for mark in ("one", "two"):
        source = tmp_path / mark / "source"
        source.mkdir(parents=True)
        (source / "helper.py").write_text(
            "import mlflow\n"
            "class M(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input, params=None):\n"
            f"        return ['pickled {mark}'] * len(model_input)\n"
            "class Loaded:\n"
            "    def predict(self, model_input, params=None):\n"
            f"        return ['loaded {mark}'] * len(model_input)\n"
            "def _load_pyfunc(path):\n"
            "    return Loaded()\n"
        )
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(source))
            saved = {"code_paths": [str(source / "helper.py")], "pip_requirements": ["mlflow"]}
            model = importlib.import_module("helper").M()
            mlflow.pyfunc.save_model(tmp_path / mark / "pickled" / "model", python_model=model, **saved)
            mlflow.pyfunc.save_model(tmp_path / mark / "loaded" / "model", loader_module="helper", **saved)
            del sys.modules["helper"]
        for kind in ("pickled", "loaded"):
            engines[f"{kind} {mark}"] = load(seal(tmp_path / mark / kind))
    importlib.invalidate_caches()
    for _ in range(2):
        for expected, engine in engines.items():
            assert found(engine, "any") == {"any": expected}


def test_folders_that_a_model_adds_to_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules in the model's artifacts, and in an archive that it unpacks to a temporary folder."""
    code = """
    import os, shutil, sys, tempfile
    import mlflow
    class M(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            unpacked = tempfile.mkdtemp()
            shutil.unpack_archive(context.artifacts["archive"], unpacked)
            sys.path.append(unpacked)
            sys.path.insert(0, context.artifacts["folder"])
            import helper
        def predict(self, context, model_input, params=None):
            import helper, late
            return [helper.MARK + late.MARK] * len(model_input)
    mlflow.models.set_model(M())
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engines = {}
    for mark in ("one", "two"):
        source = tmp_path / f"{mark}-source"
        for folder, name in (("folder", "helper"), ("archive", "late")):
            (source / folder).mkdir(parents=True)
            (source / folder / f"{name}.py").write_text(f"MARK = {mark!r}\n")
        archive = tmp_path / f"{mark}.zip"
        shutil.make_archive(str(archive.with_suffix("")), "zip", source / "archive")
        artifacts = {"folder": str(source / "folder"), "archive": str(archive)}
        save_code(tmp_path / mark / "model", code, artifacts=artifacts)
        engines[mark] = load(seal(tmp_path / mark))
    for _ in range(2):
        for mark, engine in engines.items():
            assert found(engine, "any") == {"any": mark * 2}


def test_model_that_runs_another_model(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    code = """
    import mlflow, helper
    class M(mlflow.pyfunc.PythonModel):
        inner = None
        def predict(self, context, model_input, params=None):
            import lib.late
            answers = self.inner(list(model_input["way"]))
            import late
            return [f"{helper.MARK} {lib.late.MARK} {answer} {late.MARK}" for answer in answers]
    mlflow.models.set_model(M())
    """
    inner, outer = load(bundles["one"]), load(make(tmp_path, "outer", code))
    outer._model.unwrap_python_model().inner = lambda ways: found(inner, *ways).values()
    assert found(outer, "lazily") == {"lazily": "outer outer one outer"}
    assert found(inner, "lazily") == {"lazily": "one"}


def test_standard_and_shared_modules_are_the_processes(tmp_path: Path) -> None:
    """As in a process of MLflow's, which has imported them before the model."""
    code = """
    import json, mlflow, pandas
    class M(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return [isinstance(model_input, pandas.DataFrame) and hasattr(json, "loads")] * len(model_input)
    mlflow.models.set_model(M())
    """
    save_with_modules(tmp_path / "b" / "model", {"json.py": "", "pandas/__init__.py": "", "numpy.py": ""}, code)
    assert found(load(seal(tmp_path / "b")), "any") == {"any": True}


def test_unchanged_libraries_stay_imported(tmp_path: Path) -> None:
    """What a model imports from an installed library is an ordinary import of the process."""
    code = """
    import mlflow, helper
    class M(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            import this
            return [helper.MARK] * len(model_input)
    mlflow.models.set_model(M())
    """
    sys.modules.pop("this", None)
    assert found(load(make(tmp_path, "one", code)), "any") == {"any": "one"}
    assert "this" in sys.modules


def test_model_without_modules_takes_no_turn(tmp_path: Path, bundles: dict[str, Bundle]) -> None:
    code = """
    import mlflow
    class M(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return list(model_input["way"])
    mlflow.models.set_model(M())
    """
    save_code(tmp_path / "b" / "model", code)
    engine = load(seal(tmp_path / "b"))
    answers: list[object] = []
    with model_code(bundles["one"]):
        thread = threading.Thread(target=lambda: answers.append(found(engine, "any")))
        thread.start()
        thread.join()
    assert answers == [{"any": "any"}]


def test_finders_of_the_models_folders_are_removed(bundles: dict[str, Bundle]) -> None:
    engine = load(bundles["one"])
    found(engine, *WAYS)
    assert not [path for path in sys.path_importer_cache if path.startswith(f"{bundles['one'].path}{os.sep}")]


def test_close_while_the_model_is_loaded_twice(bundles: dict[str, Bundle]) -> None:
    with ExitStack() as stack:
        first, second = load(bundles["one"]), load(bundles["one"])
        stack.callback(second.close)
        first.close()
        assert found(second, *WAYS) == dict.fromkeys(WAYS, "one")
