"""The bundle format: equal content has equal digests, and every changed byte is detected."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import py_compile
import random
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likewise.bundles.archive import pack, unpack
from likewise.bundles.format import (
    MANIFEST,
    EngineEntry,
    LoggedEnvironment,
    Manifest,
    ModelSource,
    Reference,
    load_manifest,
)
from likewise.bundles.open import Bundle, open_bundle, open_exactly, write_manifest
from likewise.bundles.trust import Trust
from likewise.core.digests import sha256_json
from likewise.core.errors import (
    BundleInvalid,
    BundleTampered,
    EngineUnavailable,
    LikewiseError,
    ModelNotFound,
    OutputRefused,
    ReferenceMissing,
    UnsafeArchive,
)
from likewise.core.private_files import changeable_by_others
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine

UNSEALED = Manifest(
    files={},
    references=(Reference("runs:/abc/model", "references/0-model", "traced"),),
    signature_raw={"inputs": '[{"type": "string", "name": "text"}]'},
    row_wise=True,
    source=ModelSource("models:/m/1", "models:/m/1"),
    environment=LoggedEnvironment("3.11.7", ("numpy==2.0",)),
    engines=(EngineEntry("pyfunc", "native"),),
)


def make_bundle(folder: Path, manifest: Manifest = UNSEALED) -> Bundle:
    (folder / "model" / "data").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    (folder / "model" / "data" / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "references" / "0-model").mkdir(parents=True)
    (folder / "references" / "0-model" / "vocab.txt").write_text("über\n")
    return write_manifest(folder, manifest)


def test_bundle_opens_as_it_was_written(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    opened = open_bundle(tmp_path / "b")
    assert opened.manifest == bundle.manifest
    assert opened.digest == bundle.digest
    assert opened.signature.columns == ("text",)
    assert opened.resolve("runs:/abc/model/vocab.txt").read_text() == "über\n"
    assert opened.resolve("runs:/abc/model") == tmp_path / "b" / "references" / "0-model"


def test_digest_covers_the_content_but_not_its_origin(tmp_path: Path) -> None:
    one = make_bundle(tmp_path / "one")
    other = replace(
        UNSEALED,
        source=ModelSource("runs:/x/y", "s3://b/y"),
        engines=(),
        environment=LoggedEnvironment(),
        measured={"s": 1},
    )
    assert make_bundle(tmp_path / "two", other).digest == one.digest
    assert make_bundle(tmp_path / "three", replace(UNSEALED, row_wise=False)).digest != one.digest
    assert make_bundle(tmp_path / "four", replace(UNSEALED, references=())).digest != one.digest
    assert make_bundle(tmp_path / "five", replace(UNSEALED, signature_raw=None)).digest != one.digest


def test_build_digest_covers_what_decides_a_prediction_or_an_environment(tmp_path: Path) -> None:
    one = make_bundle(tmp_path / "one")
    changes = [
        replace(UNSEALED, engines=()),
        replace(UNSEALED, engines=(EngineEntry("torch", "fp32"),)),
        replace(UNSEALED, rates={"a CPU": {"torch/fp32": 1.0}}),
        replace(UNSEALED, environment=LoggedEnvironment("3.12.0", ("numpy==2.0",))),
        replace(UNSEALED, environment=LoggedEnvironment("3.11.7", ("numpy==2.1",))),
    ]
    builds = {make_bundle(tmp_path / f"c{i}", change).build for i, change in enumerate(changes)}
    for name in ("engine/openvino/labels.json", "wheels/private-1-py3-none-any.whl"):
        other = make_bundle(tmp_path / name.replace("/", "-"))
        add_file(other.path, name, b"{}")
        other = write_manifest(other.path, other.manifest)
        assert other.digest == one.digest
        builds.add(other.build)
    assert len(builds | {one.build}) == len(changes) + 3
    origin = replace(UNSEALED, source=ModelSource("runs:/x/y", "s3://b/y"), measured={"s": 1})
    assert make_bundle(tmp_path / "origin", origin).build == one.build
    assert make_bundle(tmp_path / "model", replace(UNSEALED, row_wise=False)).build != one.build


def add_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_rejected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "flip"
    if not folder.exists():
        make_bundle(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    victim = data.draw(st.sampled_from(files))
    before = victim.read_bytes()
    at, bit = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(before)
    changed[at] ^= 1 << bit
    victim.write_bytes(bytes(changed))
    try:
        with pytest.raises((BundleTampered, BundleInvalid)):
            open_bundle(folder)
    finally:
        victim.write_bytes(before)
    open_bundle(folder)


def test_any_changed_byte_of_the_manifest_is_rejected(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    data = (tmp_path / "b" / MANIFEST).read_bytes()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((BundleTampered, BundleInvalid)):
            load_manifest(changed)
    for more in (data + b"\n", b" " + data, data[:-1]):
        with pytest.raises(BundleTampered):
            load_manifest(more)


def test_added_or_missing_file_is_rejected_by_name(tmp_path: Path) -> None:
    make_bundle(tmp_path / "more")
    (tmp_path / "more" / "model" / "extra.py").write_text("boo")
    with pytest.raises(BundleTampered, match=r"model/extra\.py is not listed"):
        open_bundle(tmp_path / "more")
    make_bundle(tmp_path / "less")
    (tmp_path / "less" / "model" / "data" / "weights.bin").unlink()
    with pytest.raises(BundleTampered, match=r"model/data/weights\.bin is missing"):
        open_bundle(tmp_path / "less")


@pytest.mark.parametrize("kind", ["link", "folder link", "fifo"])
def test_links_and_special_files_are_rejected_by_name(tmp_path: Path, kind: str) -> None:
    make_bundle(tmp_path / "b")
    if kind == "link":
        (tmp_path / "b" / "model" / "odd").symlink_to("/etc/passwd")
    elif kind == "folder link":
        (tmp_path / "b" / "model" / "odd").symlink_to("/etc", target_is_directory=True)
    else:
        os.mkfifo(tmp_path / "b" / "model" / "odd")
    with pytest.raises(UnsafeArchive, match="model/odd"):
        open_bundle(tmp_path / "b")


def test_missing_reference_is_reported_by_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    with pytest.raises(ReferenceMissing, match="runs:/other/model"):
        bundle.resolve("runs:/other/model")
    with pytest.raises(ReferenceMissing, match="runs:/abc/model2"):
        bundle.resolve("runs:/abc/model2")
    with pytest.raises(ReferenceMissing):
        bundle.resolve("runs:/abc/model/../../../../etc/passwd")
    gone = replace(UNSEALED, references=(Reference("models:/gone@best", "references/9-gone", "declared"),))
    make_bundle(tmp_path / "c", gone)
    with pytest.raises(ReferenceMissing, match="models:/gone@best"):
        open_bundle(tmp_path / "c")


@pytest.mark.parametrize(
    "path", ["../outside", "/etc", "references/../../outside", "model/data", "references", "engine/x"]
)
def test_reference_outside_the_bundle_is_rejected_despite_a_valid_checksum(tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").mkdir()
    make_bundle(tmp_path / "b", replace(UNSEALED, references=(Reference("runs:/abc/model", path, "given"),)))
    with pytest.raises(UnsafeArchive):
        open_bundle(tmp_path / "b")


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd", "model/../../outside.txt", "start.sh", "other/x"])
def test_file_outside_the_bundles_folders_is_rejected_despite_a_valid_checksum(tmp_path: Path, name: str) -> None:
    sealed = make_bundle(tmp_path / "b").manifest
    files = {**sealed.files, name: sealed.files["model/MLmodel"]}
    with pytest.raises(UnsafeArchive):
        load_manifest(replace(sealed, files=files).dump())


def test_partial_copy_opens_only_where_it_is_expected(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    name = "references/0-model/vocab.txt"
    (bundle.path / name).unlink()
    with pytest.raises(BundleTampered, match=r"vocab\.txt is missing"):
        open_bundle(bundle.path)
    copy = open_bundle(bundle.path, partial=True)
    assert (copy.digest, copy.build, copy.missing) == (bundle.digest, bundle.build, {name})
    with pytest.raises(EngineUnavailable, match=r"lacks references/0-model/vocab\.txt"):
        open_engine(copy, ModelSpec(copy.digest, trust=True))
    (bundle.path / name).write_text("another\n")
    with pytest.raises(BundleTampered, match=r"vocab\.txt"):
        open_bundle(bundle.path, partial=True)


@pytest.mark.parametrize("name", ["model/MLmodel", "model/data/weights.bin", "engine/openvino/labels.json"])
def test_only_references_may_be_missing(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    add_file(bundle.path, "engine/openvino/labels.json", b"[]")
    write_manifest(bundle.path, bundle.manifest)
    (bundle.path / name).unlink()
    with pytest.raises(BundleTampered, match="is missing"):
        open_bundle(bundle.path, partial=True)


def test_file_that_lists_what_was_left_out_is_rejected(tmp_path: Path) -> None:
    """Earlier versions read it, so that an edited copy kept its digest and lacked a reference."""
    bundle = make_bundle(tmp_path / "b")
    (bundle.path / "left-out.json").write_text('["references/0-model/vocab.txt"]')
    (bundle.path / "references/0-model/vocab.txt").unlink()
    with pytest.raises(BundleTampered):
        open_bundle(bundle.path, partial=True)


def test_bytecode_from_another_program_is_reported_with_a_remedy(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    (tmp_path / "b" / "model" / "code").mkdir()
    (tmp_path / "b" / "model" / "code" / "steps.py").write_text("x = 1\n")
    write_manifest(bundle.path, bundle.manifest)
    py_compile.compile(str(bundle.path / "model" / "code" / "steps.py"))
    with pytest.raises(BundleTampered, match=r"__pycache__.* bytecode") as caught:
        open_bundle(bundle.path)
    assert "PYTHONDONTWRITEBYTECODE=1" in caught.value.remedy
    assert f"find {bundle.path} -name __pycache__" in caught.value.remedy
    (bundle.path / "model" / "MLmodel").write_text("flavors: {}\nmore: 1\n")
    with pytest.raises(BundleTampered, match="MLmodel does not match the digest"):
        open_bundle(bundle.path)


ADDED = {
    "code/inference.py": "SageMaker's SDK",
    "code/lib/helper.py": "SageMaker's SDK",
    "lost+found/": "a file system",
    "__MACOSX/._model": "macOS",
    "._likewise.json": "macOS",
    ".DS_Store": "macOS",
}
BETWEEN = ("model/._MLmodel", "model/data/.DS_Store")


def add(folder: Path, *names: str) -> None:
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            add_file(folder, name, b"added")


@pytest.mark.parametrize("name", [*ADDED, *BETWEEN])
@pytest.mark.parametrize("in_place", [True, False])
def test_what_other_programs_add_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, in_place: bool
) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    bundle = make_bundle(tmp_path / "b")
    add(bundle.path, name)
    opened = open_bundle(bundle.path, in_place=in_place)
    assert (opened.digest, opened.build, opened.location) == (bundle.digest, bundle.build, bundle.path)
    assert caplog.messages == [
        f"left out of the bundle {bundle.path}, because they are not part of it: "
        + (name.split("/")[0] if "/" in name and name in ADDED else name)
    ]
    copied = not in_place or name in BETWEEN
    assert (opened.path != bundle.path) == copied
    assert not copied or not (opened.path / name).exists()
    again = pack(opened, tmp_path / "again.tar.gz").read_bytes()
    assert not copied or again == pack(make_bundle(tmp_path / "c"), tmp_path / "c.tar.gz").read_bytes()


def test_a_model_archive_with_added_files_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    bundle = make_bundle(tmp_path / "b")
    add(bundle.path, *ADDED, *BETWEEN)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(bundle.path, ".")
    assert unpack(tmp_path / "model.tar.gz", tmp_path / "unpacked").build == bundle.build


@pytest.mark.parametrize("name", ["code", "model/code/._x/y.py", "engine/code/x.py", "x/lost+found/y", "DS_Store"])
def test_other_added_files_are_still_rejected(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    add(bundle.path, name)
    with pytest.raises(BundleTampered, match=f"the file {re.escape(name)} is not listed"):
        open_bundle(bundle.path)


def test_a_file_of_the_model_counts_whatever_its_name(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    add(tmp_path / "b", *BETWEEN)
    bundle = write_manifest(tmp_path / "b", UNSEALED)
    assert open_bundle(bundle.path).path == bundle.path
    (bundle.path / BETWEEN[0]).write_text("changed")
    with pytest.raises(BundleTampered, match="does not match"):
        open_bundle(bundle.path)


def test_a_link_is_rejected_whatever_its_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    (bundle.path / "code").symlink_to(tmp_path)
    with pytest.raises(UnsafeArchive, match="code"):
        open_bundle(bundle.path)


def test_missing_folder_and_folder_without_manifest_have_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as missing:
        open_bundle(tmp_path / "missing")
    with pytest.raises(BundleInvalid) as empty:
        open_bundle(tmp_path)
    assert all("likewise bundle" in error.value.remedy for error in (missing, empty))


def test_deeply_nested_manifest_is_rejected() -> None:
    with pytest.raises(BundleTampered):
        load_manifest(b"[" * 200_000)


@pytest.mark.parametrize(("version", "remedy"), [(3, "upgrade"), (0, "bundle the model again"), ("2", "again")])
def test_unsupported_format_is_reported(tmp_path: Path, version: object, remedy: str) -> None:
    make_bundle(tmp_path / "b")
    data = (tmp_path / "b" / MANIFEST).read_bytes()
    with pytest.raises(BundleInvalid, match=f"format {version!r}") as caught:
        load_manifest(data.replace(b'"likewise": 2', f'"likewise": {json.dumps(version)}'.encode()))
    assert remedy in caught.value.remedy


def format_1(manifest: Manifest) -> bytes:
    """The manifest as earlier versions wrote it."""
    body = json.loads(manifest.dump())
    del body["build"], body["checksum"]
    body["likewise"] = 1
    body["measured"]["rates"] = body.pop("rates")
    body["environment"]["digest"] = "sha256:" + "1" * 64
    body["engines"] = [{**each, "runs_code": False, "digest": "sha256:" + "2" * 64} for each in body["engines"]]
    return as_text({**body, "seal": sha256_json(body)})


def as_text(body: dict[str, object]) -> bytes:
    return json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def test_bundle_in_format_1_opens_with_the_same_digests(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    path = bundle.path / MANIFEST
    path.write_bytes(format_1(bundle.manifest))
    opened = open_bundle(bundle.path)
    assert (opened.digest, opened.build) == (bundle.digest, bundle.build)
    assert (opened.manifest.format, bundle.manifest.lacks) == (1, None)
    assert bundle.build in (opened.manifest.lacks or "")
    path.write_bytes(path.read_bytes().replace(b"models:/m/1", b"models:/m/2"))
    with pytest.raises(BundleTampered):
        open_bundle(bundle.path)


def test_empty_folders_are_removed_and_refused(tmp_path: Path) -> None:
    (tmp_path / "b" / "model" / "empty" / "inner").mkdir(parents=True)
    bundle = make_bundle(tmp_path / "b")
    assert not (bundle.path / "model" / "empty").exists()
    (bundle.path / "model" / "new").mkdir()
    with pytest.raises(BundleTampered, match="the folder model/new is empty"):
        open_bundle(bundle.path)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle in a folder that other users may change."""
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "shared").mkdir()
    bundle = make_bundle(tmp_path / "shared" / "b")
    (tmp_path / "shared").chmod(0o777)
    return bundle


