"""Receipts, deployments, trust, caches and locks: only this user can read them, and files of others are not used."""

from __future__ import annotations

import os
import sqlite3
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest
from tests.support.other_user import give_away, needs_root

from likewise.batch.distributed.staging import Staging
from likewise.bundles import trust
from likewise.bundles.format import Manifest
from likewise.core import unpack
from likewise.core.errors import OutputRefused
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.engine import rates
from likewise.images.oci import INDEX, Descriptor
from likewise.images.store import Store
from likewise.receipts import Receipts, Run
from likewise.shipping.environment import cached_archive
from likewise.targets.apply import roll_back
from likewise.targets.local.deployment_folder import Deployment, DeploymentFolder, ServiceSpec
from likewise.targets.local.local_options import LocalOptions
from likewise.targets.local.supervisor import trim

DEPLOYMENT = Deployment(ServiceSpec(ModelSpec("sha256:ab"), as_json(LocalOptions())), "127.0.0.1", 1, "http://x:1")
MANIFEST = Manifest({})
RATES = {"openvino/int8": 10.0}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Likewise's own folders; the umask is 0, so that every file that is not made private has mode 0666."""
    for kind in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"LIKEWISE_{kind}_HOME", str(tmp_path / "home" / kind.lower()))
    monkeypatch.setitem(sys.__dict__, "_likewise_held", locks := {})
    umask = os.umask(0)
    yield tmp_path / "home"
    os.umask(umask)
    for handle in locks.values():
        os.close(handle)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


def modes(folder: Path) -> set[int]:
    """The modes of the files in `folder`."""
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*") if not path.is_dir()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_receipts_and_their_journal_are_private(home: Path) -> None:
    Receipts().record("t", "n", Run({}, {}))
    assert (mode(home / "data"), mode(home / "data" / "receipts.db")) == (0o700, 0o600)
    with closing(sqlite3.connect(home / "data" / "receipts.db")) as database:
        database.execute("DELETE FROM runs")
        assert mode(home / "data" / "receipts.db-journal") == 0o600


def test_receipts_of_an_earlier_version_are_tightened(home: Path) -> None:
    Receipts().record("t", "n", Run({"a": 1}, {}))
    (home / "data" / "receipts.db").chmod(0o644)
    assert Receipts().unfinished("t", "n") == Run({"a": 1}, {})
    assert mode(home / "data" / "receipts.db") == 0o600


def test_receipts_in_a_folder_that_others_may_write_to_are_refused(home: Path) -> None:
    Receipts().all()
    (home / "data").chmod(0o777)
    with pytest.raises(OutputRefused, match="data can be changed by other users") as caught:
        Receipts().all()
    assert "LIKEWISE_DATA_HOME" in caught.value.remedy


def test_lock_of_a_deployment_is_private_and_never_a_link(home: Path, victim: Path) -> None:
    target, receipts = SimpleNamespace(uri="t"), Receipts()
    roll_back(target, "n", receipts)  # type: ignore[arg-type]
    (lock,) = (home / "data").glob("*.lock")
    assert mode(lock) == 0o600
    lock.unlink()
    lock.symlink_to(victim)
    with pytest.raises(OutputRefused, match="is a link"):
        roll_back(target, "n", receipts)  # type: ignore[arg-type]
    assert victim.read_text() == "precious"


def test_files_of_a_deployment_are_private(home: Path) -> None:
    folder = DeploymentFolder(home / "data" / "local" / "one")
    folder.create().write(DEPLOYMENT)
    os.close(folder.claim(0) or 0)
    folder.log.write_bytes(b"x" * 200)
    folder.create()  # as the next start does
    trim(folder.log, 100)
    names = {path.name for path in folder.path.iterdir()}
    assert names == {"deployment.json", "lock", "log", "log.1", "work"}
    assert modes(folder.path) == {0o600}
    assert mode(folder.path) == 0o700


def test_deployment_of_an_earlier_version_is_tightened(home: Path) -> None:
    folder = DeploymentFolder(home / "data" / "local" / "one")
    for path in (folder.path, folder.bundles):
        path.mkdir(mode=0o755, parents=True)
    (folder.path / "deployment.json").touch(0o644)
    folder.create()
    assert (mode(folder.path), mode(folder.bundles), modes(folder.path)) == (0o700, 0o700, {0o600})


def trusted(_: Path) -> None:
    trust.remember("models:/team/")


def deployed(home: Path) -> None:
    folder = DeploymentFolder(home / "data" / "local" / "one")
    folder.create().write(DEPLOYMENT)


def measured(_: Path) -> None:
    rates.remember_rates(MANIFEST, RATES)


def named(_: Path) -> None:
    Store().name("a:b", Descriptor(INDEX, "sha256:0", 1))


def planned(home: Path) -> None:
    folder = home / "cache" / "staging"
    folder.mkdir(parents=True, exist_ok=True)
    staging = Staging(folder)
    staging.chunks.mkdir(exist_ok=True)
    staging.keep_snapshot([], numbered_on=False)


