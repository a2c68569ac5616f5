"""Selection of the model that a container serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.bundles.format import EngineEntry, Manifest
from likewise.bundles.open import write_manifest
from likewise.container.models import PlainModel, find_model
from likewise.container.settings import ContainerOptions
from likewise.core.errors import BundleTampered, CodeNotTrusted, ModelNotFound, WrongUsage

MLMODEL = """
flavors:
  python_function:
    loader_module: nowhere
    python_version: 3.11.7
"""


def bundle(folder: Path, mark: str = "x") -> str:
    """Write a bundle that no engine could load; returns its digest."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text(f"flavors: {{}}  # {mark}\n")
    engine = EngineEntry("pyfunc", "native")
    return write_manifest(folder, Manifest({}, engines=(engine,))).digest


class Layout:
    """The image's bundle folder and SageMaker's model data folder."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "image"
        self.model_data = folder / "model_data"
        self.model_data.mkdir()
        self.log_lines: list[str] = []

    def digest(self, **options: object) -> str:
        chosen = ContainerOptions(model_dir=self.model_data, **options)  # type: ignore[arg-type]
        return find_model(chosen, self.log_lines.append, self.image).digest


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_the_images_bundle_is_served(layout: Layout) -> None:
    digest = bundle(layout.image)
    assert layout.digest() == digest


def test_the_bundle_in_the_model_data_or_in_its_only_subfolder_is_served(layout: Layout) -> None:
    digest = bundle(layout.model_data / "sentiment")
    assert layout.digest() == digest
    (layout.model_data / "sentiment").rename(layout.model_data.with_name("moved"))
    layout.model_data.rmdir()
    layout.model_data.with_name("moved").rename(layout.model_data)
    assert layout.digest() == digest


def test_two_subfolders_are_ambiguous(layout: Layout) -> None:
    bundle(layout.model_data / "a")
    bundle(layout.model_data / "b", "y")
    with pytest.raises(ModelNotFound):
        layout.digest()


@pytest.mark.parametrize("subfolder", ["", "sentiment"])
def test_folders_that_other_programs_add_do_not_count(layout: Layout, subfolder: str) -> None:
    digest = bundle(layout.model_data / subfolder)
    for name in ("code", "lost+found", "__MACOSX"):
        (layout.model_data / name).mkdir()
    assert layout.digest() == digest


def test_a_missing_model_is_reported(layout: Layout) -> None:
    with pytest.raises(ModelNotFound) as refused:
        layout.digest()
    assert "likewise image build" in refused.value.remedy
    layout.model_data.rmdir()
    with pytest.raises(ModelNotFound):
        layout.digest()


def test_the_configured_bundle_takes_precedence(layout: Layout, tmp_path: Path) -> None:
    bundle(layout.image)
    bundle(layout.model_data, "y")
    digest = bundle(tmp_path / "named", "z")
    assert layout.digest(bundle=tmp_path / "named") == digest
    with pytest.raises(ModelNotFound):
        layout.digest(bundle=tmp_path / "nowhere")


def test_two_bundles_are_rejected_unless_they_are_identical(layout: Layout) -> None:
    digest = bundle(layout.image)
    bundle(layout.model_data)
    assert layout.digest() == digest
    (layout.model_data / "model" / "MLmodel").unlink()
    (layout.model_data / "model").rmdir()
    (layout.model_data / "likewise.json").unlink()
    bundle(layout.model_data / "other", "y")
    with pytest.raises(WrongUsage, match="another one"):
        layout.digest()


def test_an_mlflow_model_next_to_the_images_bundle_is_ignored_with_a_log_line(layout: Layout) -> None:
    digest = bundle(layout.image)
    (layout.model_data / "MLmodel").write_text(MLMODEL)
    assert layout.digest() == digest
    assert "is ignored" in layout.log_lines[0]


def test_a_plain_mlflow_model_requires_trust(layout: Layout) -> None:
    (layout.model_data / "model").mkdir()
    (layout.model_data / "model" / "MLmodel").write_text(MLMODEL)
    with pytest.raises(CodeNotTrusted) as refused:
        layout.digest()
    assert "likewise bundle" in refused.value.remedy
    assert "LIKEWISE_TRUST" in refused.value.remedy


def test_a_trusted_plain_mlflow_model_is_served_in_place(layout: Layout) -> None:
    (layout.model_data / "MLmodel").write_text(MLMODEL)
    served = find_model(
        ContainerOptions(model_dir=layout.model_data, trust=True), layout.log_lines.append, layout.image
    )
    assert isinstance(served, PlainModel)
    assert served.model_path == layout.model_data
    assert [engine.name for engine in served.manifest.engines] == ["pyfunc"]
    assert layout.digest(trust=True) == served.digest
    (layout.model_data / "more").write_text("")
    assert layout.digest(trust=True) != served.digest


def test_a_modified_bundle_is_rejected(layout: Layout) -> None:
    bundle(layout.model_data)
    (layout.model_data / "model" / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(BundleTampered):
        layout.digest()
