"""`--env`: a command runs in an environment with the versions that its model was logged with."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.cli import call
from tests.support.models import seal
from tests.support.own_index import make_links, save_versioned, settings
from tests.support.processes import LIKEWISE, likewise, running
from tests.support.ray.cluster import RayCluster
from tests.support.wheels import PRIVATE

import likewise as api
from likewise.bundles.format import EngineEntry, LoggedEnvironment, Manifest
from likewise.bundles.open import write_manifest
from likewise.core.errors import CodeNotTrusted, EnvironmentFailed, MissingExtra, OutputRefused, WrongUsage
from likewise.pipeline.mlmodel import read_model
from likewise.shipping.logged_environment import environment_python, find_uv, packages_of, run_installer, wanted

pytest_plugins = ("tests.support.ray.fixtures",)
REQUIREMENTS = ["mlflow", f"{PRIVATE}==1.0"]


def quiet(text: str) -> None:
    """Report nothing."""


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_links(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that needs version 1.0 of a package that is not installed here."""
    folder = tmp_path_factory.mktemp("versioned") / "model"
    return save_versioned(folder, REQUIREMENTS)


def sealed(folder: Path, model: Path, wheels: Path | None = None) -> Path:
    shutil.copytree(model, folder / "model")
    if wheels is not None:
        shutil.copytree(wheels, folder / "wheels")
        (folder / "wheels" / f"{PRIVATE.replace('-', '_')}-2.0-py3-none-any.whl").unlink()
    return seal(folder).path


