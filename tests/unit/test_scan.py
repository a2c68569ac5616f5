"""`likewise scan`: what pickles would import and call, and other code, is listed without running any of it."""

from __future__ import annotations

import bz2
import contextlib
import io
import json
import os
import pickle
import sys
import zipfile
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from joblib.numpy_pickle import NumpyArrayWrapper
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from tests.support.cli import call
from tests.support.models import save_upper, seal

from likewise.builder.scan.findings import Scan
from likewise.builder.scan.model import scan
from likewise.builder.scan.pickles import Limits
from likewise.core.errors import BundleTampered, MissingExtra, WrongUsage
from likewise.core.extras import install_command

FOREST = RandomForestClassifier(3, random_state=np.random.RandomState(0)).fit(np.eye(4), [0, 1, 0, 1])


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that exists only if a forged pickle has run."""
    return tmp_path / "canary"


class Forged:
    """Its pickle runs a shell command when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


def scanned(folder: Path, **files: bytes) -> Scan:
    """Scan a folder with these files; `_` in a name stands for a dot."""
    folder = folder / "scanned"
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return scan(folder)


def names(found: Scan, level: str = "dangerous", path: str = "") -> set[str]:
    return {each.name for each in found.imports if each.level == level and path in each.path}


def dumped(write: Callable[[Any, Any], object], value: object) -> bytes:
    stream = io.BytesIO()
    write(value, stream)
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def objects(value: object) -> bytes:
    """A `.npy` file with an array of one object."""
    array = np.empty(1, dtype=object)
    array[0] = value
    return dumped(lambda array, stream: np.save(stream, array), array)


# --- models as they are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ordinary_pickle_of_every_protocol_is_usual(tmp_path: Path, protocol: int) -> None:
    values = {"forest": FOREST, "words": CountVectorizer().fit(["a film"]), "when": pd.Timestamp("2026-01-01")}
    found = scanned(tmp_path, model_pkl=pickle.dumps(values, protocol))
    assert found.level == "usual"
    assert "sklearn.ensemble._forest.RandomForestClassifier" in names(found, "usual")
    assert not found.not_analysed


@pytest.mark.parametrize("compress", [0, "zlib", "gzip", "bz2", "xz", "lzma"])
def test_joblib_file_is_read_past_its_arrays(tmp_path: Path, canary: Path, compress: str | int) -> None:
    arrays = {"plain": np.arange(1000.0), "text": np.array(["a", "bb"]), "mixed": np.array([1, None], dtype=object)}
    value = {**arrays, "tree": FOREST, "empty": np.zeros((0, 3)), "time": np.array(["2026"], dtype="M8[s]")}
    stored = (compress, 3) if compress else 0
    harmless = dumped(partial(joblib.dump, compress=stored), value)
    forged = dumped(partial(joblib.dump, compress=stored), {**value, "x": Forged(canary)})
    found = scanned(tmp_path, harmless_joblib=harmless, forged_bin=forged)
    assert not found.not_analysed
    assert names(found, "dangerous", "harmless") == names(found, "unusual", "harmless") == set()
    assert names(found, "dangerous", "forged") == {"posix.system"}
    assert not canary.exists()


@pytest.mark.slow
def test_torch_files_old_and_new_are_read(tmp_path: Path, canary: Path) -> None:
    model = torch.nn.Linear(300, 300)
    model.forged = Forged(canary)  # type: ignore[assignment]
    old = dumped(partial(torch.save, _use_new_zipfile_serialization=False), model)
    found = scanned(tmp_path, new_pt=dumped(torch.save, model), old_bin=old)
    for file in ("new", "old"):
        assert names(found, "dangerous", file) == {"posix.system"}
        assert "torch.nn.modules.linear.Linear" in names(found, "usual", file)
    assert not found.not_analysed
    assert not canary.exists()


@pytest.mark.slow
def test_cloudpickled_class_is_listed_as_code_in_the_file(tmp_path: Path) -> None:
    class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: object, model_input: list[str]) -> list[str]:
            return model_input

    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Model(), pip_requirements=["mlflow"])
    found = scan(tmp_path / "m")
    assert "cloudpickle.cloudpickle._make_function" in names(found)
    whys = {each.why for each in found.imports if each.name.startswith("cloudpickle")}
    assert whys == {"builds functions or classes from code in the file"}


