"""Layers, image names, pins and the store: equal inputs give equal bytes, and invalid inputs are rejected."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import marshal
import sys
import tarfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.containers.images import AMD64, ARM64, elf, small_base, small_image
from tests.support.wheels import make_wheel

from likewise.core.errors import (
    BundleTampered,
    EngineUnavailable,
    InputInvalid,
    InputNotFound,
    MissingExtra,
    TargetUnavailable,
    UnsafeArchive,
    WrongUsage,
)
from likewise.engine.kinds import kind_of
from likewise.images.base import open_base
from likewise.images.environment import byte_code, unique_entries, with_byte_code
from likewise.images.export import for_platform, write_archive, write_layout
from likewise.images.layers import PART, LayerEntry, make_layer, zip_layer
from likewise.images.oci import Descriptor, local_name, parse_name, platform_named
from likewise.images.store import Store
from likewise.images.wheels import Wheels, markers, pins

pytest_plugins = ("tests.support.containers.fixtures",)
NAMES = st.text(st.characters(categories=["Ll", "Lu", "Nd"]), min_size=1, max_size=60)
CONTENTS = st.binary(max_size=3000).filter(lambda data: not data.startswith(b"\x7fELF"))
FILES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=4).map("/".join), CONTENTS, max_size=8)
FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def disjoint(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without files whose path is also the folder of another file."""
    return {name: data for name, data in files.items() if not any(other.startswith(f"{name}/") for other in files)}


@FEW
@given(FILES.map(disjoint), st.sampled_from([0, 1, 6]))
def test_equal_entries_give_the_same_layer_in_any_store(tmp_path: Path, files: dict[str, bytes], level: int) -> None:
    layers = []
    for folder in ("one", "nested/other"):
        entries = [LayerEntry.of(name, data) for name, data in sorted(files.items())]
        layers.append(make_layer(Store(tmp_path / folder), entries, AMD64, level=level))
    assert layers[0] == layers[1]
    path = Store(tmp_path / "one").path(layers[0].blob.digest)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in layers[0].blob.digest
    inner = gzip.decompress(path.read_bytes())
    assert layers[0].diff_id == "sha256:" + hashlib.sha256(inner).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        members = {member.name: member for member in tar}
        assert {name: tar.extractfile(members[name]).read() for name in files} == files  # type: ignore[union-attr]
    assert all((m.mtime, m.uid, m.gid, m.uname) == (0, 0, 0, "") for m in members.values())
    assert all(m.mode == (0o755 if m.isdir() else 0o644) for m in members.values())


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART])
def test_gzip_parts_form_a_single_member(images: Store, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    layer = zip_layer(images, io.BytesIO(data), level=1)
    zipped = images.path(layer.blob.digest).read_bytes()
    assert gzip.decompress(zipped) == data
    import zlib

    decompressor = zlib.decompressobj(31)
    assert decompressor.decompress(zipped) == data
    assert decompressor.eof
    assert decompressor.unused_data == b""


def test_file_for_another_cpu_is_rejected(images: Store) -> None:
    make_layer(images, [LayerEntry.of("a.so", elf(183))], ARM64, level=0)
    with pytest.raises(EngineUnavailable, match=r"a\.so.*linux/arm64"):
        make_layer(images, [LayerEntry.of("a.so", elf(62))], ARM64, level=0)


@pytest.mark.parametrize("name", ["a/.wh.b", "a/.wh...", "../x", "/etc/passwd", "a/../../b", "a\\b", "a\nb"])
def test_unsafe_entry_name_is_rejected(images: Store, name: str) -> None:
    with pytest.raises(UnsafeArchive):
        make_layer(images, [LayerEntry.of(name, b"")], AMD64, level=0)


def test_byte_code_is_reproducible_and_runs() -> None:
    source = b"def f(x):\n    return {'a': x, 'b': frozenset({'x', 'y'})}\n"
    code = byte_code(source, "/m.py")
    assert code is not None
    assert code == byte_code(source, "/m.py")
    assert code[:4] == importlib.util.MAGIC_NUMBER
    assert code[4:8] == b"\x01\0\0\0"  # by hash, unchecked
    namespace: dict[str, object] = {}
    exec(marshal.loads(code[16:]), namespace)  # noqa: S102, S302
    assert namespace["f"](1)["a"] == 1  # type: ignore[operator]
    assert byte_code(b"not valid Python", "/m.py") is None


def test_byte_code_does_not_depend_on_the_state_of_the_process() -> None:
    """Neither on what else refers to its constants, nor on warnings that are errors."""
    source = b"def f(x):\n    return x in {'zz-z', 'aa-a', 'mm-m', 1000, ('b-b', 2.5)}, '\\d'\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = compile(source, "/m.py", "exec", dont_inherit=True, optimize=0)
    code = byte_code(source, "/m.py")
    assert code is not None
    (function,) = (each for each in module.co_consts if hasattr(each, "co_consts"))
    (members,) = (each for each in function.co_consts if isinstance(each, frozenset))
    for member in members:
        referred = [member, member]
        assert code[16:] == marshal.dumps(module, 2), referred
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert byte_code(source, "/m.py") == code


def test_byte_code_is_added_only_for_the_running_python_version() -> None:
    names = [e.name for e in with_byte_code([LayerEntry.of("p/m.py", b"x = 1")], sys.version_info[1])]
    assert names == ["p/m.py", f"p/__pycache__/m.{sys.implementation.cache_tag}.pyc"]
    assert [e.name for e in with_byte_code([LayerEntry.of("p/m.py", b"x = 1")], 99)] == ["p/m.py"]


def test_installed_tests_have_no_byte_code() -> None:
    entries = [LayerEntry.of("pandas/tests/m.py", b"x = 1"), LayerEntry.of("pandas/_testing/m.py", b"x = 1")]
    names = [e.name for e in with_byte_code(entries, sys.version_info[1])]
    assert names[:2] == ["pandas/tests/m.py", "pandas/_testing/m.py"]
    assert len(names) == 3


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("demo", "", "demo", ""),
        ("demo:1.0", "", "demo", "1.0"),
        ("team/demo:x", "", "team/demo", "x"),
        ("localhost/demo", "localhost", "demo", ""),
        ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000", "a/b", "c"),
        ("registry.example/a:c", "registry.example", "a", "c"),
    ],
)
def test_image_names_are_parsed(text: str, registry: str, repository: str, tag: str) -> None:
    name = parse_name(text)
    assert (name.registry, name.repository, name.tag) == (registry, repository, tag)
    assert str(name) == text