def test_bundle_that_others_may_change_is_opened_from_a_private_copy(shared: Bundle, tmp_path: Path) -> None:
    opened = open_bundle(shared.path)
    assert (opened.digest, opened.build, opened.location) == (shared.digest, shared.build, shared.path)
    assert opened.path.is_relative_to(tmp_path / "cache")
    assert changeable_by_others(opened.path) is None
    (shared.path / "model" / "MLmodel").write_text("flavors: {evil: {}}\n")
    assert (opened.path / "model" / "MLmodel").read_text() == "flavors: {}\n"
    assert open_bundle(opened.path).path == opened.path  # not copied again
    assert Trust(entries=(str(shared.path),)).allows_bundle(opened)


def test_private_copy_is_used_again_and_only_for_the_same_manifest(shared: Bundle) -> None:
    first = open_bundle(shared.path)
    assert open_bundle(shared.path).path == first.path
    write_manifest(shared.path, replace(shared.manifest, row_wise=False))
    assert open_bundle(shared.path).path != first.path


@pytest.mark.parametrize("change", ["link", "content", "added"])
def test_unverified_copy_is_not_opened(shared: Bundle, change: str, tmp_path: Path) -> None:
    victim = shared.path / "model" / "MLmodel"
    if change == "link":
        victim.rename(tmp_path / "moved")
        victim.symlink_to(tmp_path / "moved")
    else:
        (victim if change == "content" else victim.with_name("new")).write_text("other\n")
    with pytest.raises((BundleTampered, UnsafeArchive)) as caught:
        open_bundle(shared.path)
    assert str(shared.path) in caught.value.cause