@pytest.mark.slow
def test_skops_file_lists_its_types(tmp_path: Path) -> None:
    model = LogisticRegression().fit([[1.0], [2.0]], [0, 1])
    mlflow.sklearn.save_model(model, tmp_path / "m", pip_requirements=["mlflow"], serialization_format="skops")
    found = scan(tmp_path / "m")
    assert "sklearn.linear_model._logistic.LogisticRegression" in names(found, "usual", "model.skops!schema.json")
    assert not found.not_analysed
    forged = zipped(**{"schema.json": json.dumps({"__class__": "system", "__module__": "os", "content": []}).encode()})
    assert names(scanned(tmp_path, x_skops=forged)) == {"os.system"}


def test_classes_in_the_configuration_of_a_keras_model_are_judged(tmp_path: Path) -> None:
    layers = [
        {"module": "keras.layers", "class_name": "Dense", "config": {}},
        {"module": "os", "class_name": "function", "config": "system"},
    ]
    found = scanned(tmp_path, model_keras=zipped(**{"config.json": json.dumps(layers).encode()}))
    assert "os.system" in names(found)
    assert names(found, "usual") == {"keras.layers.Dense"}


def test_xgboost_model_is_usual(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=2).fit(np.eye(2), [0, 1])
    found = scanned(tmp_path, model_pkl=pickle.dumps(model))
    assert found.level == "usual"
    assert not found.not_analysed


# --- hidden pickles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hide"),
    [
        ("model_pkl", pickle.dumps),
        ("model_pkl", lambda forged: pickle.dumps(forged, 0)),
        ("notes_txt", lambda forged: pickle.dumps(forged, 0)),
        ("README", pickle.dumps),
        ("image_png", lambda forged: zipped(readme=pickle.dumps(forged))),
        ("code_py", pickle.dumps),
        ("config_json", pickle.dumps),
        ("a_zip", lambda forged: zipped(b=zipped(c=zipped(d=pickle.dumps(forged))))),
        ("a_zip", lambda forged: b"#!/bin/sh\n" + zipped(x=pickle.dumps(forged))),
        ("a_gz", lambda forged: bz2.compress(zipped(data=zlib.compress(pickle.dumps(forged))))),
        ("two", lambda forged: pickle.dumps([1]) + pickle.dumps("x", 0) + pickle.dumps(forged)),
        ("x_npy", objects),
        ("x_npz", lambda forged: zipped(**{"x.npy": objects(forged)})),
        ("cut_pkl", lambda forged: pickle.dumps([forged, 1])[:-3]),
        ("list_pkl", lambda forged: pickle.dumps([deque([forged]), bytearray(9), 1.5], 5)),
    ],
)
def test_forged_pickle_is_found_wherever_it_is_and_never_runs(
    tmp_path: Path, canary: Path, name: str, hide: Callable[[Forged], bytes]
) -> None:
    found = scanned(tmp_path, **{name: hide(Forged(canary))})
    assert names(found) == {"posix.system"}
    assert not canary.exists()


def test_names_inside_an_array_are_found_for_loaders_that_do_not_skip_it(tmp_path: Path) -> None:
    evil = b"cposix\nsystem\n(S'true'\ntR."
    wrapper = NumpyArrayWrapper(np.ndarray, (len(evil),), "C", np.dtype("u1"), numpy_array_alignment_bytes=None)
    assert names(scanned(tmp_path, x_joblib=pickle.dumps(wrapper, 2)[:-1] + evil + b".")) == {"posix.system"}


@pytest.mark.parametrize(
    ("shape", "dtype"), [((-1,), "u1"), (("x",), "u1"), ((9999,), "f8"), ((2,), ("u1", 3)), (7, "u1")]
)
def test_array_whose_size_is_not_clear_is_not_analysed(tmp_path: Path, shape: Any, dtype: Any) -> None:
    wrapper = NumpyArrayWrapper(np.ndarray, shape, "C", np.dtype(dtype))
    found = scanned(tmp_path, x_joblib=pickle.dumps(wrapper, 2)[:-1] + b"0" * 9)
    assert "array" in found.not_analysed[0].text
    assert found.reaches("dangerous")