FORMER = {  # the file, and the temporary name that it once had
    trusted: ("config/trust.json", "config/trust.new"),
    deployed: ("data/local/one/deployment.json", "data/local/one/deployment.new"),
    measured: (f"cache/measured/{rates.rates_file(MANIFEST).name}", f"cache/measured/NAME.{os.getpid()}"),
    named: ("cache/images/index.json", f"cache/images/index.{os.getpid()}"),
    planned: ("cache/staging/snapshot.json", "cache/staging/snapshot.new"),
}


@pytest.mark.parametrize("work", FORMER)
def test_records_are_private_and_not_written_through_links(
    home: Path, victim: Path, work: Callable[[Path], None]
) -> None:
    record, temporary = (home / name for name in FORMER[work])
    work(home)
    assert mode(record) == 0o600
    moved = record.rename(home / "moved")
    record.symlink_to(moved)
    before = moved.stat().st_mtime_ns
    temporary.with_name(temporary.name.replace("NAME", record.stem)).symlink_to(victim)
    work(home)
    assert (victim.read_text(), moved.stat().st_mtime_ns) == ("precious", before)
    assert mode(record) == 0o600
    assert not record.is_symlink()


def test_new_folders_are_private(home: Path) -> None:
    for work in FORMER:
        if work is not planned:
            work(home)
    folders = ("config", "data", "data/local", "data/local/one", "cache", "cache/measured", "cache/images")
    assert {name: mode(home / name) for name in folders} == dict.fromkeys(folders, 0o700)


@pytest.mark.parametrize("kind", ["link", pytest.param("another user", marks=needs_root)])
def test_hostile_caches_are_refused_with_a_remedy(home: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "theirs").mkdir()
    for name in ("measured", "images", "bundles"):
        (home / "cache").mkdir(parents=True, exist_ok=True)
        if kind == "link":
            (home / "cache" / name).symlink_to(tmp_path / "theirs")
        else:
            (home / "cache" / name).mkdir()
            give_away(home / "cache" / name)
    for use in (lambda: measured(home), Store, lambda: rates.cache_folder("bundles")):
        with pytest.raises(OutputRefused, match=f"{home}/cache/.* (is a link|belongs to {kind})") as caught:
            use()
        assert caught.value.remedy == "delete it, or set LIKEWISE_CACHE_HOME to a private folder"
    assert list((tmp_path / "theirs").iterdir()) == []


@needs_root
def test_measurements_of_another_user_are_ignored(home: Path) -> None:
    measured(home)
    assert rates.known_rates(MANIFEST) == RATES
    give_away(home / "cache" / "measured")
    assert rates.known_rates(MANIFEST) == {}


def test_a_cache_that_cannot_be_created_is_reported(home: Path) -> None:
    home.mkdir()
    (home / "cache").touch()
    with pytest.raises(OutputRefused, match="cache/bundles cannot be created") as caught:
        rates.cache_folder("bundles")
    assert "LIKEWISE_CACHE_HOME" in caught.value.remedy


@needs_root
def test_archives_of_another_user_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir(mode=0o777)
    (tmp_path / "sent" / "x.archive").write_bytes(b"forged")
    give_away(tmp_path / "sent" / "x.archive")
    with pytest.raises(OutputRefused, match=r"x\.archive belongs to another user"):
        cached_archive(tmp_path / "sent" / "x.archive", pytest.fail)


# --- caches of nodes -------------------------------------------------------------------------------------------------


def fetch(stream: BinaryIO) -> None:
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("code.py"))


@pytest.mark.parametrize("bits", [0o770, 0o777, 0o1777])
def test_node_cache_that_others_may_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(bits)
    with pytest.raises(RuntimeError, match=r"cache .*can be changed by others.* LIKEWISE_CACHE_HOME"):
        unpack.unpacked(tmp_path / "cache", "key", fetch)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "open", pytest.param("foreign", marks=needs_root)])
def test_entry_that_another_user_may_have_unpacked_is_never_used(tmp_path: Path, kind: str) -> None:
    entry = tmp_path / "cache" / "key"
    entry.mkdir(parents=True)
    entry.parent.chmod(0o700)
    entry.chmod(0o777 if kind == "open" else 0o700)
    if kind == "link":
        entry.symlink_to(entry.rename(tmp_path / "elsewhere"))
    elif kind == "foreign":
        give_away(entry)
    for _ in range(2):  # it is not remembered as usable
        with pytest.raises(RuntimeError, match=r"key is a link, belongs to another user"):
            unpack.unpacked(tmp_path / "cache", "key", fetch)
    entry.unlink() if kind == "link" else entry.rmdir()
    assert (unpack.unpacked(tmp_path / "cache", "key", fetch) / "code.py").exists()


def test_lock_of_an_entry_is_never_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / "key.lock").symlink_to(victim)
    before = victim.stat().st_mtime_ns
    with pytest.raises(OSError, match="symbolic links"):
        unpack.unpacked(tmp_path / "cache", "key", fetch)
    assert victim.stat().st_mtime_ns == before
