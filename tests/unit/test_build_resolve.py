"""Resolving model URIs: each gives a clean copy, or a clear error within seconds."""

from __future__ import annotations

import datetime
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import yaml
from mlflow import MlflowClient

from likewise.builder.resolve import MLFLOW_SETTINGS, _resolved, limited_retries, plain_name, resolve
from likewise.core.errors import (
    LikewiseError,
    MissingExtra,
    ModelInvalid,
    ModelNotFound,
    StoreUnreachable,
    UnsafeArchive,
    WrongUsage,
)
from likewise.engine.kinds import runs_code
from likewise.pipeline.mlmodel import read_model


def make_model(folder: Path, **metadata: object) -> Path:
    """A folder that looks like an MLflow model, including files that a bundle must not contain."""
    folder.mkdir(parents=True)
    meta = {"flavors": {"python_function": {"loader_module": "no.such", "python_version": "3.11.7"}}, **metadata}
    (folder / "MLmodel").write_text(yaml.safe_dump(meta))
    (folder / "requirements.txt").write_text("# made by hand\nmlflow==3.17.2\n\n  numpy \n")
    (folder / "registered_model_meta").write_text("x")
    (folder / "code" / "__pycache__").mkdir(parents=True)
    (folder / "code" / "a.py").write_text("a = 1\n")
    (folder / "code" / "__pycache__" / "a.pyc").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A run with a model in the old layout (run artifacts) and a registered version with an alias."""
    folder = tmp_path_factory.mktemp("store")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    client = MlflowClient()
    experiment = client.create_experiment("e", artifact_location=(folder / "mlartifacts").as_uri())
    run = client.create_run(experiment).info
    client.log_artifacts(run.run_id, str(make_model(folder / "made")), "model")
    client.log_text(run.run_id, "hello", "notes.txt")
    client.create_registered_model("name")
    client.create_model_version("name", f"{run.artifact_uri}/model", run.run_id)
    client.set_registered_model_alias("name", "champion", "1")
    yield run.run_id
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        ("runs:/{run}/model", "runs:/{run}/model"),
        ("models:/name/1", "models:/name/1"),
        ("models:/name@champion", "models:/name/1"),
        ("models:/name/latest", "models:/name/1"),
    ],
)
def test_every_kind_of_store_uri_gives_the_same_clean_copy(
    run_id: str, tmp_path: Path, uri: str, resolved: str
) -> None:
    copy = tmp_path / "copy"
    result = resolve(uri.format(run=run_id), copy)
    assert result.resolved == resolved.format(run=run_id)
    names = {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()}
    assert names == {"MLmodel", "requirements.txt", "code/a.py"}
    assert [origin.name for origin in result.origins] == ["model"]
    assert list(tmp_path.iterdir()) == [copy]


def test_paths_file_uris_and_whole_runs(run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "with space" / "model")
    by_path = resolve(str(model), tmp_path / "1")
    by_file = resolve(model.as_uri(), tmp_path / "2")
    monkeypatch.chdir(model.parent)
    relative = resolve("model", tmp_path / "3")
    assert by_path.resolved == by_file.resolved == relative.resolved == str(model)
    assert (model / "registered_model_meta").exists()  # the original is not touched
    resolve(f"runs:/{run_id}/notes.txt", tmp_path / "4")
    resolve(f"runs:/{run_id}", tmp_path / "5")
    assert (tmp_path / "4").read_text() == (tmp_path / "5" / "notes.txt").read_text() == "hello"


def test_resolved_uri_keeps_the_other_registry() -> None:
    repository = SimpleNamespace(model_name="name", model_version="1")
    assert _resolved("models://other@databricks/name@champion", repository) == "models://other@databricks/name/1"


@pytest.mark.parametrize(
    "uri",
    [
        "runs:/0123456789abcdef0123456789abcdef/model",
        "runs:/{run}/no_such_model",
        "models:/name/7",
        "models:/name@nobody",
        "models:/no_such_name/1",
        "models:/m-0123456789abcdef0123456789abcdef",
        "/no/such/folder",
        "file:///no/such/folder",
    ],
)
def test_missing_model_is_reported(run_id: str, tmp_path: Path, uri: str) -> None:
    requested = uri.format(run=run_id)
    with pytest.raises(ModelNotFound) as raised:
        resolve(requested, tmp_path / "copy")
    assert requested.removeprefix("file://") in raised.value.cause
    assert raised.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["foo://bar/model", "models:/", "models:/a/b/c/d@e"])
def test_invalid_model_uri_is_rejected(run_id: str, tmp_path: Path, uri: str) -> None:
    with pytest.raises((WrongUsage, ModelNotFound)):
        resolve(uri, tmp_path / "copy")


def _link_file(model: Path) -> str:
    (model / "weights.bin").symlink_to("/etc/hostname")
    return "weights.bin"


def _link_folder(model: Path) -> str:
    (model / "data").symlink_to("/etc")
    return "data"


def _pipe(model: Path) -> str:
    os.mkfifo(model / "pipe")
    return "pipe"


@pytest.mark.parametrize("spoil", [_link_file, _link_folder, _pipe])
def test_links_and_special_files_are_rejected_by_name(run_id: str, tmp_path: Path, spoil: object) -> None:
    model = make_model(tmp_path / "model")
    assert callable(spoil)
    name = spoil(model)
    with pytest.raises(UnsafeArchive, match=name):
        resolve(str(model), tmp_path / "copy")
    stored = Path(MlflowClient().get_run(run_id).info.artifact_uri.removeprefix("file://"))
    spoiled = make_model(stored / f"spoiled_{name}")
    spoil(spoiled)
    with pytest.raises(UnsafeArchive, match=name):
        resolve(f"runs:/{run_id}/spoiled_{name}", tmp_path / "copy")


def _set_tracking_uri(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", uri)


def test_unreachable_server_is_reported_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so connections are refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        _set_tracking_uri(address, monkeypatch)
        started = time.monotonic()
        with pytest.raises(StoreUnreachable, match=address):
            resolve("models:/name/1", tmp_path / "copy")
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_server_that_closes_connections_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        _set_tracking_uri(f"http://127.0.0.1:{server.getsockname()[1]}", monkeypatch)
        started = time.monotonic()
        with pytest.raises(StoreUnreachable, match="does not respond"):
            resolve("models:/name/1", tmp_path / "copy")
        assert time.monotonic() - started < 30
        server.shutdown(socket.SHUT_RDWR)


def test_missing_database_is_not_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _set_tracking_uri(f"sqlite:///{tmp_path / 'no.db'}", monkeypatch)
    with pytest.raises(StoreUnreachable, match=r"no\.db"):
        resolve("runs:/0123/model", tmp_path / "copy")
    assert not (tmp_path / "no.db").exists()


def test_library_that_does_not_import_is_not_reported_as_an_unreachable_store(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> None:
        raise ImportError("cannot import name 'x' from 'library'")

    monkeypatch.setattr("mlflow.store.artifact.artifact_repository_registry.get_artifact_repository", broken)
    with pytest.raises(LikewiseError, match="cannot be imported: cannot import name 'x'") as raised:
        resolve(f"runs:/{run_id}/model", tmp_path / "copy")
    assert "virtual environment" in raised.value.remedy


def test_missing_s3_credentials_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # an earlier test's would keep its credentials
    with pytest.raises((StoreUnreachable, MissingExtra)) as refused:
        resolve("s3://no-such-bucket-of-ours/model", tmp_path / "copy")
    assert ("boto3" if isinstance(refused.value, MissingExtra) else "credentials") in refused.value.cause


def test_user_settings_are_not_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with limited_retries():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == MLFLOW_SETTINGS["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_model_metadata_is_read_without_running_its_code(tmp_path: Path) -> None:
    declared = {
        "row_wise": True,
        "references": ["runs:/a/model", "models:/b@c"],
        "pipeline": {"format": 1, "steps": [{"step": "classify", "model": "runs:/a/model"}, {"step": "respond"}]},
    }
    facts = read_model(make_model(tmp_path / "m", metadata={"likewise": declared}, signature=SIGNED))
    assert (facts.row_wise, facts.references) == (True, ("runs:/a/model", "models:/b@c"))
    assert facts.environment.requirements == ("mlflow==3.17.2", "numpy")
    assert [(e.name, runs_code(e)) for e in facts.engines()] == [("torch", False), ("pyfunc", True)]
    bare = read_model(make_model(tmp_path / "bare"))
    assert (bare.row_wise, bare.references, [e.name for e in bare.engines()]) == (None, (), ["pyfunc"])


SIGNED = {"inputs": '[{"type": "string", "name": "text"}]'}
CLASSIFY = {"step": "classify", "model": "runs:/a/model"}


def _declaring(folder: Path, steps: object, uri: object = "", signature: object = None) -> Path:
    declared = {"pipeline": {"format": 1, "uri": uri, "steps": steps}}
    return make_model(folder / "m", metadata={"likewise": declared}, signature=signature)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (["cache"], "a pipeline's step must be a mapping, got 'cache'"),
        ([], "at least one step"),
        ([{"size": 3}], "under 'step', got None"),
        ([{"step": "polish"}], "unknown step 'polish'"),
        ([{"step": "mine:Own"}], "the model's own code"),
        ([CLASSIFY, {"step": "cache"}], "must be the first step"),
        ([{"step": "cache", "size": "x"}], "'cache': size must be a whole number from 0 .*, got 'x'"),
        ([{"step": "cache", "size": True}], "size must be"),
        ([{"step": "detect_language", "least": 2}], "least must be a number from 0 to 1, got 2"),
        ([{"step": "detect_language", "default": None}], "default must be a non-empty string"),
        ([{"step": "classify", "model": 1}], "model must be a non-empty string, got 1"),
        ([{"step": "classify"}], "model"),
        ([CLASSIFY | {"colour": 1}], "colour"),
        *(([CLASSIFY | {"max_length": n}], f"max_length must be a whole .*, got {n!r}") for n in ("x", 2.5, -1, 0, 1)),
        ([CLASSIFY | {"max_length": 1_000_001}], "max_length"),
        ([CLASSIFY | {"max_length": datetime.date(2024, 1, 1)}], "got a date"),
    ],
)
def test_malformed_declaration_is_reported_when_the_model_is_read(tmp_path: Path, steps: object, problem: str) -> None:
    with pytest.raises(ModelInvalid, match=problem):
        read_model(_declaring(tmp_path, steps))


def test_non_json_values_and_invalid_signatures_are_reported_when_the_model_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="'uri' is 2024-01-01 instead of a string"):
        read_model(_declaring(tmp_path / "1", [CLASSIFY], uri=datetime.date(2024, 1, 1)))
    for folder, inputs in enumerate(["nonsense", "{}", '[{"name": "x", "type": "strange"}]', 5]):
        with pytest.raises(ModelInvalid, match="'signature'"):
            read_model(_declaring(tmp_path / f"s{folder}", [CLASSIFY], signature={"inputs": inputs}))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "no MLmodel"),
        ("flavors: {spark: {}}", "no python_function"),
        ("[1, 2]", "a list"),
        ("a: [", "cannot be read"),
        ("flavors: {python_function: {a: 1}}\nmetadata: {likewise: {row_wise: perhaps}}", "'row_wise'"),
        ("flavors: {python_function: {a: 1}}\nmetadata: {likewise: {references: [1]}}", "must be a URI"),
        ("flavors: {python_function: {a: 1}}\nmetadata: {likewise: {pipeline: [1]}}", "steps"),
        ("flavors: [1]", "'flavors' is not a mapping"),
    ],
)
def test_invalid_model_folder_is_reported(tmp_path: Path, text: str | None, problem: str) -> None:
    if text is not None:
        (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ModelInvalid, match=problem):
        read_model(tmp_path)


def test_names_of_copies_have_only_plain_characters() -> None:
    assert plain_name("runs:/a/notes.txt") == "notes.txt"
    assert plain_name("models:/name@alias") == "name-alias"
    assert plain_name("s3://b/../..") == "root"
    assert len(plain_name("runs:/a/" + "x" * 300)) == 80
