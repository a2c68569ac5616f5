"""Files and folders that no other user may read or change: modes, owners and links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.other_user import OTHER, give_away, needs_root

from likewise.core.errors import OutputRefused
from likewise.core.private_files import (
    changeable_by_others,
    open_file,
    open_folder,
    open_private,
    own_folder,
    private_folder,
    write_private,
)

WIDE = [0o755, 0o770, 0o775, 0o777, 0o1777]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def folder_of(path: Path, bits: int) -> Path:
    path.mkdir()
    path.chmod(bits)
    return path


def test_new_folder_and_its_parents_are_private(tmp_path: Path) -> None:
    assert private_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert own_folder(tmp_path / "c" / "d") == tmp_path / "c" / "d"
    assert {mode(tmp_path / name) for name in ("a", "a/b", "c", "c/d")} == {0o700}


@pytest.mark.parametrize("bits", WIDE)
def test_private_folder_of_an_earlier_version_is_tightened(tmp_path: Path, bits: int) -> None:
    folder = folder_of(tmp_path / "cache", bits)
    (folder / "own").touch()
    private_folder(folder)
    assert mode(folder) == bits & ~0o077
    assert (folder / "own").exists()


@pytest.mark.parametrize("check", [private_folder, open_folder])
def test_links_and_files_are_not_taken_for_folders(tmp_path: Path, check: object) -> None:
    folder_of(tmp_path / "victim", 0o755)
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "file").touch()
    for name in ("link", "dangling", "file"):
        with pytest.raises(OutputRefused, match=f"{name} is a link or not a folder") as caught:
            check(tmp_path / name, remedy="the remedy")  # type: ignore[operator]
        assert caught.value.remedy == "the remedy"
    assert mode(tmp_path / "victim") == 0o755
    assert not (tmp_path / "nothing").exists()


@needs_root
@pytest.mark.parametrize("check", [private_folder, own_folder, open_folder])
def test_folders_of_another_user_are_refused(tmp_path: Path, check: object) -> None:
    give_away(folder_of(tmp_path / "theirs", 0o777))
    with pytest.raises(OutputRefused, match="theirs belongs to another user"):
        check(tmp_path / "theirs")  # type: ignore[operator]
    assert (mode(tmp_path / "theirs"), list((tmp_path / "theirs").iterdir())) == (0o777, [])


@needs_root
def test_what_another_user_put_into_an_open_folder_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "cache", 0o777)
    (folder / "planted").mkdir()
    give_away(folder / "planted")
    with pytest.raises(OutputRefused, match="planted belongs to another user"):
        private_folder(folder)
    (folder / "planted").rmdir()
    private_folder(folder)


@pytest.mark.parametrize("bits", [0o770, 0o775, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_not_opened(tmp_path: Path, bits: int) -> None:
    with pytest.raises(OutputRefused, match="can be changed by other users"):
        open_folder(folder_of(tmp_path / "open", bits))
    assert mode(tmp_path / "open") == bits


def test_a_folder_that_the_user_named_keeps_its_mode(tmp_path: Path) -> None:
    assert mode(own_folder(folder_of(tmp_path / "data", 0o755))) == 0o755
    (tmp_path / "link").symlink_to("data")
    assert own_folder(tmp_path / "link") == tmp_path / "link"
    with pytest.raises(OutputRefused, match="can be changed by other users"):
        own_folder(folder_of(tmp_path / "shared", 0o1777))
    assert mode(tmp_path / "shared") == 0o1777


def test_file_systems_that_give_all_files_one_owner_are_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "squashed", 0o700)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)  # as on NFS, where new files have another owner than the process
    os.close(open_folder(folder))
    assert list(folder.iterdir()) == []


def test_links_are_not_followed_to_files(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("content")
    (tmp_path / "link").symlink_to("victim")
    for access in ("rb", "wb", "r+b", "w+b"):
        with pytest.raises(OSError, match="symbolic links"):
            open_file(tmp_path / "link", access)
    with pytest.raises(OutputRefused, match="link is a link"):
        open_private(tmp_path / "link")
    write_private(tmp_path / "link", "replaced")
    assert (tmp_path / "victim").read_text() == "content"
    assert (tmp_path / "link").read_text() == "replaced"
    assert not (tmp_path / "link").is_symlink()


def test_private_files_have_mode_0600_and_others_that_of_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        os.close(open_private(tmp_path / "lock"))
        write_private(tmp_path / "record", b"x")
        (tmp_path / "former").touch(0o666)
        os.close(open_private(tmp_path / "former"))
        open_file(tmp_path / "output", "wb").close()
    finally:
        os.umask(umask)
    assert [mode(tmp_path / name) for name in ("lock", "record", "former", "output")] == [0o600, 0o600, 0o600, 0o666]


def test_a_failed_write_leaves_the_former_content_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "record").write_text("former")
    with pytest.raises(UnicodeEncodeError):
        write_private(tmp_path / "record", "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    assert (tmp_path / "record").read_text() == "former"


@needs_root
def test_the_part_of_a_path_that_others_may_change_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", 0o755)
    (inner := folder / "b").mkdir()
    assert changeable_by_others(inner) is None
    folder.chmod(0o1777)  # protects `b`, as /tmp does, but not what others put there
    assert (changeable_by_others(inner), changeable_by_others(folder)) == (None, folder)
    folder.chmod(0o777)
    assert changeable_by_others(inner) == folder
    folder.chmod(0o755)
    give_away(inner)
    assert changeable_by_others(inner) == inner
