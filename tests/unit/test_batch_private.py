"""Staging folders of batch jobs are private: links are not followed, and files of other users are not used."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.support.batch.scoring import names, read, run_job, texts, upper, write
from tests.support.other_user import give_away, needs_root

from likewise.batch import Progress
from likewise.batch.staging import Claim, check, drop
from likewise.core.errors import Interrupted, OutputRefused
from likewise.core.isolation import StopSignal
from likewise.core.items import Row

OUTPUTS = ["out", "out.csv", "out.parquet"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.csv", [*texts(f"t{n}" for n in range(50)), {"text": "bad"}])


def stopping(row: Row) -> object:
    if row.get("text") == "t30":
        raise StopSignal
    return upper(row)


def interrupted(source: Path, output: Path) -> Path:
    """The staging folder of a job that was interrupted after 20 rows."""
    with pytest.raises(Interrupted):
        run_job(source, output, stopping, window=10)
    return output.with_name(f".{output.name}.likewise-staging")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027])
def test_staging_is_private_and_the_output_is_not(tmp_path: Path, source: Path, output: str, umask: int) -> None:
    former = os.umask(umask)
    try:
        staging = interrupted(source, tmp_path / output)
        assert mode(staging) == 0o700
        run_job(source, tmp_path / output, window=10)
    finally:
        os.umask(former)
    written = [path for path in tmp_path.rglob("*") if path != source]
    assert len(written) == (4 if output == "out" else 3)
    assert {mode(path) for path in written} == {0o666 & ~umask} | ({0o777 & ~umask} if output == "out" else set())


def test_readable_staging_of_an_earlier_version_is_tightened_and_resumed(tmp_path: Path, source: Path) -> None:
    staging = interrupted(source, tmp_path / "out")
    staging.chmod(0o755)
    claim = Claim(staging, tmp_path / "out")
    claim.acquire()
    claim.release()
    assert mode(staging) == 0o700
    assert run_job(source, tmp_path / "out", window=10).rows_ok == 51


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("bits", [0o707, 0o770, 0o777, 0o1777])
def test_staging_that_others_may_write_to_is_refused(tmp_path: Path, source: Path, bits: int, restart: bool) -> None:
    staging = interrupted(source, tmp_path / "out")
    staging.chmod(bits)
    with pytest.raises(OutputRefused, match="can be changed by other users") as caught:
        run_job(source, tmp_path / "out", window=10, restart=restart)
    assert caught.value.remedy == "delete it and run the command again, or choose another OUTPUT"
    assert names(tmp_path) == {"in.csv", staging.name}
    shutil.rmtree(staging)
    assert run_job(source, tmp_path / "out").rows_ok == 51


@pytest.mark.parametrize("restart", [False, True])
def test_staging_that_is_a_link_is_refused(tmp_path: Path, source: Path, restart: bool) -> None:
    staging = interrupted(source, tmp_path / "out")
    staging.rename(tmp_path / "elsewhere")
    staging.symlink_to("elsewhere")
    before = {path: path.read_bytes() for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()}
    with pytest.raises(OutputRefused, match="is a link or not a folder"):
        run_job(source, tmp_path / "out", window=10, restart=restart)
    assert {path: path.read_bytes() for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()} == before
    assert names(tmp_path) == {"in.csv", "elsewhere", staging.name}


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("out", "quarantine.jsonl"),
        ("out", "journal.jsonl"),
        ("out", "answers-0.jsonl"),
        ("out", "output/part-00000.csv"),
        ("out.parquet", "part-00000.pieces"),
    ],
)
def test_links_in_staging_are_not_followed(tmp_path: Path, source: Path, output: str, name: str) -> None:
    staging = interrupted(source, tmp_path / output)
    victim = (staging / name).rename(tmp_path / "victim")
    (staging / name).symlink_to(victim)
    before = victim.read_bytes()
    with pytest.raises(OutputRefused, match="symbolic links") as caught:
        run_job(source, tmp_path / output, window=10)
    assert "delete the symbolic link" in caught.value.remedy
    assert victim.read_bytes() == before
    assert run_job(source, tmp_path / output, restart=True).rows_ok == 51
    assert victim.read_bytes() == before


@pytest.mark.parametrize("output", OUTPUTS)
def test_links_at_the_final_names_are_replaced_and_not_followed(tmp_path: Path, source: Path, output: str) -> None:
    run_job(source, tmp_path / output)
    (tmp_path / "kept").mkdir()
    for path in [tmp_path / "out"] if output == "out" else list(tmp_path.glob("out.*")):
        path.rename(tmp_path / "kept" / path.name)
        path.symlink_to(tmp_path / "kept" / path.name)
    before = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    run_job(source, tmp_path / output, predict=lambda _: {"text": "new"}, restart=True)
    assert {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()} == before
    assert not [path for path in tmp_path.iterdir() if path.is_symlink() or path.name.startswith(".")]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_sibling_with_the_name_of_a_replaced_output_is_left_alone(tmp_path: Path, source: Path, kind: str) -> None:
    run_job(source, tmp_path / "out")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    sibling = tmp_path / ".out.likewise-replaced"
    sibling.symlink_to("victim") if kind == "link" else shutil.copytree(tmp_path / "victim", sibling)
    run_job(source, tmp_path / "out", predict=lambda _: {"text": "new"}, restart=True)
    assert {row["predictions"] for row in read(tmp_path / "out" / "part-00000.csv")} == {"new"}
    assert (sibling / "file").exists()
    assert (tmp_path / "victim" / "file").exists()


def test_output_is_not_published_from_a_folder_that_took_the_place_of_staging(tmp_path: Path, source: Path) -> None:
    staging = tmp_path / ".out.likewise-staging"

    def swap(progress: Progress) -> None:
        if progress.rows == 51 and not (tmp_path / "away").exists() and names(staging / "output"):
            staging.rename(tmp_path / "away")
            shutil.copytree(tmp_path / "away", staging)

    with pytest.raises(OutputRefused, match="out cannot be written"):
        run_job(source, tmp_path / "out", progress=swap)
    assert not (tmp_path / "out").exists()


@needs_root
def test_staging_of_another_user_is_neither_used_nor_deleted(tmp_path: Path, source: Path) -> None:
    run_job(source, tmp_path / "out")
    staging = tmp_path / ".out.likewise-staging"
    staging.mkdir()
    os.mkfifo(staging / "journal.jsonl")  # reading it would not end
    give_away(staging)
    for restart in (False, True):
        with pytest.raises(OutputRefused, match="belongs to another user"):
            run_job(source, tmp_path / "out", restart=restart)
    with pytest.raises(OutputRefused, match="belongs to another user"):
        check(staging)
    drop(staging)
    assert names(staging) == {"journal.jsonl"}