@pytest.mark.parametrize("name", ["model", "model/MLmodel"])
def test_bundle_with_an_entry_that_others_may_change_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    bundle = make_bundle(tmp_path / "b")
    assert open_bundle(bundle.path).path == bundle.path
    (bundle.path / name).chmod((bundle.path / name).stat().st_mode | 0o002)
    assert open_bundle(bundle.path).path.is_relative_to(tmp_path / "cache")


def test_link_that_changes_after_the_verification_is_not_followed(tmp_path: Path) -> None:
    good, evil, link = make_bundle(tmp_path / "good"), make_bundle(tmp_path / "evil"), tmp_path / "link"
    trusted = Trust(entries=(str(good.path),))
    for first, second in ((good, evil), (evil, good)):
        link.unlink(missing_ok=True)
        link.symlink_to(first.path)
        opened = open_bundle(link)
        link.unlink()
        link.symlink_to(second.path)
        assert opened.path == first.path
        assert trusted.allows_bundle(opened) is (first is good)


def test_folder_that_becomes_a_link_to_a_trusted_one_is_not_trusted(shared: Bundle, tmp_path: Path) -> None:
    good = make_bundle(tmp_path / "good")
    opened = open_bundle(shared.path)
    shared.path.rename(tmp_path / "moved")
    shared.path.symlink_to(good.path)
    assert not Trust(entries=(str(good.path),)).allows_bundle(opened)


