"""Vendored URIs are redirected to their copies; MLflow handles all others."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from likewise.bundles.references import normal
from likewise.core.errors import LikewiseError, ReferenceMissing
from likewise.engine.pyfunc import no_bytecode
from likewise.engine.vendored import VendoredFiles, install, likewise_cause, restricted_to, uninstall

RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The user's own MLflow store; returns the ID of its experiment."""
    folder = tmp_path_factory.mktemp("own")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    yield MlflowClient().create_experiment("own", (folder / "artifacts").as_uri())
    mlflow.set_tracking_uri(None)


@pytest.fixture
def vendored(own_store: str, tmp_path: Path) -> Iterator[VendoredFiles]:
    """A folder and a file, vendored and installed."""
    folder = tmp_path / "vendored" / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "data" / "a.txt").write_text("a")
    (tmp_path / "vendored" / "notes.txt").write_text("note")
    (tmp_path / "secret.txt").write_text("secret")
    notes = tmp_path / "vendored" / "notes.txt"
    files = VendoredFiles(
        {
            f"runs:/{RUN}/model": folder,
            f"runs:/{RUN}/notes.txt": notes,
            "models:/name@champion": folder,
            "s3://bucket/deep/model/": folder,
            "/no/such/place/notes.txt": notes,
            "https://example.invalid/x/notes.txt": notes,
        }
    )
    install(files)
    yield files
    uninstall(files)


@pytest.mark.parametrize(
    "uri",
    [
        f"runs:/{RUN}/model",
        "models:/name@champion",
        "s3://bucket/deep/model",
        "models:/name@champion/",
    ],
)
def test_vendored_folder_is_used_by_every_artifact_function(vendored: VendoredFiles, uri: str, tmp_path: Path) -> None:
    assert Path(mlflow.artifacts.download_artifacts(uri), "data/a.txt").read_text() == "a"
    assert mlflow.artifacts.load_text(uri.rstrip("/") + "/data/a.txt") == "a"
    copied = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "to")))
    assert (copied / "data" / "a.txt").read_text() == "a"
    assert copied.is_relative_to(tmp_path / "to")
    (copied / "data" / "a.txt").write_text("changed")
    assert mlflow.artifacts.load_text(uri.rstrip("/") + "/data/a.txt") == "a"
    listed = mlflow.artifacts.list_artifacts(uri.rstrip("/") + "/data")
    assert [(f.path.rpartition("/")[2], f.is_dir, f.file_size) for f in listed] == [("a.txt", False, 1)]


@pytest.mark.parametrize(
    "uri",
    [
        f"runs:/{RUN}/notes.txt",
        "/no/such/place/notes.txt",
        "file:///no/such/place/notes.txt",
        "https://example.invalid/x/notes.txt",
    ],
)
def test_vendored_file_is_used_for_every_uri_scheme(vendored: VendoredFiles, uri: str) -> None:
    assert mlflow.artifacts.load_text(uri) == "note"


def test_clients_and_threads_are_redirected_too(vendored: VendoredFiles) -> None:
    assert Path(MlflowClient().download_artifacts(RUN, "notes.txt")).read_text() == "note"
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(mlflow.artifacts.load_text(f"runs:/{RUN}/notes.txt")))
    thread.start()
    thread.join()
    assert texts == ["note"]


def test_users_own_store_still_works(own_store: str, vendored: VendoredFiles) -> None:
    with mlflow.start_run(experiment_id=own_store) as run:
        mlflow.log_text("mine", "mine.txt")
        mlflow.log_metric("m", 1.0)
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/mine.txt") == "mine"
    assert [f.path for f in MlflowClient().list_artifacts(run.info.run_id)] == ["mine.txt"]
    assert MlflowClient().get_run(run.info.run_id).data.metrics == {"m": 1.0}
    with pytest.raises(MlflowException, match="not found"):
        MlflowClient().get_run(RUN)


