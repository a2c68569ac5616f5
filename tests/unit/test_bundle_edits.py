"""A bundle with any single edit is refused, has another digest, or gives the same predictions."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.classifier import classifier_bundle

from likewise import api
from likewise.bundles.format import MANIFEST, EngineEntry, load_manifest
from likewise.bundles.open import Bundle, open_bundle, write_manifest
from likewise.core.digests import sha256_json
from likewise.core.engine import predict_items
from likewise.core.errors import LikewiseError
from likewise.core.items import Row
from likewise.core.results import Result
from likewise.engine.rates import cpu_class

TORCH = EngineEntry("torch", "fp32")
TEXTS = ("This is the best movie we saw.", "dull dull bright", "")
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        ["pyfunc", "torch", "openvino", "fp32", "../x", "/etc/passwd", "model/MLmodel", "sha256:" + "0" * 64]
    ),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
)
NAMES = (
    "model/new",
    "references/classifier/vocab.txt",
    "engine/openvino/new",
    "wheels/x-1-py3-none-any.whl",
    "new",
    "left-out.json",
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with two engines, labels, a wheel, requirements, measurements."""
    folder = classifier_bundle(tmp_path_factory.mktemp("edits") / "bundle", compiled=True)
    (folder / "wheels").mkdir()
    (folder / "wheels" / "private-1-py3-none-any.whl").write_bytes(b"PK")
    manifest = load_manifest((folder / MANIFEST).read_bytes())
    rates = {cpu_class(): {"openvino/fp32": 2.0, "torch/fp32": 1.0}}
    more = {"engines": (*manifest.engines, TORCH), "rates": rates, "measured": {"proved": "namespaces"}}
    write_manifest(folder, replace(manifest, **more))
    return open_bundle(folder)


@dataclass
class Trial:
    """The original bundle and its predictions, and how often each outcome of an edit occurred."""

    original: Bundle
    predictions: list[Result]
    work: Path
    outcomes: Counter[str]

    def copy(self) -> Path:
        shutil.rmtree(self.work, ignore_errors=True)
        return Path(shutil.copytree(self.original.path, self.work / "bundle"))

    def check(self, folder: Path) -> None:
        """Count the outcome; fails if an edited bundle has the same digests and other predictions."""
        self.outcomes[self._outcome(folder)] += 1

    def _outcome(self, folder: Path) -> str:
        try:
            edited = open_bundle(folder)
            if (edited.digest, edited.build) != (self.original.digest, self.original.build):
                return "another digest"
            assert predict(edited) == self.predictions
        except LikewiseError:
            return "refused"
        return "same predictions"