def test_copy_of_a_forged_bundle_does_not_stay_in_the_cache(shared: Bundle, tmp_path: Path) -> None:
    shutil.copytree(shared.path, shared.path.with_name("forged"))
    (shared.path.with_name("forged") / "model" / "MLmodel").write_text("flavors: {evil: {}}\n")
    with pytest.raises(BundleTampered):
        open_bundle(shared.path.with_name("forged"))
    assert open_bundle(shared.path).build == shared.build


def test_container_opens_its_bundle_in_place(shared: Bundle) -> None:
    assert open_bundle(shared.path, in_place=True).path == shared.path


def test_other_bundle_or_build_than_the_deployed_one_is_not_opened(tmp_path: Path) -> None:
    one = make_bundle(tmp_path / "one")
    other = make_bundle(tmp_path / "other", replace(UNSEALED, engines=()))
    assert one.digest == other.digest
    spec = ModelSpec(one.digest, one.path, build=one.build)
    assert open_exactly(spec).build == one.build
    with pytest.raises(BundleTampered, match=one.build):
        open_exactly(spec, other.path)
    assert open_exactly(replace(spec, build=""), other.path).build == other.build  # from an earlier version's receipt


def test_packing_is_reproducible_and_reversible(tmp_path: Path) -> None:
    one, two = make_bundle(tmp_path / "one"), make_bundle(tmp_path / "two")
    os.utime(tmp_path / "two" / "model" / "MLmodel", (0, 0))
    first, second = pack(one, tmp_path / "one.tar.gz"), pack(two, tmp_path / "two.tar.gz")
    assert first.read_bytes() == second.read_bytes()
    assert unpack(first, tmp_path / "out").digest == one.digest


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        _member("../escaped"),
        _member("model/../../escaped"),
        _member("/tmp/escaped"),
        _member("model\\..\\escaped"),
        _member("model/new\nline"),
        _member("model/link", tarfile.SYMTYPE, "/etc/passwd"),
        _member("model/hard", tarfile.LNKTYPE, "model/MLmodel"),
        _member("model/device", tarfile.CHRTYPE),
    ],
    ids=lambda m: repr(m.name),
)
def test_unsafe_archive_members_are_rejected_and_nothing_is_left(tmp_path: Path, member: tarfile.TarInfo) -> None:
    archive = _tar(tmp_path / "evil.tar.gz", (_member("model/MLmodel"), b"x"), (member, b""))
    with pytest.raises(UnsafeArchive):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\x1f\x8b\x08\x00broken"])
