"""`docs/sagemaker-operations.md` lists exactly the operations that plans call and that the emulator executes."""

from __future__ import annotations

import re

import pytest
from botocore import xform_name
from tests.docs.generated import ROOT

from likewise.targets.sagemaker.emulator.catalog import Catalog
from likewise.targets.sagemaker.emulator.endpoints import Endpoints
from likewise.targets.sagemaker.emulator.runtime import Runtime
from likewise.targets.sagemaker.emulator.transforms import Transforms
from likewise.targets.sagemaker.shapes import service_model

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "sagemaker-operations.md").read_text()
SOURCE = ROOT / "src" / "likewise" / "targets" / "sagemaker"
KNOWN = {
    xform_name(name): name
    for service in ("sagemaker", "sagemaker-runtime")
    for name in service_model(service).operation_names
}


def listed(section: str) -> dict[str, list[str]]:
    """The other cells of each operation's row in the table of a section."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return {name: [cell.strip() for cell in cells] for first, *cells in rows for name in re.findall(r"`(\w+)`", first)}


def test_the_page_lists_what_the_emulator_executes() -> None:
    emulated = {name for each in (Catalog, Endpoints, Runtime, Transforms) for name in vars(each)}
    assert listed("SageMaker").keys() == {KNOWN[name] for name in emulated & KNOWN.keys()}


def test_the_page_lists_what_plans_call() -> None:
    text = "\n".join(path.read_text() for path in SOURCE.glob("*.py"))
    kinds = re.findall(r'_create\("(\w+)"', text)  # their operations are f"create_{kind}"
    called = {*re.findall(r'"(\w+)"', text), *(f"{verb}_{kind}" for kind in kinds for verb in ("create", "describe"))}
    planned = {name for name, (plans, _) in listed("SageMaker").items() if plans == "yes"}
    assert planned == {KNOWN[name] for name in called & KNOWN.keys()}


def test_what_is_left_out_exists_and_is_not_emulated() -> None:
    left_out = listed("Left out").keys()
    assert left_out
    assert left_out <= set(KNOWN.values()) - listed("SageMaker").keys()