@pytest.fixture(scope="module")
def user(links: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of the commands, which share a cache."""
    return settings(tmp_path_factory.mktemp("cache"), links)


@pytest.fixture(scope="module")
def bundle(model: Path, user: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with `--env`: without it, the model does not load."""
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    words = ("bundle", str(model), "-o", str(folder), "--trust")
    refused = likewise(*words, env=user, code=1)
    assert "MODEL_INVALID" in refused.stderr
    assert "--env" in refused.stderr
    done = likewise(*words, "--env", env=user)
    assert done.stderr.count("creating an environment") == 1
    assert "logged with other versions" not in done.stderr
    return folder


def test_every_command_runs_in_the_same_environment(bundle: Path, user: dict[str, str], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n{"text": "b"}\n')
    words = (bundle, rows, "-o", tmp_path / "out.jsonl", "--trust")
    done = likewise("score", *words, "--env", env=user)
    assert "creating" not in done.stderr
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["predictions"] for line in lines] == ["a of version 1.0", "b of version 1.0"]
    shown = json.loads(likewise("inspect", bundle, "--trust", "--env", "--json", env=user).stdout)
    assert shown["versions"] == {"differ": []}
    differ = json.loads(call("inspect", bundle, "--json", env=user).stdout)["versions"]["differ"]
    assert [each["name"] for each in differ] == [PRIVATE]
    sizes = json.loads(call("doctor", "--json", env=user).stdout)["findings"]
    assert any("environments" in each["found"] for each in sizes if each["name"] == "Cache")


def test_a_server_answers_and_passes_on_signals_and_its_exit_code(
    bundle: Path, user: dict[str, str], tmp_path: Path
) -> None:
    words = [*LIKEWISE, "serve", str(bundle), "-p", "0", "--trust", "--env", "--json"]
    with running(words, tmp_path / "log", env=user) as server:
        url = server.document()["url"]
        answer = httpx.post(f"{url}/invocations", json={"dataframe_records": [{"text": "a"}]}).json()
        assert answer == {"predictions": ["a of version 1.0"]}
        assert server.stop(signal.SIGTERM) == 0


def test_the_python_of_the_environment_is_available_from_python(
    bundle: Path, user: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", user["LIKEWISE_CACHE_HOME"])
    python = api.environment(bundle, trust=True)
    assert python is not None
    code = "import likewise, pandas, sys\n"
    code += "print(*likewise.find(sys.argv[1], trust=True).predict(pandas.DataFrame({'text': ['a']})))"
    printed = subprocess.run([python, "-c", code, str(bundle)], capture_output=True, text=True, check=True)
    assert printed.stdout == "a of version 1.0\n"
    with pytest.raises(CodeNotTrusted):
        api.environment(bundle)


@pytest.mark.long
def test_spark_runs_in_the_environment(model: Path, links: Path, tmp_path: Path) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"text": "a"}\n{"text": "b"}\n')
    words = ("--runner", "spark", "--master", "local[1]", "--trust", "--env")
    likewise("score", sealed(tmp_path / "bundle", model), rows, "-o", output, *words, env=settings(tmp_path, links))
    lines = output.read_text().splitlines()
    assert [json.loads(line)["predictions"] for line in lines] == ["a of version 1.0", "b of version 1.0"]


@pytest.mark.long
@pytest.mark.xdist_group("ray")
def test_ray_runs_in_the_environment(model: Path, links: Path, shared_ray_cluster: RayCluster, tmp_path: Path) -> None:
    homes = {"LIKEWISE_CACHE_HOME": str(tmp_path), "LIKEWISE_DATA_HOME": str(tmp_path / "data")}
    own = settings(tmp_path, links) | shared_ray_cluster.caller_env | homes
    words = ("--to", "ray-serve", "--name", "versioned", "--trust", "--env")
    likewise("deploy", sealed(tmp_path / "bundle", model), *words, env=own)
    try:
        rows = json.dumps({"dataframe_records": [{"text": "a"}]})
        answer = json.loads(likewise("predict", "versioned", rows, env=own).stdout)
    finally:
        likewise("delete", "versioned", env=own)
    assert answer == {"predictions": ["a of version 1.0"]}


@pytest.mark.long
def test_each_version_of_a_deployment_has_its_own_environment(
    model: Path, links: Path, user: dict[str, str], tmp_path: Path
) -> None:
    own = user | {"LIKEWISE_DATA_HOME": str(tmp_path / "data")}
    other = save_versioned(tmp_path / "other", ["mlflow", f"{PRIVATE}==2.0"])
    old, new = sealed(tmp_path / "old", model), sealed(tmp_path / "new", other)

    def answer(*words: str | Path) -> str:
        likewise(*words, env=own)
        rows = json.dumps({"dataframe_records": [{"text": "a"}]})
        return str(json.loads(likewise("predict", "versioned", rows, env=own).stdout)["predictions"][0])

    try:
        deploy = ("deploy", old, "--to", "local", "--name", "versioned", "--trust", "--env")
        assert answer(*deploy) == "a of version 1.0"
        assert answer("update", "versioned", new, "--trust", "--env") == "a of version 2.0"
        assert answer("update", "versioned", "-C", "queue_tokens=1000") == "a of version 2.0"
        assert answer("update", "versioned", "--to-previous") == "a of version 2.0"
        assert answer("update", "versioned", old, "--trust", "--env") == "a of version 1.0"
    finally:
        likewise("delete", "versioned", env=own)


@pytest.mark.long
def test_two_commands_at_once_create_one(bundle: Path, links: Path, tmp_path: Path) -> None:
    user = settings(tmp_path / "cache", links)
    command = [*LIKEWISE, "inspect", str(bundle), "--trust", "--env", "--json"]
    both = [subprocess.Popen(command, env=user, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    done = [each.communicate(timeout=120) for each in both]
    assert [each.returncode for each in both] == [0, 0], done
    assert sum(err.count("creating an environment") for _, err in done) == 1
    assert len(list((tmp_path / "cache" / "environments").glob("*/bin"))) == 1


@pytest.mark.long
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_an_interrupted_creation_is_cleaned_up(bundle: Path, links: Path, tmp_path: Path, sent: signal.Signals) -> None:
    folder = tmp_path / "cache" / "environments"
    command = [*LIKEWISE, "inspect", str(bundle), "--trust", "--env", "--json"]
    with socket.create_server(("127.0.0.1", 0)) as index:  # which accepts connections, and never answers
        address = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        with running(command, tmp_path / "log", env=settings(tmp_path / "cache", None, address)) as process:
            process.line("creating an environment")
            code = process.stop(sent)
    if sent == signal.SIGTERM:
        assert code == 130
        assert not list(folder.glob("*/*"))
    done = likewise("inspect", bundle, "--trust", "--env", "--json", env=settings(tmp_path / "cache", links))
    assert done.stderr.count("created ") == 1
    assert json.loads(done.stdout)["versions"] == {"differ": []}


def test_the_wheels_of_a_bundle_suffice(model: Path, links: Path, tmp_path: Path) -> None:
    bundle = sealed(tmp_path / "bundle", model, links)
    user = settings(tmp_path / "cache", None)  # its index cannot be reached
    shown = likewise("inspect", bundle, "--trust", "--env", "--json", env=user)
    assert json.loads(shown.stdout)["versions"] == {"differ": []}


def test_pip_creates_it_where_uv_is_not_installed(links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(tmp_path / "cache", links).items():
        monkeypatch.setenv(name, value)
    needed = wanted(LoggedEnvironment(None, tuple(REQUIREMENTS)), trusted=True, report=quiet)
    python = environment_python(needed, quiet, uv=None)
    assert (packages_of(python) / "likewise_private_thing.py").read_text() == "x = 'of version 1.0'\n"
    assert (packages_of(python) / "likewise" / "cli" / "__main__.py").is_file()


@pytest.mark.parametrize("uv", ["uv", None], ids=["uv", "pip"])
def test_a_failure_shows_the_reason_and_leaves_nothing(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uv: str | None
) -> None:
    if uv and find_uv() is None:
        pytest.skip("uv is not installed")
    for name, value in settings(tmp_path / "cache", links).items():
        monkeypatch.setenv(name, value)
    needed = wanted(LoggedEnvironment(None, ("mlflow", f"{PRIVATE}==7.7")), trusted=True, report=quiet)
    with pytest.raises(EnvironmentFailed) as failed:
        environment_python(needed, quiet, uv=uv and find_uv())
    assert f"{PRIVATE}==7.7" in failed.value.cause
    assert "PIP_INDEX_URL" in failed.value.remedy
    assert not [path for path in (tmp_path / "cache" / "environments").iterdir() if path.is_dir()]


def test_the_reason_has_no_passwords(tmp_path: Path) -> None:
    text = "WARNING: Retrying https://me:s3cr3t@host.example/simple/a/\nERROR: 403 for https://me:s3cr3t@host.example/a"
    with pytest.raises(EnvironmentFailed, match=r"created: 403 for https://host.example/a") as failed:
        run_installer([sys.executable, "-c", f"print({text!r}); exit(1)"], tmp_path)
    assert "s3cr3t" not in str(failed.value)


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "file" / "cache"))
    needed = wanted(LoggedEnvironment(), trusted=True, report=quiet)
    with pytest.raises(OutputRefused, match="cannot be created"):
        environment_python(needed, quiet)


# --- what it needs ----------------------------------------------------------------------------------------------------


def needs(*lines: str, trusted: bool = True, python: str | None = None, **options: Any) -> tuple[set[str], str]:
    """The requirements, and what is reported."""
    notes: list[str] = []
    found = wanted(LoggedEnvironment(python, lines), trusted=trusted, report=notes.append, **options)
    assert found.builds is trusted
    return set(found.requirements), "\n".join(notes)


@pytest.mark.parametrize(
    ("line", "installed", "note"),
    [
        ("mlflow==3.1.4", "mlflow==3.1.4", ""),
        ("mlflow==2.9.2", "mlflow==2.9.2", ""),
        ("mlflow==1.30.0", "mlflow==2.9.2", "logged with MLflow 1.30.0; its environment has 2.9.2"),
        ("mlflow<3", "mlflow<3,>=2.9.2", ""),
        ("mlflow", "mlflow>=2.9.2", ""),
        ("numpy==1.26.4", "numpy==1.26.4", ""),
        ("numpy==1.26.4; python_version >= '3'", "numpy==1.26.4", ""),
        ("", "mlflow>=2.9.2", ""),
        ("--extra-index-url https://user:pass@host.example/simple", "mlflow>=2.9.2", "PIP_EXTRA_INDEX_URL"),
        ("-f https://host.example/wheels", "mlflow>=2.9.2", "the model's line -f is not used"),
        ("pyarrow==14.0.2  # old", "pyarrow==14.0.2", ""),
    ],
)
def test_what_is_installed_for_a_line(line: str, installed: str, note: str) -> None:
    found, notes = needs(line)
    assert installed in found
    assert note in notes
    assert "pass@" not in notes
    assert sum(each.startswith("numpy") for each in found) == 1  # the logged version wins over Likewise's own bound
    assert {"setuptools<81"} < found


@pytest.mark.parametrize("line", ["thing @ https://host.example/t.whl", "-r more.txt", "-e .", "./thing.whl", "a; b c"])
def test_a_model_does_not_decide_where_packages_come_from(line: str) -> None:
    with pytest.raises(WrongUsage):
        needs(line)


def test_without_trust_only_libraries_of_flavors_are_installed() -> None:
    lines = ("mlflow==3.1.4", "scikit-learn==1.5.2", "numpy==2.1.0", "xgboost-cpu==3.0", "evil-thing==1")
    found, notes = needs(*lines, trusted=False)
    assert {"mlflow==3.1.4", "scikit-learn==1.5.2", "numpy==2.1.0", "xgboost-cpu==3.0"} < found
    assert not any("evil" in each for each in found)
    assert "not installed, because the model is not trusted: evil-thing" in notes


def test_extras_have_the_versions_that_are_installed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"boto3=={__import__('boto3').__version__}" in needs("mlflow", extras=["aws"])[0]
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.endswith("site-packages")])
    with pytest.raises((MissingExtra, ImportError)):
        needs("mlflow", extras=["aws"])


