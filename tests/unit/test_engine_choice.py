"""Engine selection: the requested engine, else the fastest measured on this kind of CPU, else the safe one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from likewise.bundles.format import EngineEntry, Manifest, load_manifest
from likewise.bundles.open import Bundle, open_bundle, write_manifest
from likewise.cli.arguments import Choice
from likewise.core.engine import Engine, EngineSpec, Work
from likewise.core.errors import CodeNotTrusted, EngineUnavailable, MissingExtra, WrongUsage
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.core.spec import ModelSpec
from likewise.engine import kinds, load, rates
from likewise.engine.engine_options import EngineOptions
from likewise.engine.kinds import EngineKind
from likewise.engine.load import open_engine, why_unmeasured
from likewise.engine.rates import by_speed, cpu_class, describe_cpu, known_rates, rates_file, remember_rates

FAST = EngineEntry("openvino", "bf16+fp32")
EXACT = EngineEntry("openvino", "fp32")
TORCH = EngineEntry("torch", "fp32")
CODE = EngineEntry("pyfunc", "native")


class Opened:
    """A fake engine with the spec of its entry."""

    def __init__(self, entry: EngineEntry) -> None:
        self.spec = EngineSpec(entry.name, entry.precision, True, True, True, 1)

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return []

    def run(self, work: Sequence[Work]) -> list[Result]:
        return []

    def close(self) -> None:
        pass


class Kind(EngineKind):
    """Opens the fake engine, or raises a given error."""

    def __init__(self, name: str, errors: dict[str, Exception]) -> None:
        self.name = name  # type: ignore[misc]
        self.runs_code = name == "pyfunc"  # type: ignore[misc]
        self.errors = errors

    def open(self, bundle: Bundle, entry: EngineEntry) -> Engine:
        if (error := self.errors.get(rates.label(entry))) is not None:
            raise error
        return Opened(entry)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Exception]:
    """An empty cache, and engines that all open; returns the errors by label, to be filled by tests."""
    errors: dict[str, Exception] = {}
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kinds, "kind_of", partial(Kind, errors=errors))
    monkeypatch.setattr(load, "kind_of", partial(Kind, errors=errors))
    return errors


def make_bundle(folder: Path, *entries: EngineEntry, rates: Mapping[str, object] = {}) -> Bundle:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    return write_manifest(folder, Manifest({}, engines=entries or (FAST, EXACT, TORCH, CODE), rates=rates))


def opened(bundle: Bundle, name: str | None = None, precision: str | None = None, *, trust: bool = False) -> str:
    engine: Engine = open_engine(
        bundle, ModelSpec(bundle.digest, bundle.path, engine=name, precision=precision, trust=trust)
    )
    return engine.spec.label


def test_fastest_engine_measured_on_this_kind_of_cpu_is_used(tmp_path: Path) -> None:
    here = {"openvino/bf16+fp32": 50.0, "openvino/fp32": 90.0, "torch/fp32": 20.0}
    bundle = make_bundle(tmp_path / "b", rates={cpu_class(): here, "another": {"torch/fp32": 1e9}})
    assert opened(bundle) == "openvino/fp32"
    assert why_unmeasured(bundle) is None
    again = load_manifest((bundle.path / "likewise.json").read_bytes())
    assert known_rates(again) == here
    assert by_speed(again.engines, here) == [EXACT, FAST, TORCH, CODE]


def test_safe_engine_is_used_on_an_unknown_cpu_with_a_notice(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", rates={"another": {"openvino/bf16+fp32": 900.0}})
    assert opened(bundle) == "openvino/fp32"
    line = why_unmeasured(bundle)
    assert line is not None
    assert f"likewise inspect {bundle.path} --measure" in line
    assert cpu_class() in line


def test_no_notice_without_a_choice(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", TORCH, CODE)
    assert why_unmeasured(bundle) is None
    assert why_unmeasured(make_bundle(tmp_path / "c"), EngineOptions("openvino", "bf16")) is None


def test_local_measurements_override_the_bundles(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", rates={cpu_class(): {"torch/fp32": 900.0}})
    assert opened(bundle) == "torch/fp32"
    remember_rates(bundle.manifest, {"openvino/bf16+fp32": 80.0, "torch/fp32": 20.0})
    assert opened(bundle) == "openvino/bf16+fp32"
    other = make_bundle(tmp_path / "other", FAST)
    assert known_rates(other.manifest) == {}
    assert open_bundle(bundle.path).digest == bundle.digest  # the bundle is not modified


@pytest.mark.parametrize(
    "broken", ["", "[]", '{"CPU": 3}', '{"CPU": {"torch/fp32": "fast"}}', '{"CPU": {"torch/fp32": -1}}']
)
def test_broken_cache_is_ignored(tmp_path: Path, broken: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    path = rates_file(bundle.manifest)
    path.parent.mkdir(parents=True)
    path.write_text(broken.replace("CPU", cpu_class()))
    assert opened(bundle) == "openvino/fp32"
    remember_rates(bundle.manifest, {"torch/fp32": 20.0})
    assert known_rates(bundle.manifest) == {"torch/fp32": 20.0}
    assert cpu_class() in json.loads(path.read_text())


@pytest.mark.parametrize(
    ("name", "precision", "label"),
    [
        ("torch", None, "torch/fp32"),
        ("openvino", None, "openvino/fp32"),
        (None, "bf16", "openvino/bf16+fp32"),
        (None, "fp32", "openvino/fp32"),
        ("openvino", "bf16", "openvino/bf16+fp32"),
        ("torch", "fp32", "torch/fp32"),
    ],
)
def test_name_and_precision_select_an_engine(
    tmp_path: Path, name: str | None, precision: str | None, label: str
) -> None:
    assert opened(make_bundle(tmp_path / "b"), name, precision) == label


def test_missing_engine_and_unknown_precision_are_reported(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no engine torch in bf16; it has: openvino/bf16"):
        opened(make_bundle(tmp_path / "b"), "torch", "bf16")
    with pytest.raises(WrongUsage, match="unknown precision 'int8'"):
        EngineOptions(precision="int8")


def test_exact_selects_fp32() -> None:
    assert [Choice(exact=True).precision, Choice(precision="bf16").precision] == ["fp32", "bf16"]
    assert Choice().precision is None
    with pytest.raises(WrongUsage, match="--exact means --precision fp32, but --precision is bf16"):
        Choice(precision="bf16", exact=True)


def test_fp32_includes_the_models_own_code(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", CODE)
    assert opened(bundle, None, "fp32", trust=True) == "pyfunc/native"


def test_engine_that_cannot_run_is_skipped_unless_requested(tmp_path: Path, machine: dict[str, Exception]) -> None:
    bundle = make_bundle(tmp_path / "b", rates={cpu_class(): {"openvino/bf16+fp32": 900.0}})
    machine["openvino/bf16+fp32"] = EngineUnavailable("no bf16 here", remedy="fp32")
    assert opened(bundle) == "openvino/fp32"
    with pytest.raises(EngineUnavailable, match="no bf16 here"):
        opened(bundle, None, "bf16")
    machine["openvino/fp32"] = MissingExtra("no openvino", remedy="install it")
    assert opened(bundle) == "torch/fp32"


def test_engine_with_code_comes_last_and_needs_trust(tmp_path: Path, machine: dict[str, Exception]) -> None:
    bundle = make_bundle(tmp_path / "b", TORCH, CODE, rates={cpu_class(): {"pyfunc/native": 900.0, "torch/fp32": 1.0}})
    assert opened(bundle) == "torch/fp32"
    machine["torch/fp32"] = MissingExtra("no torch", remedy="install it")
    with pytest.raises(MissingExtra):
        opened(bundle)
    with pytest.raises(CodeNotTrusted):
        opened(bundle, "pyfunc")


def test_cpu_class_has_vendor_family_model_extensions_and_cores() -> None:
    intel = "processor: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon\n"
    intel += "flags\t\t: fpu avx2 avx512f amx_bf16 amx_tile\n\n"
    assert describe_cpu(intel, 4) == "GenuineIntel/6/143 avx2 avx512f amx_bf16 x4"
    assert describe_cpu(intel * 2, 4) == describe_cpu(intel, 4)
    assert describe_cpu(intel, 8) != describe_cpu(intel, 4)
    arm = "processor : 0\nFeatures\t: fp asimd sve bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
    assert describe_cpu(arm, 2) == "0x41/0xd40 asimd sve bf16 x2"
    assert describe_cpu("", 2).endswith(" x2")
