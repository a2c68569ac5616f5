"""Images contain only packages that are identified by their hash; a bundle adds packages, but replaces none."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from tests.support.containers.images import AMD64, ARM64, small_base
from tests.support.wheels import PRIVATE, install, make_wheel

from likewise.bundles.format import LoggedEnvironment
from likewise.bundles.open import Bundle, open_bundle, write_manifest
from likewise.core.errors import BundleInvalid, BundleTampered, EngineUnavailable, InputNotFound, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.engine.kinds import kind_of
from likewise.images import environment
from likewise.images.build import ImageOptions, Parts, make_parts
from likewise.images.lock import read_lock
from likewise.images.store import Store
from likewise.images.wheels import Wheels, markers, pins
from likewise.testing.models import upper_bundle

pytest_plugins = ("tests.support.containers.fixtures",)
HASH = "--hash=sha256:" + "ab" * 32
MINOR = 12  # of the base's Python; not that of the tests, so that nothing is compiled
MARKERS = markers(AMD64, MINOR)
SITE = f"opt/likewise/python/lib/python3.{MINOR}/site-packages"
NEEDED = "starlette"  # a package that Likewise needs


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only folders of wheels offer packages to pip."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(environment, "LEVEL", 1)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of one module for each package that Likewise needs."""
    folder = tmp_path_factory.mktemp("stubs")
    for pin in pins(["likewise"], AMD64, MINOR, unused={}):
        name, _, version = pin.partition("==")
        make_wheel(folder, name, version)
    return folder