@pytest.mark.parametrize(
    "text", ["", "Demo", "a:b:c", "a//b", "demo:", "demo@sha256:12", "a b", "$(x)", "x/../y", ":1"]
)
def test_invalid_image_name_is_rejected(text: str) -> None:
    with pytest.raises(WrongUsage):
        parse_name(text)


def test_local_image_name_has_a_tag() -> None:
    assert str(local_name("demo")) == "demo:latest"
    with pytest.raises(WrongUsage):
        local_name("demo@sha256:" + "0" * 64)


def test_platforms_are_parsed() -> None:
    assert platform_named("arm64") == platform_named("aarch64") == ARM64
    with pytest.raises(WrongUsage, match="windows"):
        platform_named("windows/amd64")
    assert markers(ARM64, 12)["platform_machine"] == "aarch64"


def test_pins_contain_only_what_the_engine_needs() -> None:
    unused = kind_of("openvino").image.dependencies
    names = {line.partition("==")[0] for line in pins(["likewise[openvino]"], AMD64, 11, unused=unused)}
    assert {"openvino", "numpy", "tokenizers", "uvicorn"} <= names
    assert not {"torch", "mlflow", "pandas", "rich", "typer", "huggingface-hub", "likewise", "pip"} & names
    with pytest.raises(MissingExtra, match="no-such-distribution"):
        pins(["no-such-distribution"], AMD64, 11, unused={})


def test_store_deletes_unreferenced_blobs(images: Store) -> None:
    with images.used():
        first = small_image(images, "demo:1", [b"old model"])
    assert {b.digest for b in images.reachable(first)} == {
        f"sha256:{path.name}" for path in (images.folder / "blobs" / "sha256").iterdir()
    }
    with images.used():
        second = small_image(images, "demo:1", [b"new model"])
    stored = {f"sha256:{path.name}" for path in (images.folder / "blobs" / "sha256").iterdir()}
    assert stored == {b.digest for b in images.reachable(second)}
    assert images.find("demo:1") == second
    with pytest.raises(InputNotFound, match="demo:1"):
        images.find("other:1")


def test_modified_blob_is_rejected(images: Store) -> None:
    image = small_image(images, "demo:1", [b"x"])
    path = images.path(image.digest)
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    with pytest.raises(BundleTampered):
        images.document(image)