@pytest.mark.parametrize(("python", "why"), [("3.9.18", "Likewise needs Python"), ("3.99.1", "Likewise needs Python")])
def test_a_python_that_likewise_does_not_run_on_is_refused(python: str, why: str) -> None:
    with pytest.raises(EnvironmentFailed, match=why) as refused:
        needs("mlflow", python=python)
    assert "--allow-versions" in refused.value.remedy
    assert f"the model was logged with Python {python}" in needs("mlflow", python=python, other_python=True)[1]


def test_a_python_that_is_not_installed_is_refused_and_one_on_the_path_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(minor for minor in (11, 12, 13) if minor != sys.version_info[1])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    program = tmp_path / f"python3.{other}"
    program.symlink_to(sys.executable)  # another version under its name
    with pytest.raises(EnvironmentFailed, match="no such Python is found here") as refused:
        needs("mlflow", python=f"3.{other}.1")
    assert f"python3.{other} is on the PATH" in refused.value.remedy
    program.unlink()
    program.write_text(f"#!/bin/sh\necho {sys.executable}\n")
    program.chmod(0o755)
    found = wanted(LoggedEnvironment(f"3.{other}.1", ("mlflow",)), trusted=True, report=quiet)
    assert (found.python, found.minor) == (sys.executable, other)


def test_the_name_of_an_environment_covers_all_that_goes_into_it(links: Path) -> None:
    def key(*lines: str, **options: Any) -> str:
        return wanted(LoggedEnvironment(None, lines), report=quiet, **{"trusted": True, **options}).key

    wheels = sorted(links.glob("*.whl"))[:1]
    keys = [key("numpy==2"), key("numpy==3"), key("numpy==2", trusted=False), key("numpy==2", wheels=wheels)]
    assert len(set(keys)) == len(keys)
    assert key("numpy==2", "scipy") == key("scipy", "numpy==2")
    assert key("numpy==2", trusted=False, wheels=wheels) == keys[2]  # whose wheels are not used


def test_an_engine_without_the_libraries_of_the_model_needs_no_environment(model: Path, tmp_path: Path) -> None:
    facts = read_model(model)
    shutil.copytree(model, tmp_path / "model")
    write_manifest(tmp_path, Manifest({}, environment=facts.environment, engines=(EngineEntry("torch", "fp32"),)))
    assert api.environment(tmp_path) is None
    assert "--env has no effect" in call("inspect", tmp_path, "--env", "--json").stderr