@pytest.mark.parametrize("name", ["x.pkl", "weights.bin"])
def test_pickle_that_ends_inside_its_frame_is_not_analysed(tmp_path: Path, canary: Path, name: str) -> None:
    """Unpicklers disagree on where the next pickle in the file starts: there, or after the frame."""
    hidden = b"\x80\x04\x95" + (8).to_bytes(8, "little") + b"N.\xff\xff\xff\xff\xff\xff" + pickle.dumps(Forged(canary))
    for start in (b"", b"N0"):
        (tmp_path / name).write_bytes(start + hidden)
        assert "frame" in scan(tmp_path / name).not_analysed[0].text


def test_line_across_the_end_of_a_frame_is_not_analysed(tmp_path: Path) -> None:
    """Python's unpickler in C forgets the part of the line that is inside of the frame: here it imports os."""
    content = b"\x80\x04\x95" + (4).to_bytes(8, "little") + b"cabcos\nsystem\n."
    unpickler = Recorder(content)
    unpickler.load()
    assert unpickler.seen == {"os.system"}
    assert "frame" in scanned(tmp_path, x_pkl=content).not_analysed[0].text


def test_name_reached_through_a_usual_module_is_judged_by_its_parts(tmp_path: Path) -> None:
    found = scanned(tmp_path, x_pkl=b"\x80\x04\x8c\x05numpy\x8c\x0dlib.os.system\x93.")
    assert names(found) == {"numpy.lib.os.system"}


def test_name_that_is_computed_is_unusual(tmp_path: Path) -> None:
    computed = b"\x80\x04cbuiltins\nstr\n\x8c\x02os\x85R\x8c\x06system\x93."
    found = scanned(tmp_path, x_pkl=computed)
    assert names(found, "unusual") == {"(computed while loading)"}


def test_python_2_names_are_judged_as_python_3_reads_them(tmp_path: Path) -> None:
    assert names(scanned(tmp_path, x_pkl=b"ccommands\ngetoutput\n(S'true'\ntR.")) == {"commands.getoutput"}