@pytest.fixture(scope="module")
def trial(original: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    trial = Trial(original, predict(original), tmp_path_factory.mktemp("edited"), Counter())
    yield trial
    # otherwise the edits would test nothing
    assert set(trial.outcomes) == {"refused", "another digest", "same predictions"}, trial.outcomes


def predict(bundle: Bundle) -> list[Result]:
    engine = api.open_bundle(bundle.path).engine()
    try:
        return predict_items(engine, [Row(("text",), (text,)) for text in TEXTS])
    finally:
        engine.close()


Edit = Callable[[Trial, st.DataObject], None]


def edit_file(trial: Trial, data: st.DataObject) -> None:
    """Change, add, remove, rename or link one file; then, perhaps, write a manifest that matches the files."""
    folder = trial.copy()
    victim = folder / data.draw(st.sampled_from([*sorted(trial.original.manifest.files), MANIFEST]))
    FILE_EDITS[data.draw(st.sampled_from(sorted(FILE_EDITS)))](folder, victim, data)
    if data.draw(st.booleans()) and not (folder / MANIFEST).is_dir():
        with contextlib.suppress(LikewiseError):
            write_manifest(folder, trial.original.manifest)
    trial.check(folder)


def edit_manifest(trial: Trial, data: st.DataObject) -> None:
    """Change one value anywhere in the manifest; then compute the checksum, and perhaps the digests, again."""
    folder = trial.copy()
    body = json.loads((folder / MANIFEST).read_bytes())
    if data.draw(st.booleans()):
        body = as_format_1(body)
    *above, key = data.draw(st.sampled_from(list(paths(body))))
    parent = body
    for each in above:
        parent = parent[each]
    edit = data.draw(st.sampled_from(["replace", "remove", "add", "nest"]))
    if edit == "remove":
        del parent[key]
    elif edit == "add" and isinstance(parent, dict):
        parent[data.draw(st.text(max_size=6))] = data.draw(VALUES)
    else:
        parent[key] = copy.deepcopy(body) if edit == "nest" else data.draw(VALUES)
    if data.draw(st.booleans()) and isinstance(body.get("content"), dict):
        body["digest"] = sha256_json(body["content"])
        built = {name: body.get(name) for name in ("other_files", "environment", "engines", "rates")}
        body["build"] = sha256_json({"model": body["digest"], **built})
    for name in ("checksum", "seal"):
        if name in body:
            body[name] = sha256_json({each: value for each, value in body.items() if each != name})
    (folder / MANIFEST).write_text(json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    trial.check(folder)


QUICK = {"max_examples": 150, "deadline": None}
MANY = {"max_examples": 5000, "deadline": None}
edits = pytest.mark.parametrize("edit", [edit_file, edit_manifest])


@edits
@settings(**QUICK)
@given(data=st.data())
def test_edited_bundle(trial: Trial, edit: Edit, data: st.DataObject) -> None:
    edit(trial, data)


@pytest.mark.long
@pytest.mark.timeout(3600)
@edits
@settings(**MANY)
@given(data=st.data())
def test_bundle_edited_in_many_ways(trial: Trial, edit: Edit, data: st.DataObject) -> None:
    edit(trial, data)


# --- edits of a file --------------------------------------------------------------------------------------------------


def flip(_: Path, victim: Path, data: st.DataObject) -> None:
    content = bytearray(victim.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    victim.write_bytes(content)


def cut(_: Path, victim: Path, data: st.DataObject) -> None:
    os.truncate(victim, data.draw(st.integers(0, victim.stat().st_size - 1)))


def append(_: Path, victim: Path, data: st.DataObject) -> None:
    victim.write_bytes(victim.read_bytes() + data.draw(st.binary(min_size=1, max_size=4)))


def remove(_: Path, victim: Path, data: st.DataObject) -> None:
    victim.unlink()


def rename(folder: Path, victim: Path, data: st.DataObject) -> None:
    victim.rename(new_path(folder, data))


def add(folder: Path, _: Path, data: st.DataObject) -> None:
    new_path(folder, data).write_bytes(data.draw(st.binary(max_size=4)))


def symlink(folder: Path, victim: Path, data: st.DataObject) -> None:
    victim.symlink_to(victim.rename(folder.parent / "moved"))


def hard_link(folder: Path, victim: Path, data: st.DataObject) -> None:
    os.link(victim, new_path(folder, data))


def make_folder(_: Path, victim: Path, data: st.DataObject) -> None:
    victim.unlink()
    victim.mkdir()


FILE_EDITS = {each.__name__: each for each in (flip, cut, append, remove, rename, add, symlink, hard_link, make_folder)}


def new_path(folder: Path, data: st.DataObject) -> Path:
    path = folder / data.draw(st.sampled_from(NAMES))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


# --- manifests --------------------------------------------------------------------------------------------------------


def as_format_1(body: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in body.items() if key not in ("build", "checksum", "rates")}
    rest["measured"] = {**body["measured"], "rates": body["rates"]}
    engines = [{**entry, "runs_code": False, "digest": "sha256:0"} for entry in body["engines"]]
    return {**rest, "likewise": 1, "engines": engines, "environment": {**body["environment"], "digest": ""}, "seal": ""}


def paths(value: object, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in entries:
        yield (*above, key)
        yield from paths(each, (*above, key))