def bundle_of(folder: Path, *requirements: str, wheels: Iterable[Path] = ()) -> Bundle:
    """A bundle that runs code, with these logged requirements and wheels."""
    opened = open_bundle(upper_bundle(folder, ""))
    for wheel in wheels:
        (folder / "wheels").mkdir(exist_ok=True)
        (folder / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
    manifest = replace(opened.manifest, environment=LoggedEnvironment("3.11", requirements))
    return open_bundle(write_manifest(folder, manifest).path)


@pytest.fixture
def build(images: Store, stubs: Path, tmp_path: Path) -> Callable[..., Parts]:
    """Build the layers of a bundle's image; the user's folders are those given and the stubs."""
    base = small_base(tmp_path / "base.tar", minor=MINOR)

    def build(bundle: Bundle, *folders: Path, lock: Path | None = None) -> Parts:
        options = ImageOptions(base=str(base), wheels=(stubs, *folders), lock=lock)
        model = ModelSpec(bundle.digest, bundle.path, trust=True)
        return make_parts(bundle, model, AMD64, options, images, lambda text: None)

    return build


def contents(store: Store, parts: Parts) -> dict[str, str]:
    """The Python files in site-packages that are not Likewise's."""
    with tarfile.open(store.path(parts.environment.layer.blob.digest)) as tar:
        files = {m.name.removeprefix(f"{SITE}/"): m for m in tar if m.isfile() and m.name.endswith(".py")}
        return {
            name: tar.extractfile(member).read().decode()  # type: ignore[union-attr]
            for name, member in files.items()
            if not name.startswith("likewise/")
        }


# --- wheels in bundles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build_tag", ["", "99"])
def test_wheel_in_a_bundle_cannot_replace_a_package_of_likewise(
    build: Callable[..., Parts], tmp_path: Path, build_tag: str
) -> None:
    """pip prefers a wheel with a build tag to the one that the user or an index has."""
    (pin,) = (each for each in pins(["likewise"], AMD64, MINOR, unused={}) if each.startswith(f"{NEEDED}=="))
    forged = make_wheel(
        tmp_path, NEEDED, pin.partition("==")[2], build=build_tag, files={f"{NEEDED}.py": "raise SystemExit\n"}
    )
    with pytest.raises(BundleInvalid, match=rf"wheels/{NEEDED}.*which Likewise or the engine needs"):
        build(bundle_of(tmp_path / "bundle", wheels=[forged]))


@pytest.mark.parametrize("engine", ["openvino", "text-openvino"])
def test_images_of_compiled_texts_have_no_torch(engine: str) -> None:
    kind = kind_of(engine)
    pinned = pins(["likewise", *kind.requirements], AMD64, MINOR, unused=kind.image.dependencies)
    names = {pin.partition("==")[0] for pin in pinned}
    assert {"openvino", "tokenizers"} <= names
    assert names.isdisjoint({"torch", "transformers", "mlflow", "mlflow-skinny", "pandas", "huggingface-hub"})


@pytest.mark.slow
def test_private_package_is_installed_from_the_bundle_by_hash(
    build: Callable[..., Parts], images: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site")
    wheel = make_wheel(tmp_path)
    bundle = bundle_of(tmp_path / "bundle", f"{PRIVATE}==1.0", wheels=[wheel])
    monkeypatch.setattr(Wheels, "_download", lambda *args, **kwargs: pytest.fail("pip is not needed"))
    parts = build(bundle)
    assert contents(images, parts)["likewise_private_thing.py"] == "x = 1\n"
    assert build(bundle).environment == replace(parts.environment, made=False)
    with tarfile.open(images.path(parts.environment.layer.blob.digest)) as tar:
        lock = tar.extractfile("opt/likewise/environment.lock").read().decode()  # type: ignore[union-attr]
    assert f"{PRIVATE}==1.0 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n" in lock
    (tmp_path / "lock").write_text(lock)
    assert build(bundle, lock=tmp_path / "lock").environment.layer == parts.environment.layer


@pytest.mark.parametrize(("requirement", "version"), [("", "1.0"), (PRIVATE, "1.1")])
def test_wheel_in_a_bundle_that_nothing_requires_is_not_installed(
    build: Callable[..., Parts],
    images: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requirement: str,
    version: str,
) -> None:
    """Another version than the installed one is not required, either."""
    install(monkeypatch, tmp_path / "site")
    bundle = bundle_of(tmp_path / "bundle", requirement, wheels=[make_wheel(tmp_path, version=version)])
    if requirement:
        with pytest.raises(EngineUnavailable, match=r"likewise-private-thing==1\.0"):
            build(bundle)
    else:
        assert "likewise_private_thing.py" not in contents(images, build(bundle))


def test_users_wheel_takes_precedence_over_the_bundles(
    build: Callable[..., Parts], images: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of `--wheels` is the remedy for a wheel that does not suit the platform."""
    install(monkeypatch, tmp_path / "site")
    unsuitable = make_wheel(tmp_path, tag="cp312-cp312-manylinux_2_17_aarch64", build="9")
    bundle = bundle_of(tmp_path / "bundle", PRIVATE, wheels=[unsuitable])
    with pytest.raises(EngineUnavailable, match=r"aarch64\.whl does not suit linux/amd64, Python 3\.12 and"):
        build(bundle)
    make_wheel(tmp_path / "own", files={"own.py": "mine\n"})
    assert contents(images, build(bundle, tmp_path / "own"))["own.py"] == "mine\n"


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (["a-1.0-py3-none-any.whl", "a-1.0-1-py3-none-any.whl"], "second wheel of a"),
        (["A_-1.0-py3-none-any.whl", "a.-2.0-py3-none-any.whl"], "second wheel of a-"),
        (["a-1.0.whl"], "not a valid name"),
        (["README"], "not a valid name"),
    ],
)
def test_ambiguous_files_among_a_bundles_wheels_are_rejected(
    build: Callable[..., Parts], tmp_path: Path, names: list[str], cause: str
) -> None:
    wheel = make_wheel(tmp_path)
    files = []
    for name in names:
        files.append(tmp_path / name)
        files[-1].write_bytes(wheel.read_bytes())
    with pytest.raises(BundleInvalid, match=cause):
        build(bundle_of(tmp_path / "bundle", wheels=files))


def test_wheel_that_changes_after_the_bundle_was_opened_is_rejected(
    build: Callable[..., Parts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site")
    wheel = make_wheel(tmp_path)
    bundle = bundle_of(tmp_path / "bundle", PRIVATE, wheels=[wheel])
    (bundle.path / "wheels" / wheel.name).write_bytes(make_wheel(tmp_path, build="1", files={}).read_bytes())
    with pytest.raises(BundleTampered, match=wheel.name):
        build(bundle)


@pytest.mark.parametrize(
    "file",
    [
        f"{NEEDED}.py",
        f"{NEEDED}/__init__.py",
        f"{NEEDED}.cpython-311-x86_64-linux-gnu.so",
        "likewise/container.py",
        "likewise/container/__init__.py",
        "json/__init__.py",
        f"likewise_private_thing-1.0.data/data/lib/python3.{MINOR}/site-packages/{NEEDED}.py",
    ],
)
def test_wheel_in_a_bundle_cannot_replace_modules_of_others(
    build: Callable[..., Parts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    install(monkeypatch, tmp_path / "site")
    wheel = make_wheel(tmp_path, files={"likewise_private_thing.py": "", file: "raise SystemExit\n"})
    with pytest.raises(BundleInvalid, match="replaces a part of Python or of another package"):
        build(bundle_of(tmp_path / "bundle", PRIVATE, wheels=[wheel]))


def test_no_wheel_replaces_likewise_itself_or_brings_byte_code(
    build: Callable[..., Parts], images: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site", "aaa")
    files = {"likewise/container/__init__.py": "forged\n", "aaa.py": "", "aaa/__pycache__/b.cpython-312.pyc": ""}
    make_wheel(tmp_path / "own", "aaa", files=files)
    parts = build(bundle_of(tmp_path / "bundle", "aaa"), tmp_path / "own")
    with tarfile.open(images.path(parts.environment.layer.blob.digest)) as tar:
        module = tar.extractfile(f"{SITE}/likewise/container/__init__.py").read()  # type: ignore[union-attr]
        assert not [name for name in tar.getnames() if name.startswith(f"{SITE}/aaa/")]
    assert b"forged" not in module


# --- where packages come from ----------------------------------------------------------------------------------------

ORIGINS = {
    "folder": {"url": "file:///home/ann/thing", "dir_info": {}},
    "editable": {"url": "file:///home/ann/thing", "dir_info": {"editable": True}},
    "archive": {"url": "https://ann:secret@example.org/thing.whl?token=secret", "archive_info": {}},
    "git": {"url": "https://example.org/thing.git", "vcs_info": {"vcs": "git", "commit_id": "1" * 40}},
}


@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS)
def test_package_that_is_not_from_an_index_is_not_fetched_from_one(
    images: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, object]
) -> None:
    """Its name may belong to somebody else there."""
    install(monkeypatch, tmp_path / "site", direct_url=json.dumps(origin))
    monkeypatch.setattr(Wheels, "_download", lambda *args, **kwargs: pytest.fail("pip was called"))
    wheels = Wheels(images, AMD64, 11, (2, 36))
    pinned = pins([PRIVATE], AMD64, 11, unused={})
    with pytest.raises(WrongUsage, match=r"likewise-private-thing==1\.0 was installed from ") as caught:
        wheels.locked(pinned)
    assert "secret" not in caught.value.cause
    make_wheel(tmp_path / "own", version="1.1")
    make_wheel(tmp_path / "own", tag="py2-none-any")
    with pytest.raises(WrongUsage, match="was installed from"):
        wheels.locked(pinned, [tmp_path / "own"])
    own = make_wheel(tmp_path / "own")
    (wheel,) = wheels.locked(pinned, [tmp_path / "own"])
    assert wheel.sha256 == sha256(own.read_bytes()).hexdigest()


def test_package_from_conda_may_be_fetched_from_an_index(
    images: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `direct_url.json` names a folder on the machine that built the package."""
    install(monkeypatch, tmp_path / "site", direct_url=json.dumps(ORIGINS["folder"]), INSTALLER="conda\n")
    with pytest.raises(EngineUnavailable, match="pip found no wheel"):
        Wheels(images, AMD64, 11, (2, 36)).locked([f"{PRIVATE}==1.0"])


def test_users_wheels_are_chosen_as_pip_does(images: Store, tmp_path: Path) -> None:
    for tag, build in [
        ("py3-none-any", ""),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", ""),
        ("cp311-cp311-manylinux_2_28_x86_64", ""),
        ("cp311-cp311-manylinux_2_28_x86_64", "2"),
        ("cp311-cp311-manylinux_2_40_x86_64", ""),  # needs a newer glibc
        ("cp312-cp312-manylinux_2_28_x86_64", ""),
        ("cp311-cp311-manylinux_2_28_aarch64", ""),
    ]:
        make_wheel(tmp_path, tag=tag, build=build)

    def chosen(wheels: Wheels) -> str:
        (wheel,) = wheels.locked([f"{PRIVATE}==1.0"], [tmp_path])
        return wheel.file.removeprefix("likewise_private_thing-1.0-")

    assert chosen(Wheels(images, AMD64, 11, (2, 36))) == "2-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert chosen(Wheels(images, AMD64, 11, (2, 17))) == "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    assert chosen(Wheels(images, AMD64, 12, (2, 36))) == "cp312-cp312-manylinux_2_28_x86_64.whl"
    assert chosen(Wheels(images, AMD64, 13, (2, 36))) == "py3-none-any.whl"
    assert chosen(Wheels(images, ARM64, 11, (2, 36))) == "cp311-cp311-manylinux_2_28_aarch64.whl"


# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://ann:secret@example.org/simple",
        "--extra-index-url=https://example.org/simple?token=secret",
        "-f wheels",
        "-r other.txt",
        "-e .",
        f"thing @ https://ann:secret@example.org/thing.whl {HASH}",
        f"https://example.org/thing.whl?token=secret {HASH}",
        f"./thing.whl {HASH}",
        f"thing-1.0-py3-none-any.whl {HASH}",
        "thing==1.0",
        f"thing {HASH}",
        f"thing>=1.0 {HASH}",
        f"thing==1.* {HASH}",
        f"thing==1.0,<2 {HASH}",
        "thing==1.0 --hash=md5:0123",
        f"thing==1.0 {HASH} --pre",
        f"other==1.0 {HASH}",
    ],
)
def test_lock_line_without_exact_name_version_and_hash_is_rejected(tmp_path: Path, line: str) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"# comment\n\nother==1.0 \\\n    {HASH}\n{line}\n")
    with pytest.raises(WrongUsage, match=r"line 5 of the lock") as caught:
        read_lock(lock, MARKERS)
    assert "secret" not in caught.value.cause


