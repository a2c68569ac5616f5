"""The parts of the target `local` that need no running service: options, files, bundles, control socket, names."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from likewise.bundles.format import EngineEntry, Manifest
from likewise.bundles.open import open_bundle, write_manifest
from likewise.core.errors import BundleTampered, ModelNotFound, NotDeployed, WrongUsage
from likewise.core.option_fields import as_json, coerce, described
from likewise.core.spec import ModelSpec
from likewise.server import ServerOptions
from likewise.targets.base import Live, Receipt, Target
from likewise.targets.local.control import SupervisorUnavailable, open_control, send
from likewise.targets.local.deployment_folder import Deployment, DeploymentFolder, ServiceSpec
from likewise.targets.local.installation import install, keep_only
from likewise.targets.local.local_options import LocalOptions
from likewise.targets.local.log_lines import log_lines
from likewise.targets.local.supervisor import trim
from likewise.targets.local.target import LocalTarget

SPEC = ServiceSpec(ModelSpec("sha256:ab", trust=True), as_json(LocalOptions()))


def bundle(folder: Path, mark: str = "x", *, engine: str = "pyfunc") -> str:
    """Write a bundle that no engine can load; returns its digest."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text(f"flavors: {{}}  # {mark}\n")
    entry = EngineEntry(engine, "native")
    return write_manifest(folder, Manifest({}, engines=(entry,))).digest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeploymentFolder:
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    return DeploymentFolder(tmp_path / "data" / "local" / "one")


def test_options_include_those_of_the_server_and_survive_a_json_round_trip() -> None:
    names = {name for name, _, _ in described(LocalOptions)}
    assert names == {name for name, _, _ in described(ServerOptions)} | {"start_timeout_s"}
    assert all(help_text for _, _, help_text in described(LocalOptions))
    options = LocalOptions(token_file=Path("/t"), workers=2)
    assert coerce(LocalOptions, as_json(options)) == options
    with pytest.raises(WrongUsage, match="worker'") as rejected:
        coerce(LocalOptions, {"worker": "1"})
    assert "'workers'" in rejected.value.remedy


def test_target_implements_the_protocols_and_rejects_other_addresses() -> None:
    target: Target = LocalTarget("local")
    assert isinstance(target, Live)
    with pytest.raises(WrongUsage):
        LocalTarget("local://elsewhere")


def test_deployment_file_survives_a_round_trip_and_is_private(folder: DeploymentFolder) -> None:
    folder.create()
    assert folder.read() is None
    deployment = Deployment(SPEC, "127.0.0.1", 1234, "http://127.0.0.1:1234", "sha256:cd")
    folder.write(deployment)
    assert folder.read() == deployment
    assert deployment.digests == {"sha256:ab", "sha256:cd"}
    assert folder.path.stat().st_mode & 0o077 == 0
    folder.clear()
    assert not folder.path.exists()


def test_deployment_file_of_an_earlier_version_is_read(folder: DeploymentFolder) -> None:
    folder.create()
    spec = {
        "digest": "sha256:ab",
        "engine": None,
        "precision": None,
        "trust": True,
        "options": as_json(LocalOptions()),
    }
    written = {"asked": spec, "host": "127.0.0.1", "port": 1, "url": "http://127.0.0.1:1", "before": None}
    (folder.path / "deployment.json").write_text(json.dumps(written))
    deployment = folder.read()
    earlier = replace(SPEC, model=replace(SPEC.model, allow_versions=True))
    assert deployment == Deployment(earlier, "127.0.0.1", 1, "http://127.0.0.1:1")
    assert deployment.digests == {"sha256:ab"}
    assert deployment.as_dict() == {**written, "asked": {**spec, "build": "", "allow_versions": True, "python": ""}}


def test_claim_waits_for_the_lock(folder: DeploymentFolder) -> None:
    folder.create()
    first = folder.claim(0.0)
    assert first is not None
    assert folder.claim(0.0) is None
    threading.Timer(0.1, os.close, (first,)).start()
    second = folder.claim(60.0)
    assert second is not None
    os.close(second)


def test_tail_has_only_the_last_lines_since_the_offset(folder: DeploymentFolder) -> None:
    folder.create()
    assert folder.tail(0) == ""
    folder.log.write_text("before\n")
    offset = folder.log_size()
    with folder.log.open("a") as log:
        log.write("\n".join(f"line {i}" for i in range(100_000)) + "\n\n")
    lines = folder.tail(offset).split("\n")
    assert (lines[-1], len(lines)) == ("line 99999", 8)
    folder.log.write_text("before\nafter\n")
    assert folder.tail(offset) == "after"


def test_trimmed_log_can_still_be_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        trim(log, 100)
        assert log.stat().st_size == 100
        writer.write(b"y")
        trim(log, 100)
        writer.write(b"z")
    assert log.read_bytes() == b"z"
    assert log.with_name("log.1").read_bytes() == b"x" * 100 + b"y"


