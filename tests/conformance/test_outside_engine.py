"""An engine from another package is bundled, verified, served, scored and shipped without changes to Likewise."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.processes import LIKEWISE, likewise, running

from likewise import api, doctor
from likewise.core.errors import CodeNotTrusted, EngineUnavailable
from likewise.engine import kinds
from likewise.engine.kinds import EngineKind, kind_of
from likewise.images.oci import PLATFORMS
from likewise.images.wheels import pins
from likewise.shipping.payload import environment_of, requirements_of

PACKAGE = Path(__file__).with_name("outside_engine")
MLMODEL = """\
flavors:
  toy: {table: table.json}
signature:
  inputs: '[{"type": "string", "name": "text"}]'
  outputs: '[{"type": "string", "name": "answer"}]'
metadata:
  likewise: {row_wise: true}
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """Add the package to the path of this process and of its child processes."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(PACKAGE)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    importlib.invalidate_caches()
    yield
    patch.undo()
    kinds._load.cache_clear()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> api.Bundle:
    """A bundle of a toy model, built without trust."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "model").mkdir()
    (folder / "model" / "MLmodel").write_text(MLMODEL)
    (folder / "model" / "table.json").write_text(json.dumps({"hello": "world"}))
    return api.bundle(folder / "model", folder / "bundle")


def test_engine_is_compiled_and_verified_without_trust(bundle: api.Bundle) -> None:
    assert [(each.name, each.precision) for each in bundle.manifest.engines] == [("toy", "exact")]
    assert bundle.manifest.measured["proved_engines"] == ["toy/exact"]
    assert "engine/toy/answers.json" in bundle.manifest.files


def test_rows_are_scored_and_an_invalid_row_is_quarantined(bundle: api.Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nhello\nbye\n")
    report = api.score(bundle, tmp_path / "in.csv", tmp_path / "out.csv")
    assert (report.rows_ok, report.rows_quarantined, report.engine) == (1, 1, "toy/exact")
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("hello,")


def test_engine_is_used_by_the_serve_command(bundle: api.Bundle, tmp_path: Path) -> None:
    with running([*LIKEWISE, "serve", bundle.path, "-p", "0", "--json"], tmp_path / "log") as server:
        url = server.document()["url"]
        response = httpx.post(f"{url}/invocations", json={"inputs": {"text": ["hello"]}})
    assert response.json() == {"predictions": [{"answer": "WORLD"}]}
    assert response.headers["x-likewise-engine"] == "toy/exact"


def test_doctor_and_inspect_show_the_engine(bundle: api.Bundle) -> None:
    assert {each.name: each.found for each in doctor.examine()}["toy-engine"] == "1.0"
    assert "toy/exact" in likewise("inspect", bundle.path).stdout


def test_requirements_include_the_engines_package(bundle: api.Bundle) -> None:
    (entry,) = bundle.manifest.engines
    assert requirements_of(bundle, entry) == ["likewise", "toy-engine"]
    assert environment_of(bundle, entry, frozenset()).versions["toy-engine"] == "1.0"
    assert "toy-engine==1.0" in pins(requirements_of(bundle, entry), PLATFORMS["linux/amd64"], 11, unused={})


def test_the_class_and_not_the_bundle_determines_whether_code_runs(
    bundle: api.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(kind_of("toy")), "runs_code", True)
    with pytest.raises(CodeNotTrusted):
        bundle.engine()


class Misnamed(EngineKind):
    name = "other"


@pytest.mark.parametrize("target", ["toy_engine:Missing", "nowhere:Kind", f"{__name__}:Misnamed"])
def test_invalid_entry_point_is_reported(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("broken", target, kinds.GROUP)
    monkeypatch.setattr(kinds, "_built_in", lambda: (point,))
    with pytest.raises(EngineUnavailable, match="'broken'"):
        kind_of("broken")


def test_missing_engine_is_reported() -> None:
    with pytest.raises(EngineUnavailable, match="the engine 'absent' is not installed"):
        kind_of("absent")