def test_lock_in_the_format_of_pip_compile_is_read(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(
        f"# comment\nThing[extra]==1.0 \\\n    {HASH} \\\n    {HASH.replace('ab', 'cd')}\n    # via other\n"
        f'colorama==0.4 ; sys_platform == "win32" {HASH}\nuvloop==0.2 ; sys_platform != "win32" {HASH}\n'
        f"likewise==0.1 {HASH}  # the installed one is used\nlast==1.0 {HASH} \\\n"
    )
    assert read_lock(lock, MARKERS) == [
        f"Thing==1.0 {HASH} {HASH.replace('ab', 'cd')}",
        f"uvloop==0.2 {HASH}",
        f"last==1.0 {HASH}",
    ]


def test_unreadable_lock_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"\xff\xfe")
    for name in ("lock", "missing"):
        with pytest.raises(InputNotFound, match="cannot be read"):
            read_lock(tmp_path / name, MARKERS)


# --- the layer's cache -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_layer_is_built_again_when_likewises_own_metadata_changes(
    build: Callable[..., Parts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its description is the README: a cached layer with the old one has another digest than a new layer."""
    bundle = bundle_of(tmp_path / "bundle")
    before = build(bundle).environment
    kind = type(distribution("likewise"))
    original = kind.read_text

    def read_text(self: Distribution, name: str) -> str | None:
        text = original(self, name)
        return f"{text}\nAnother README.\n" if name == "METADATA" else text

    monkeypatch.setattr(kind, "read_text", read_text)
    assert build(bundle).environment.layer != before.layer


def test_a_package_in_the_current_folder_does_not_replace_pip(
    images: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text("open('canary', 'w')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineUnavailable, match="pip found no wheel"):
        Wheels(images, AMD64, MINOR, (2, 36)).locked(["nothing-has-this-name==1.0"])
    assert not (tmp_path / "canary").exists()


def test_the_reason_of_a_failure_of_pip_itself_is_shown(images: Store) -> None:
    output = "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device\n"
    assert "No space left" in Wheels(images, AMD64, MINOR, (2, 36))._pip_failure(output).cause
