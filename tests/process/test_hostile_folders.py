"""Another user prepares the folders that a job or a service is about to use, where both may write, as in /tmp.

The other user is a real one, in a process without root's permissions.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.support.batch.scoring import names, read, run_job, texts, upper, write
from tests.support.other_user import as_other_user, needs_root

from likewise.batch.distributed.tasks import require_folder
from likewise.core import unpack
from likewise.core.errors import Interrupted, OutputRefused
from likewise.core.isolation import StopSignal
from likewise.core.items import Row
from likewise.receipts import Receipts

pytestmark = needs_root

ROWS = 40
WINDOW = 10
STAGING = ".out.likewise-staging"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in which everybody may create files, and delete only their own."""
    folder = Path(tempfile.mkdtemp(prefix="likewise-shared-"))  # the other user cannot reach pytest's folders
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.csv", texts(f"t{n}" for n in range(ROWS)))


def almost_done(source: Path, folder: Path) -> dict[str, bytes]:
    """The files in the staging folder of this job, of which all rows but the last ones are scored."""

    def stop(row: Row) -> object:
        if row.get("text") == f"t{ROWS - 1}":
            raise StopSignal
        return upper(row)

    folder.mkdir()
    with pytest.raises(Interrupted):
        run_job(source, folder / "out", stop, window=WINDOW)
    staging = folder / STAGING
    return {str(path.relative_to(staging)): path.read_bytes() for path in staging.rglob("*") if path.is_file()}


def plant(folder: Path, files: dict[str, bytes], links: dict[str, Path]) -> None:
    """As the other user: create the folder with files and links that anybody may change."""
    os.umask(0)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name, target in links.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)


def test_forged_answers_are_not_published(shared: Path, source: Path, tmp_path: Path) -> None:
    files = almost_done(source, tmp_path / "work")
    part = "output/part-00000.csv"
    forged = {**files, part: files[part].replace(b"<T1>", b"<F1>")}
    assert forged[part] != files[part]
    assert as_other_user(partial(plant, shared / STAGING, forged, {})) == ""
    for restart in (False, True):
        with pytest.raises(OutputRefused, match=f"{STAGING} belongs to another user") as caught:
            run_job(source, shared / "out", window=WINDOW, restart=restart)
    assert "choose another OUTPUT" in caught.value.remedy
    assert names(shared) == {STAGING}
    assert (shared / STAGING / part).read_bytes() == forged[part]
    assert run_job(source, shared / "another", window=WINDOW).rows_ok == ROWS
    rows = read(shared / "another" / "part-00000.csv")
    assert [row["predictions"] for row in rows] == [f"<T{n}>" for n in range(ROWS)]


@pytest.mark.parametrize("name", ["quarantine.jsonl", "answers-0.jsonl", "output/part-00000.csv"])
def test_files_that_planted_links_point_to_are_unchanged(shared: Path, source: Path, tmp_path: Path, name: str) -> None:
    files = almost_done(source, tmp_path / "work")
    journal = json.loads(files["journal.jsonl"].splitlines()[-1])
    empty = json.dumps({**journal, "length": 0, "quarantine": 0, "answers": 0}).encode()  # so that files are truncated
    files["journal.jsonl"] = files["journal.jsonl"].splitlines()[0] + b"\n" + empty + b"\n"
    victim = tmp_path / "victim"
    victim.write_text("precious")
    assert as_other_user(partial(plant, shared / STAGING, files, {name: victim})) == ""
    with pytest.raises(OutputRefused, match="belongs to another user"):
        run_job(source, shared / "out", window=WINDOW)
    assert victim.read_text() == "precious"
    assert names(shared) == {STAGING}


def test_staging_folder_that_is_another_users_link_is_not_followed(shared: Path, source: Path, tmp_path: Path) -> None:
    almost_done(source, tmp_path / "work")
    own = tmp_path / "work" / STAGING  # the user's own job, with other options
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert as_other_user(partial(plant, shared, {}, {STAGING: own})) == ""
    for restart in (False, True):
        with pytest.raises(OutputRefused, match="is a link or not a folder"):
            run_job(source, shared / "out", window=WINDOW, restart=restart)
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    assert names(shared) == {STAGING}


def test_planted_output_to_restore_is_neither_published_nor_deleted(shared: Path, source: Path) -> None:
    run_job(source, shared / "out")
    planted = shared / ".out.likewise-replaced"
    assert as_other_user(partial(plant, planted, {"part-00000.csv": b"forged"}, {})) == ""
    run_job(source, shared / "out", predict=lambda _: {"text": "new"}, restart=True)
    assert {row["predictions"] for row in read(shared / "out" / "part-00000.csv")} == {"new"}
    assert (planted / "part-00000.csv").read_bytes() == b"forged"


def test_another_user_reads_the_output_but_not_the_staging_folder(shared: Path, source: Path, tmp_path: Path) -> None:
    almost_done(source, tmp_path / "work")
    shutil.copytree(tmp_path / "work" / STAGING, shared / STAGING)  # keeps the mode
    assert "PermissionError" in as_other_user(lambda: list((shared / STAGING).iterdir()))
    run_job(source, shared / "out", window=WINDOW)
    assert as_other_user((shared / "out" / "part-00000.csv").read_bytes) == ""
    assert as_other_user((shared / "out" / "_likewise.json").read_bytes) == ""


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_receipts_in_a_folder_of_another_user_are_refused(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    home = shared / "data"
    if kind == "link":
        assert as_other_user(partial(plant, shared, {}, {"data": tmp_path / "elsewhere"})) == ""
    else:
        assert as_other_user(partial(plant, home, {"receipts.db": b""}, {})) == ""
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(home))
    with pytest.raises(OutputRefused, match="belongs to another user") as caught:
        Receipts().all()
    assert "LIKEWISE_DATA_HOME" in caught.value.remedy
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(shared / "mine"))
    assert Receipts().all() == []
    assert "PermissionError" in as_other_user((shared / "mine" / "receipts.db").read_bytes)


@pytest.mark.parametrize("planted", ["key", "", "link"])
def test_a_node_does_not_use_what_another_user_unpacked(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    monkeypatch.delenv("LIKEWISE_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")  # so that the cache is in the temporary folder
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    name = f"likewise-{os.geteuid()}"
    if planted == "link":
        (tmp_path / "own" / "spark" / "key").mkdir(parents=True)  # something else of this user
        assert as_other_user(partial(plant, shared, {}, {name: tmp_path / "own"})) == ""
    else:
        assert as_other_user(partial(plant, shared / name / "spark" / planted, {"code.py": b"forged"}, {})) == ""
    with pytest.raises(RuntimeError, match=rf"{name} .*belongs to another user.* LIKEWISE_CACHE_HOME"):
        unpack.unpacked(unpack.cache_folder("spark"), "key", pytest.fail)


def test_an_executor_of_another_user_gets_a_clear_error(shared: Path) -> None:
    staging = shared / STAGING
    (staging / "scored").mkdir(parents=True)
    staging.chmod(0o700)
    (staging / "scored").chmod(0o777)
    failed = as_other_user(partial(require_folder, str(staging / "scored")))
    assert failed.startswith(f"OutputRefused: the worker on {os.uname().nodename}, which runs as user 65534, cannot")