@pytest.mark.parametrize("cached", [True, False])
def test_bundle_is_linked_from_the_cache_and_copied_from_elsewhere(
    folder: DeploymentFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / ("cache" if cached else "elsewhere") / "bundle"
    digest = bundle(source)
    path = install(folder, digest, source)
    assert open_bundle(path).digest == digest
    assert (path / "model" / "MLmodel").samefile(source / "model" / "MLmodel") is cached
    shutil.rmtree(source)
    assert install(folder, digest, source) == path
    with pytest.raises(ModelNotFound):
        install(folder, "sha256:other", source)


def test_modified_installation_is_replaced_and_modified_source_is_rejected(
    folder: DeploymentFolder, tmp_path: Path
) -> None:
    digest = bundle(tmp_path / "source")
    path = install(folder, digest, tmp_path / "source")
    (path / "model" / "MLmodel").write_text("changed")
    assert open_bundle(install(folder, digest, tmp_path / "source")).digest == digest
    keep_only(folder, set())
    with pytest.raises(BundleTampered, match=r"is sha256:.*, expected sha256:other"):
        install(folder, "sha256:other", tmp_path / "source")
    (tmp_path / "source" / "model" / "MLmodel").write_text("changed")
    with pytest.raises(BundleTampered):
        install(folder, digest, tmp_path / "source")
    assert list(folder.bundles.iterdir()) == []


def test_keep_only_removes_all_other_bundles(folder: DeploymentFolder, tmp_path: Path) -> None:
    digests = [bundle(tmp_path / mark, mark) for mark in "abc"]
    for mark, digest in zip("abc", digests, strict=True):
        install(folder, digest, tmp_path / mark)
    removed = keep_only(folder, set(digests[:2]))
    assert removed == [digests[2].replace(":", "-")]
    assert {path.name for path in folder.bundles.iterdir()} == {each.replace(":", "-") for each in digests[:2]}


def test_unresponsive_or_missing_supervisor_is_reported(folder: DeploymentFolder) -> None:
    with pytest.raises(SupervisorUnavailable):
        send(folder.control, 1.0, "status")
    folder.create()
    with open_control(folder.control) as control:
        assert folder.control.stat().st_mode & 0o077 == 0
        with pytest.raises(SupervisorUnavailable, match="Timeout"):
            send(folder.control, 0.05, "status")

        def disconnect() -> None:
            for _ in range(2):  # the first connection is the one that has timed out
                control.accept()[0].close()

        threading.Thread(target=disconnect).start()
        with pytest.raises(SupervisorUnavailable):
            send(folder.control, 60.0, "status")
    with pytest.raises(SupervisorUnavailable, match="Refused"):
        send(folder.control, 1.0, "status")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-a", "a b", "x" * 64, "ü", "a\n"])
def test_invalid_names_are_rejected(folder: DeploymentFolder, name: str) -> None:
    with pytest.raises(WrongUsage, match="name"):
        LocalTarget("local").plan("create", name, ModelSpec("sha256:ab", folder.path, "x"), LocalOptions(), None)


def test_undo_of_steps_that_never_ran_does_nothing(folder: DeploymentFolder, tmp_path: Path) -> None:
    target = LocalTarget("local")
    params = {"name": "one", "asked": SPEC.as_dict(), "before": SPEC.as_dict(), "digest": "sha256:ab"}
    for action in ("place", "start", "switch", "tidy", "stop", "remove"):
        target.undo(action, params)
    assert not folder.path.exists()
    assert target.found() == []


def test_undo_leaves_the_deployment_of_another_plan_unchanged(folder: DeploymentFolder) -> None:
    folder.create()
    deployment = Deployment(SPEC, "127.0.0.1", 1, "http://127.0.0.1:1")
    folder.write(deployment)
    folder.bundle(SPEC.model.digest).mkdir(parents=True)
    other = {**SPEC.as_dict(), "digest": "sha256:cd"}
    target = LocalTarget("local")
    target.undo("start", {"name": "one", "asked": other})
    target.undo("switch", {"name": "one", "asked": other, "before": SPEC.as_dict()})
    target.undo("place", {"name": "one", "digest": "sha256:cd"})
    assert folder.read() == deployment
    assert folder.bundle(SPEC.model.digest).is_dir()
    assert [(each.name, each.model.digest) for each in target.found()] == [("one", SPEC.model.digest)]


def test_missing_deployment_is_reported(folder: DeploymentFolder) -> None:
    model = ModelSpec("sha256:ab", folder.path, "x")
    receipt = Receipt("local", "one", model, {}, {}, "", "")
    target = LocalTarget("local")
    assert target.status(receipt).state == "gone"
    with pytest.raises(NotDeployed, match="one"):
        target.predict(receipt, b"{}", "application/json")
    for verb in ("update", "delete"):
        with pytest.raises(NotDeployed, match="one"):
            target.plan(verb, "one", model, LocalOptions(), None)
    assert not folder.path.exists()


def test_deployment_without_processes_is_failing_with_a_remedy(folder: DeploymentFolder) -> None:
    folder.create()
    folder.write(Deployment(SPEC, "127.0.0.1", 1, "http://127.0.0.1:1"))
    receipt = Receipt("local", "one", ModelSpec("sha256:ab", folder.path, "x"), {}, {}, "", "")
    status = LocalTarget("local").status(receipt)
    assert (status.state, status.url) == ("failing", "http://127.0.0.1:1")
    assert "likewise update one" in status.about
    with pytest.raises(NotDeployed):
        LocalTarget("local").predict(receipt, b"{}", "application/json")


def test_log_is_followed_when_the_supervisor_moves_it_to_another_file(folder: DeploymentFolder) -> None:
    folder.create()
    folder.log.write_text("1\n2\n3\nincomplete")
    assert list(log_lines(folder.log, 2, follow=False)) == ["2", "3"]
    assert list(log_lines(folder.log, 0, follow=False)) == []
    log = log_lines(folder.log, 1, follow=True)
    assert next(log) == "3"
    with folder.log.open("a") as file:
        file.write(", now complete\nlast\n")
    trim(folder.log, 0)
    with folder.log.open("a") as file:
        file.write("new\n")
    assert [next(log) for _ in range(3)] == ["incomplete, now complete", "last", "new"]
    assert list(log_lines(folder.log, 3, follow=False)) == ["incomplete, now complete", "last", "new"]