# --- what cannot be analysed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("cut_pkl", pickle.dumps(FOREST)[:900], "no readable pickle at byte"),
        ("noise_pkl", b"\x00\x01", "no readable pickle"),
        ("old_nemo", bytes(257) + b"ustar", "a tar archive"),
        ("noise_joblib", b"\x04\x22\x4d\x18data", "lz4"),
        ("cut_gz", bz2.compress(pickle.dumps(FOREST))[:-200], "EOFError"),
        ("cut_zip", zipped(a=b"x" * 100)[:-9], "zip"),
        ("x_npy", b"\x93NUMPY\x01\x00\x05\x00{'a'}", "header"),
        ("model_h5", b"\x89HDF\r\n\x1a\n.....", "HDF5"),
        ("config_json", b"{", "JSONDecodeError"),
        ("deep_json", b"[" * 200_000, "RecursionError"),
        ("config_yaml", b"a: [", "ParserError"),
        ("deep_yaml", b"[" * 100_000, "RecursionError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # bytes of a zip contain the time
)
def test_what_cannot_be_analysed_is_listed_with_the_reason(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    found = scanned(tmp_path, **{name: content})
    assert why.lower() in " ".join(each.text.lower() for each in found.not_analysed)
    assert found.reaches("dangerous")
    assert not found.as_dict()["complete"]


def test_encrypted_member_is_not_analysed(tmp_path: Path) -> None:
    content = bytearray(zipped(a=b"secret"))
    for at, flags in ((content.index(b"PK\x03\x04"), 6), (content.index(b"PK\x01\x02"), 8)):
        content[at + flags] |= 1
    assert scanned(tmp_path, x_zip=bytes(content)).not_analysed[0].text.startswith("RuntimeError")


@pytest.mark.parametrize(
    ("limits", "content"),
    [
        (Limits(unpacked=1 << 20), bz2.compress(pickle.dumps(bytes(2 << 20)))),
        (Limits(unpacked=1 << 20), zipped(**{"x.pkl": bytes(2 << 20)})),
        (Limits(work=15_100), zipped(a=b"1", b=b"2", c=b"3", d=b"4")),
        (Limits(depth=2), zipped(a=zipped(b=zipped(c=zipped(d=b""))))),
        (Limits(work=100), pickle.dumps([str(i) for i in range(99)])),
        (Limits(work=15_100), pickle.dumps([OrderedDict, deque, Path, io.BytesIO])),
    ],
    ids=["compressed", "member", "members", "depth", "reads", "names"],
)
def test_bomb_stops_at_a_limit_and_is_listed(tmp_path: Path, limits: Limits, content: bytes) -> None:
    (tmp_path / "bomb").write_bytes(content)
    (tmp_path / "later.pkl").write_bytes(pickle.dumps({}))
    assert scan(tmp_path, limits=limits).not_analysed


def test_yaml_with_a_billion_aliases_is_read_in_no_time(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    assert not scanned(tmp_path, conda_yaml="\n".join(lines).encode()).not_analysed


@pytest.mark.slow
@given(st.binary(max_size=300), st.sampled_from(["x", "x.pkl", "x.npy", "x.json", "MLmodel", "x.joblib"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@example(b"cos\nsystem\n", "x.pkl")
def test_arbitrary_bytes_are_listed_or_ignored(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert scan(path).files == 1


@pytest.mark.slow
@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_damaged_archive_or_pickle_is_listed_or_ignored(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(DAMAGED)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.joblib"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    found = scan(path)
    assert found.imports or found.not_analysed or whole.startswith(b"PK")  # a member may become data


DAMAGED = [
    pickle.dumps(FOREST),
    pickle.dumps({"a": [1.5, (1, "x")], "b": OrderedDict(x=1)}, 0),
    dumped(joblib.dump, {"x": np.arange(9.0), "y": np.array([None])}),
    dumped(partial(joblib.dump, compress=("zlib", 3)), FOREST),
    zipped(a=pickle.dumps(OrderedDict())),
    objects(OrderedDict()),
]


class Stub:
    """Stands for every class and function, does nothing, and can be used like any of them."""

    def __new__(cls, *arguments: object, **options: object) -> Stub:
        return object.__new__(cls)

    def nothing(self, *arguments: object) -> Stub:
        return self

    __init__ = __call__ = __setstate__ = __setitem__ = append = extend = add = update = nothing  # type: ignore[assignment]


class Recorder(pickle.Unpickler):
    """Python's own unpickler, which imports nothing and notes what it would import."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.seen: set[str] = set()

    def find_class(self, module: str, name: str) -> type[Stub]:
        self.seen.add(f"{module}.{name}")
        return Stub

    def persistent_load(self, key: object) -> Stub:
        return Stub()


OPERATIONS = [
    *(b"\x80\x04", b"\x80\x02", b"(", b"t", b"R", b"0", b"1", b"2", b"\x94", b"h\x00", b"h\x01", b"q\x00", b"q\x01"),
    *(
        b"cos\nsystem\n",
        b"cbuiltins\neval\n",
        b"ios\npopen\n",
        b"\x8c\x02os",
        b"\x8c\x06system",
        b"X\x01\0\0\0a",
        b"\x93",
    ),
    *(b"Va\n", b"S'os'\n", b"U\x02os", b"C\x01a", b"\x85", b"\x86", b"\x87", b")", b"}", b"]", b"\x8f", b"l", b"d"),
    *(
        b"a",
        b"e",
        b"u",
        b"s",
        b"b",
        b"o",
        b"\x81",
        b"\x92",
        b"\x90",
        b"\x91",
        b"N",
        b"K\x01",
        b"I01\n",
        b"F1\n",
        b"G" + bytes(8),
    ),
    *(b"\x95\x05" + bytes(7), b"P1\n", b"Q", b"\x88", b"g0\n", b"p0\n", b"\x96\x01" + bytes(8), b"\x97", b"\x98", b"."),
]


@pytest.mark.slow
@given(st.lists(st.sampled_from(OPERATIONS), max_size=30).map(b"".join) | st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500)
@example(content=b"\x80\x04\x8c\x02os\x8c\x06system\x93.")
def test_every_name_that_python_would_import_is_listed_or_the_file_is_not_analysed(
    tmp_path: Path, content: bytes
) -> None:
    unpickler = Recorder(content)
    with contextlib.suppress(Exception):
        unpickler.load()
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    found = scan(path)
    missed = unpickler.seen - {each.name for each in found.imports}
    assert not missed or found.not_analysed


# --- other code -----------------------------------------------------------------------------------------------------


def test_code_outside_of_pickles_is_listed(tmp_path: Path) -> None:
    keras = {"config": {"layers": [{"class_name": "Lambda", "config": {"function": ["4wEA"]}}]}}
    found = scanned(
        tmp_path,
        helper_py=b"x = 1",
        native_so=b"\x7fELF",
        config_json=b'{"auto\\u005fmap": {"AutoModel": "evil.Model"}, "trust_remote_code": true}',
        model_keras=zipped(**{"config.json": json.dumps(keras).encode()}),
        MLmodel=b"flavors: {python_function: {loader_module: evil, model_code_path: m.py}}",
    )
    listed = {(each.path, each.text.partition(":")[0]) for each in found.code}
    assert listed == {
        ("MLmodel", "loader_module"),
        ("MLmodel", "model_code_path"),
        ("config.json", "auto_map"),
        ("config.json", "trust_remote_code"),
        ("helper.py", "Python code"),
        ("model.keras!config.json", "a Keras Lambda layer, whose code is in the file"),
        ("native.so", "a native library"),
    }
    assert found.level == "unusual"


# --- bundles, URIs, the command -------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path, canary: Path) -> Path:
    """A bundle with a forged pickle."""
    save_upper(tmp_path / "bundle" / "model")
    (tmp_path / "bundle" / "model" / "extra.pkl").write_bytes(pickle.dumps(Forged(canary)))
    return seal(tmp_path / "bundle").path


def test_bundle_is_verified_then_scanned_without_trust(bundle: Path, canary: Path) -> None:
    found = scan(bundle)
    assert found.digest
    assert found.digest.startswith("sha256:")
    assert names(found, "dangerous", "model/extra.pkl") == {"posix.system"}
    assert any(each.path == "model/upper.py" for each in found.code)
    (bundle / "model" / "extra.pkl").write_bytes(b"")
    with pytest.raises(BundleTampered):
        scan(bundle)
    assert not canary.exists()


def test_references_of_a_model_that_is_not_a_bundle_are_listed_as_not_analysed(tmp_path: Path) -> None:
    metadata = {"likewise": {"references": ["runs:/abc/other"]}}
    save_upper(tmp_path / "m", metadata=metadata)
    assert [each.path for each in scan(tmp_path / "m").not_analysed] == ["runs:/abc/other"]


def test_command_lists_findings_and_fails_on_request(bundle: Path, canary: Path) -> None:
    plain = call("scan", bundle)
    assert plain.returncode == 0
    assert "dangerous\tposix.system in model/extra.pkl: can run any code" in plain.stdout
    assert "proves nothing" in plain.stdout
    for level in ("dangerous", "unusual"):
        done = call("scan", bundle, "--fail-on", level, "--json")
        assert done.returncode == 1
        document = json.loads(done.stdout)
        assert document["level"] == "dangerous"
        assert document["complete"] is True
        assert [each["name"] for each in document["imports"]] == ["posix.system"]
    assert call("scan", bundle, "--fail-on", "usual").returncode == WrongUsage.exit_code
    assert not canary.exists()


def test_missing_library_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fickling.fickle", None)
    with pytest.raises(MissingExtra) as caught:
        scan(tmp_path)
    assert caught.value.remedy == install_command("mlflow")


def test_code_alone_fails_only_on_unusual(tmp_path: Path) -> None:
    save_upper(tmp_path / "m")
    assert call("scan", tmp_path / "m", "--fail-on", "dangerous").returncode == 0
    assert call("scan", tmp_path / "m", "--fail-on", "unusual").returncode == 1


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    content = zipped(**{"\x1b[2Jx.pkl": b"c\x1b[31mos\nsystem\n."})
    (tmp_path / "m.zip").write_bytes(content)
    done = call("scan", tmp_path)
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mos.system" in done.stdout