def test_image_is_exported_as_a_layout_and_as_an_archive(images: Store, tmp_path: Path) -> None:
    image = small_image(images, "demo:1", [b"x"])
    assert write_layout(images, "demo:1", tmp_path / "oci") == image
    index = json.loads((tmp_path / "oci" / "index.json").read_bytes())
    assert Descriptor.parse(index["manifests"][0]) == image
    for path in (tmp_path / "oci" / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    with (tmp_path / "a.tar").open("wb") as stream:
        write_archive(images, "demo:1", "linux/amd64", stream)
    with tarfile.open(tmp_path / "a.tar") as tar:
        docker = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert docker[0]["RepoTags"] == ["demo:1"]
        assert {docker[0]["Config"], *docker[0]["Layers"]} <= set(tar.getnames())
    with (tmp_path / "b.tar").open("wb") as stream:
        write_archive(images, "demo:1", "linux/amd64", stream, skip=1)
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert json.load(tar.extractfile("manifest.json")) == docker  # type: ignore[arg-type]
        assert not {*docker[0]["Layers"]} & {*tar.getnames()}
    with pytest.raises(EngineUnavailable):
        for_platform(images, image, "linux/arm64")


def test_base_is_inspected_for_python_and_glibc(images: Store, tmp_path: Path) -> None:
    base = open_base(images, str(small_base(tmp_path / "b.tar", minor=12, libc="2.31")), AMD64)
    assert (base.python, base.minor, base.glibc) == ("/usr/bin/python3.12", 12, (2, 31))
    with pytest.raises(EngineUnavailable, match="linux/arm64"):
        open_base(images, str(tmp_path / "b.tar"), ARM64)
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(EngineUnavailable, match="lacks"):
        open_base(images, str(tmp_path / "empty.tar"), AMD64)
    (tmp_path / "no.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(InputInvalid):
        open_base(images, str(tmp_path / "no.tar"), AMD64)
    with pytest.raises(WrongUsage):
        open_base(images, "./nowhere", AMD64)


def test_layout_and_archive_give_the_same_base(images: Store, tmp_path: Path) -> None:
    root = open_base(images, str(small_base(tmp_path / "b.tar")), AMD64)
    config = {**root.config, "config": {"Env": ["A=b"]}}
    from likewise.images.oci import CONFIG, MANIFEST

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": images.put(CONFIG, config).document,
        "layers": [layer.blob.document for layer in root.layers],
    }
    images.name("base:1", images.put(MANIFEST, manifest))
    write_layout(images, "base:1", tmp_path / "layout")
    with (tmp_path / "archive.tar").open("wb") as stream:
        write_archive(images, "base:1", "linux/amd64", stream)
    other = Store(tmp_path / "other")
    bases = [open_base(other, str(tmp_path / name), AMD64) for name in ("layout", "archive.tar")]
    assert [(b.python, b.config["config"], b.layers) for b in bases] == 2 * [
        ("/usr/bin/python3.11", {"Env": ["A=b"]}, root.layers)
    ]


def test_private_wheel_is_locked_by_name_and_hash(images: Store, tmp_path: Path) -> None:
    path = make_wheel(tmp_path / "wheels")
    wheels = Wheels(images, AMD64, 11, (2, 36))
    locked = wheels.locked(["likewise-private-thing==1.0"], [path.parent])
    assert [wheel.sha256 for wheel in locked] == [hashlib.sha256(path.read_bytes()).hexdigest()]
    assert locked[0].pin.startswith("likewise-private-thing==1.0 --hash=sha256:")
    lock = tmp_path / "lock"
    lock.write_text(locked[0].pin.replace("sha256:", "sha256:0")[:-1] + "\n")
    with pytest.raises(TargetUnavailable, match="pip"):
        wheels.locked([], [path.parent], lock)
    lock.write_text(locked[0].pin + "\n")
    assert wheels.locked([], [path.parent], lock) == locked


def test_modified_wheel_is_rejected(images: Store, tmp_path: Path) -> None:
    path = make_wheel(tmp_path / "wheels")
    wheels = Wheels(images, AMD64, 11, (2, 36))
    (wheel,) = wheels.locked(["likewise-private-thing==1.0"], [path.parent])
    assert wheels.checked(wheel).read_bytes() == path.read_bytes()
    wheels.path(wheel).write_bytes(b"modified")
    with pytest.raises(BundleTampered):
        wheels.checked(wheel)


def test_file_shared_by_two_distributions_is_added_once() -> None:
    """mlflow-skinny and mlflow-tracing share files."""
    entries = [LayerEntry.of("a/b.py", b"1"), LayerEntry.of("a/c.py", b"2"), LayerEntry.of("a/b.py", b"3")]
    assert [(each.name, each.stream.read()) for each in unique_entries(entries)] == [("a/b.py", b"1"), ("a/c.py", b"2")]