def test_invalid_archive_is_reported(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(LikewiseError) as caught:
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert caught.value.code == "BUNDLE_INVALID"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [("a", "a/b"), ("a", "a/b/c"), ("a/b", "a"), ("a", "a")], ids=",".join)
def test_name_that_is_both_file_and_folder_is_rejected(tmp_path: Path, names: tuple[str, ...]) -> None:
    archive = _tar(tmp_path / "a.tar.gz", *((_member(name), b"x") for name in names))
    with pytest.raises(UnsafeArchive):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_with_the_name_of_a_file_is_rejected(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", (_member("a"), b"x"), (_member("a", tarfile.DIRTYPE), b""))
    with pytest.raises(UnsafeArchive):
        unpack(archive, tmp_path / "out")


def test_too_long_name_is_rejected(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", (_member("a" * 300), b"x"))
    with pytest.raises(OutputRefused, match="long"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_member_larger_than_the_free_disk_space_is_rejected_before_writing(tmp_path: Path) -> None:
    member = _member("model/big")
    member.size = shutil.disk_usage(tmp_path).free * 2
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(OutputRefused, match="bytes free"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_stream_is_rejected(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        member = _member("model/letters")
        member.size = 300_000
        tar.addfile(member, io.BytesIO(bytes(random.Random(1).choices(b"abcdefgh", k=member.size))))
    compressed = compress(body.getvalue())
    for at in range(1, 10):
        data = bytearray(compressed)
        start = len(data) * at // 10
        data[start : start + 64] = bytes(byte ^ 0xFF for byte in data[start : start + 64])
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(BundleInvalid):
            unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_existing_folder_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(OutputRefused):
        unpack(pack(make_bundle(tmp_path / "b"), tmp_path / "a.tar.gz"), tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "mine"
