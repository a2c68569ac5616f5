"""Which model a container serves."""

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
    """A bundle that no engine could load; its digest."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text(f"flavors: {{}}  # {mark}\n")
    engine = EngineEntry("pyfunc", "native", True, "sha256:" + "0" * 64)
    return write_manifest(folder, Manifest({}, engines=(engine,))).digest


class Places:
    """The image's folder, and SageMaker's."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "image"
        self.given = folder / "given"
        self.given.mkdir()
        self.notes: list[str] = []

    def digest(self, **options: object) -> str:
        chosen = ContainerOptions(model_dir=self.given, **options)  # type: ignore[arg-type]
        return find_model(chosen, self.notes.append, self.image).digest


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_the_images_bundle(places: Places) -> None:
    digest = bundle(places.image)
    assert places.digest() == digest


def test_the_bundle_in_the_model_data_or_one_folder_deep(places: Places) -> None:
    digest = bundle(places.given / "sentiment")
    assert places.digest() == digest
    (places.given / "sentiment").rename(places.given.with_name("moved"))
    places.given.rmdir()
    places.given.with_name("moved").rename(places.given)
    assert places.digest() == digest


def test_two_folders_say_nothing(places: Places) -> None:
    bundle(places.given / "a")
    bundle(places.given / "b", "y")
    with pytest.raises(ModelNotFound):
        places.digest()


def test_nothing_at_all(places: Places) -> None:
    with pytest.raises(ModelNotFound) as refused:
        places.digest()
    assert "likewise image build" in refused.value.remedy
    places.given.rmdir()
    with pytest.raises(ModelNotFound):
        places.digest()


def test_the_named_one_counts_before_all(places: Places, tmp_path: Path) -> None:
    bundle(places.image)
    bundle(places.given, "y")
    digest = bundle(tmp_path / "named", "z")
    assert places.digest(bundle=tmp_path / "named") == digest
    with pytest.raises(ModelNotFound):
        places.digest(bundle=tmp_path / "nowhere")


def test_two_bundles_are_refused_unless_they_are_one(places: Places) -> None:
    digest = bundle(places.image)
    bundle(places.given)
    assert places.digest() == digest
    (places.given / "model" / "MLmodel").unlink()
    (places.given / "model").rmdir()
    (places.given / "likewise.json").unlink()
    bundle(places.given / "other", "y")
    with pytest.raises(WrongUsage, match="another one"):
        places.digest()


def test_mlflows_own_model_data_beside_the_images_bundle_is_not_used_and_that_is_said(places: Places) -> None:
    digest = bundle(places.image)
    (places.given / "MLmodel").write_text(MLMODEL)
    assert places.digest() == digest
    assert "not used" in places.notes[0]


def test_a_plain_model_needs_trust(places: Places) -> None:
    (places.given / "model").mkdir()
    (places.given / "model" / "MLmodel").write_text(MLMODEL)
    with pytest.raises(CodeNotTrusted) as refused:
        places.digest()
    assert "likewise bundle" in refused.value.remedy
    assert "LIKEWISE_TRUST" in refused.value.remedy


def test_a_trusted_plain_model_is_served_where_it_lies(places: Places) -> None:
    (places.given / "MLmodel").write_text(MLMODEL)
    found = find_model(ContainerOptions(model_dir=places.given, trust=True), places.notes.append, places.image)
    assert isinstance(found, PlainModel)
    assert found.model_path == places.given
    assert [engine.name for engine in found.manifest.engines] == ["pyfunc"]
    assert places.digest(trust=True) == found.digest
    (places.given / "more").write_text("")
    assert places.digest(trust=True) != found.digest
    with pytest.raises(WrongUsage, match="worker"):
        places.digest(trust=True, workers=2)


def test_a_changed_bundle_is_refused(places: Places) -> None:
    bundle(places.given)
    (places.given / "model" / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(BundleTampered):
        places.digest()