def test_only_vendored_uris_are_allowed_in_a_restricted_context(own_store: str, vendored: VendoredFiles) -> None:
    with mlflow.start_run(experiment_id=own_store) as run:
        mlflow.log_text("mine", "mine.txt")
    uri = f"runs:/{run.info.run_id}/mine.txt"
    with restricted_to(vendored):
        with pytest.raises(MlflowException) as missing:
            mlflow.artifacts.load_text(uri)
        cause = likewise_cause(missing.value)
        assert isinstance(cause, ReferenceMissing)
        assert uri in cause.cause
        assert cause.remedy.endswith(f"--reference {uri}")
        with pytest.raises(MlflowException) as refused:
            MlflowClient().get_model_version_by_alias("name", "champion")
        assert "get_model_version_by_alias('name', 'champion')" in str(likewise_cause(refused.value))
        assert vendored.refused
        root = MlflowClient().get_run(RUN).info.artifact_uri
        assert mlflow.artifacts.load_text(root + "/notes.txt") == "note"
        with pytest.raises(MlflowException, match="data"):
            _ = MlflowClient().get_run(RUN).data
    assert mlflow.artifacts.load_text(uri) == "mine"


def test_only_own_and_temporary_local_files_are_allowed(
    vendored: VendoredFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.txt"
    with restricted_to(VendoredFiles({}, own=(tmp_path,))):
        assert mlflow.artifacts.load_text(str(secret)) == "secret"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with restricted_to(vendored):
        assert mlflow.artifacts.load_text(str(secret)) == "secret"
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with restricted_to(vendored), pytest.raises(MlflowException, match="does not contain") as missing:
        mlflow.artifacts.load_text(str(secret))  # it would not exist on another machine
    assert str(likewise_cause(missing.value).remedy).endswith(f"--reference {secret}")  # type: ignore[union-attr]


@pytest.mark.parametrize("inner", ["../../secret.txt", "data/../../../secret.txt", "no.txt"])
def test_no_path_leaves_a_vendored_folder(vendored: VendoredFiles, inner: str) -> None:
    assert vendored.find(f"runs:/{RUN}/model/{inner}") is None


def test_longest_match_wins(tmp_path: Path) -> None:
    for name in ("outer/sub", "inner"):
        (tmp_path / name).mkdir(parents=True)
    vendored = VendoredFiles({"runs:/a": tmp_path / "outer", "runs:/a/sub": tmp_path / "inner"})
    assert vendored.find("runs:/a/sub") == tmp_path / "inner"
    assert vendored.find("runs:/a") == tmp_path / "outer"
    assert vendored.find("runs:/ab") is None
    assert vendored.concerns("runs:/a/x")
    assert not vendored.concerns("runs:/ab")


@given(st.lists(st.sampled_from(["a", "b", "model", "x y"]), min_size=1, max_size=4), st.integers(0, 3))
def test_normal_form_is_idempotent(parts: list[str], slashes: int) -> None:
    uri = "models:/" + "/".join(parts)
    assert normal(uri + "/" * slashes) == uri == normal(normal(uri))
    assert normal(Path("/", *parts).as_uri()) == str(Path("/", *parts))


def test_likewise_error_is_found_in_the_exception_chain() -> None:
    error = ReferenceMissing("x", remedy="y")
    with pytest.raises(KeyError) as raised:
        _wrap(error)
    assert likewise_cause(raised.value) is error
    assert likewise_cause(ValueError("x")) is None


def _wrap(error: Exception) -> None:
    try:
        raise error
    except LikewiseError:
        raise KeyError("wrapped") from None


def test_bytecode_is_disabled_until_the_last_thread_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    with no_bytecode:
        no_bytecode.__enter__()  # another thread enters before this one leaves
    assert sys.dont_write_bytecode
    no_bytecode.__exit__(None, None, None)
    assert not sys.dont_write_bytecode
