"""A model's logged requirements only name packages; where those come from is the user's decision, on every target."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.wheels import install

from likewise.bundles.format import EngineEntry, LoggedEnvironment
from likewise.bundles.open import Bundle, open_bundle, write_manifest
from likewise.core.errors import LikewiseError, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.engine.kinds import kind_of
from likewise.engine.requirements import plain_requirements
from likewise.images.build import ImageOptions, build_image
from likewise.images.store import Store
from likewise.shipping.environment import closure
from likewise.shipping.payload import requirements_of
from likewise.targets.ray import store as ray_store
from likewise.targets.spark import shipping as spark_shipping
from likewise.testing.models import upper_bundle

OTHER_THAN_NAMES = [
    "-f wheels",
    "-r other.txt",
    "-c constraints.txt",
    "-e .",
    "--find-links=https://ann:secret@example.org/wheels",
    "--extra-index-url https://ann:secret@example.org/simple?token=secret",
    "thing @ https://ann:secret@example.org/thing.whl?token=secret",
    "thing@git+https://ann:secret@example.org/thing.git",
    "thing @ file:thing",
    "https://ann:secret@example.org/thing-1.0-py3-none-any.whl#sha256=secret",
    "git+ssh://git@example.org/thing.git",
    "./thing",
    "../thing.whl",
    "/tmp/thing.whl",
    "thing-1.0-py3-none-any.whl",
    "thing-1.0.tar.gz",
    "thing==1.0 --hash=sha256:" + "0" * 64,
    "thing==1.0 \\",
    "thing thing",
    "thing==1.0\n-f wheels",
    "'; rm -rf /",
]


def bundle_with(folder: Path, *requirements: str) -> Bundle:
    """A bundle that runs code, with these logged requirements."""
    opened = open_bundle(upper_bundle(folder, ""))
    manifest = replace(opened.manifest, environment=LoggedEnvironment("3.11", requirements))
    return open_bundle(write_manifest(folder, manifest).path)


@pytest.mark.parametrize("line", OTHER_THAN_NAMES)
def test_requirement_that_is_not_only_a_name_and_versions_is_refused(line: str) -> None:
    with pytest.raises(WrongUsage, match="the model was logged with the requirement") as caught:
        plain_requirements(["numpy", line])
    assert "secret" not in str(caught.value.as_dict())
    assert "NAME==VERSION" in caught.value.remedy


def test_names_extras_versions_and_markers_are_accepted() -> None:
    lines = ["# comment", "", "  thing[a,b] >=1.0,<2  # why", 'other==1!2.0+cpu ; python_version > "3.0"', "last"]
    assert plain_requirements(lines) == ["thing[a,b]<2,>=1.0", 'other==1!2.0+cpu; python_version > "3.0"', "last"]


def test_engine_without_the_models_code_never_reads_its_requirements(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "bundle", "-f wheels")
    entry = EngineEntry("openvino", "fp32")
    assert requirements_of(bundle, entry) == ["likewise", *kind_of("openvino").requirements]


def _image(model: ModelSpec, folder: Path) -> None:
    build_image(open_bundle(model.folder), "a:1", model, ImageOptions(base=str(folder)), store=Store(folder))


def _spark(model: ModelSpec, folder: Path) -> None:
    spark_shipping.ship(None, open_bundle(model.folder), model, always=True)


def _ray(model: ModelSpec, folder: Path) -> None:
    ray_store.ship({"model": model.as_dict()})


@pytest.mark.parametrize("ship", [_image, _spark, _ray])
@pytest.mark.parametrize("line", ["thing @ https://example.org/thing.whl", "--index-url https://example.org"])
def test_images_spark_and_ray_refuse_the_same_requirements(
    ship: Callable[[ModelSpec, Path], None], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started before: no registry is called, and no program runs."""
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("a program was started"))
    bundle = bundle_with(tmp_path / "bundle", line)
    with pytest.raises(LikewiseError) as caught:
        ship(ModelSpec(bundle.digest, bundle.path, trust=True), tmp_path)
    assert caught.value.as_dict() == _refusal(line)


def _refusal(line: str) -> dict[str, object]:
    with pytest.raises(WrongUsage) as caught:
        plain_requirements([line])
    return caught.value.as_dict()


def test_requirement_for_another_platform_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, "thing")
    lines = ['thing; sys_platform == "linux"', 'not-installed; sys_platform == "win32"', 'other; extra == "test"']
    assert closure(lines).keys() == {"thing"}
    assert closure(lines, markers={"sys_platform": "linux"}).keys() == {"thing"}
