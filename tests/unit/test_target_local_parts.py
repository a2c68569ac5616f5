"""The parts of the target `local` that need no service: pauses, options, files, bundles, the control socket, names."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from likewise.bundles.format import EngineEntry, Manifest
from likewise.bundles.open import open_bundle, write_manifest
from likewise.core.errors import BundleTampered, ModelNotFound, NotDeployed, WrongUsage
from likewise.core.option_fields import as_json, coerce, described
from likewise.core.spec import ModelSpec
from likewise.server import ServerOptions
from likewise.targets.base import Live, Receipt, Target
from likewise.targets.local.control import Gone, ask, open_control
from likewise.targets.local.deployment_folder import Deployment, Home, ServiceSpec
from likewise.targets.local.installation import keep_only, place
from likewise.targets.local.local_options import LocalOptions
from likewise.targets.local.supervisor import trim
from likewise.targets.local.target import LocalTarget

ASKED = ServiceSpec(ModelSpec("sha256:ab", trust=True), as_json(LocalOptions()))


def bundle(folder: Path, mark: str = "x", *, engine: str = "pyfunc") -> str:
    """A bundle that no engine could load; its digest."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text(f"flavors: {{}}  # {mark}\n")
    entry = EngineEntry(engine, "native", engine == "pyfunc", "sha256:" + "0" * 64)
    return write_manifest(folder, Manifest({}, engines=(entry,))).digest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    return Home(tmp_path / "data" / "local" / "one")


def test_the_options_are_the_servers_and_come_back_from_json() -> None:
    mine = {name for name, _, _ in described(LocalOptions)}
    assert mine == {name for name, _, _ in described(ServerOptions)} | {"start_timeout_s"}
    assert all(help_text for _, _, help_text in described(LocalOptions))
    options = LocalOptions(token_file=Path("/t"), workers=2)
    assert coerce(LocalOptions, as_json(options)) == options
    with pytest.raises(WrongUsage, match="worker'") as refused:
        coerce(LocalOptions, {"worker": "1"})
    assert "'workers'" in refused.value.remedy


def test_the_target_is_what_a_target_is() -> None:
    target: Target = LocalTarget("local")
    assert isinstance(target, Live)
    with pytest.raises(WrongUsage):
        LocalTarget("local://elsewhere")


def test_the_deployments_file_is_written_whole_and_read_back(home: Home) -> None:
    home.make()
    assert home.read() is None
    deployment = Deployment(ASKED, "127.0.0.1", 1234, "http://127.0.0.1:1234", "sha256:cd")
    home.write(deployment)
    assert home.read() == deployment
    assert deployment.digests == {"sha256:ab", "sha256:cd"}
    assert home.folder.stat().st_mode & 0o077 == 0
    home.clear()
    assert not home.folder.exists()


def test_a_deployment_of_an_earlier_version_is_read(home: Home) -> None:
    home.make()
    asked = {
        "digest": "sha256:ab",
        "engine": None,
        "precision": None,
        "trust": True,
        "options": as_json(LocalOptions()),
    }
    written = {"asked": asked, "host": "127.0.0.1", "port": 1, "url": "http://127.0.0.1:1", "before": None}
    (home.folder / "deployment.json").write_text(json.dumps(written))
    deployment = home.read()
    assert deployment == Deployment(ASKED, "127.0.0.1", 1, "http://127.0.0.1:1")
    assert deployment.as_dict() == written


def test_the_lock_is_waited_for(home: Home) -> None:
    home.make()
    held = home.claim(0.0)
    assert held is not None
    assert home.claim(0.0) is None
    threading.Timer(0.1, os.close, (held,)).start()
    again = home.claim(60.0)
    assert again is not None
    os.close(again)


def test_the_tail_is_of_this_start_and_short(home: Home) -> None:
    home.make()
    assert home.tail(0) == ""
    home.log.write_text("before\n")
    begin = home.log_size()
    with home.log.open("a") as log:
        log.write("\n".join(f"line {i}" for i in range(100_000)) + "\n\n")
    lines = home.tail(begin).split("\n")
    assert (lines[-1], len(lines)) == ("line 99999", 8)
    home.log.write_text("before\nafter\n")
    assert home.tail(begin) == "after"


def test_a_log_that_is_appended_to_goes_on_when_it_is_trimmed(tmp_path: Path) -> None:
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
def test_a_bundle_is_linked_from_the_cache_and_copied_from_elsewhere(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / ("cache" if cached else "elsewhere") / "bundle"
    digest = bundle(source)
    path = place(home, digest, source)
    assert open_bundle(path).digest == digest
    assert (path / "model" / "MLmodel").samefile(source / "model" / "MLmodel") is cached
    shutil.rmtree(source)
    assert place(home, digest, source) == path
    with pytest.raises(ModelNotFound):
        place(home, "sha256:other", source)


def test_a_placed_bundle_that_was_changed_is_placed_anew_and_a_changed_source_refused(
    home: Home, tmp_path: Path
) -> None:
    digest = bundle(tmp_path / "source")
    path = place(home, digest, tmp_path / "source")
    (path / "model" / "MLmodel").write_text("changed")
    assert open_bundle(place(home, digest, tmp_path / "source")).digest == digest
    keep_only(home, set())
    with pytest.raises(BundleTampered, match="holds sha256:"):
        place(home, "sha256:other", tmp_path / "source")
    (tmp_path / "source" / "model" / "MLmodel").write_text("changed")
    with pytest.raises(BundleTampered):
        place(home, digest, tmp_path / "source")
    assert list(home.bundles.iterdir()) == []


def test_only_the_bundles_that_are_named_stay(home: Home, tmp_path: Path) -> None:
    digests = [bundle(tmp_path / mark, mark) for mark in "abc"]
    for mark, digest in zip("abc", digests, strict=True):
        place(home, digest, tmp_path / mark)
    removed = keep_only(home, set(digests[:2]))
    assert removed == [digests[2].replace(":", "-")]
    assert {path.name for path in home.bundles.iterdir()} == {each.replace(":", "-") for each in digests[:2]}


def test_nobody_at_the_control_socket_is_told_as_gone(home: Home) -> None:
    with pytest.raises(Gone):
        ask(home.control, 1.0, "status")
    home.make()
    with open_control(home.control) as control:
        assert home.control.stat().st_mode & 0o077 == 0
        with pytest.raises(Gone, match="Timeout"):
            ask(home.control, 0.05, "status")

        def hang_up() -> None:
            for _ in range(2):  # the first has hung up itself
                control.accept()[0].close()

        threading.Thread(target=hang_up).start()
        with pytest.raises(Gone):
            ask(home.control, 60.0, "status")
    with pytest.raises(Gone, match="Refused"):
        ask(home.control, 1.0, "status")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-a", "a b", "x" * 64, "ü", "a\n"])
def test_names_that_are_no_folder_of_ours_are_refused(home: Home, name: str) -> None:
    with pytest.raises(WrongUsage, match="name"):
        LocalTarget("local").plan("create", name, ModelSpec("sha256:ab", home.folder, "x"), LocalOptions(), None)


def test_a_model_that_needs_trust_is_found_before_anything_is_done(home: Home, tmp_path: Path) -> None:
    digest, safe = bundle(tmp_path / "code"), bundle(tmp_path / "safe", engine="torch")
    target, options = LocalTarget("local"), LocalOptions()
    (finding,) = target.check(ModelSpec(digest, tmp_path / "code", "x"), options)
    assert finding.fatal
    assert "--trust" in finding.remedy
    assert target.check(ModelSpec(digest, tmp_path / "code", "x", trust=True), options) == []
    assert target.check(ModelSpec(safe, tmp_path / "safe", "x"), options) == []
    assert target.check(ModelSpec(digest, tmp_path / "gone", "x"), options) == []


def test_undoing_what_was_never_done_does_nothing(home: Home, tmp_path: Path) -> None:
    target = LocalTarget("local")
    params = {"name": "one", "asked": ASKED.as_dict(), "before": ASKED.as_dict(), "digest": "sha256:ab"}
    for action in ("place", "start", "switch", "tidy", "stop", "remove"):
        target.undo(action, params)
    assert not home.folder.exists()
    assert target.found() == []


def test_undoing_leaves_alone_what_another_plan_has_made(home: Home) -> None:
    home.make()
    deployment = Deployment(ASKED, "127.0.0.1", 1, "http://127.0.0.1:1")
    home.write(deployment)
    home.bundle(ASKED.model.digest).mkdir(parents=True)
    other = {**ASKED.as_dict(), "digest": "sha256:cd"}
    target = LocalTarget("local")
    target.undo("start", {"name": "one", "asked": other})
    target.undo("switch", {"name": "one", "asked": other, "before": ASKED.as_dict()})
    target.undo("place", {"name": "one", "digest": "sha256:cd"})
    assert home.read() == deployment
    assert home.bundle(ASKED.model.digest).is_dir()
    assert [(each.name, each.model.digest) for each in target.found()] == [("one", ASKED.model.digest)]


def test_what_is_not_there_is_told(home: Home) -> None:
    model = ModelSpec("sha256:ab", home.folder, "x")
    receipt = Receipt("local", "one", model, {}, {}, "", "")
    target = LocalTarget("local")
    assert target.status(receipt).state == "gone"
    with pytest.raises(NotDeployed, match="one"):
        target.predict(receipt, b"{}", "application/json")
    for verb in ("update", "delete"):
        with pytest.raises(NotDeployed, match="one"):
            target.plan(verb, "one", model, LocalOptions(), None)
    assert not home.folder.exists()


def test_a_deployment_without_processes_is_failing_with_a_remedy(home: Home) -> None:
    home.make()
    home.write(Deployment(ASKED, "127.0.0.1", 1, "http://127.0.0.1:1"))
    receipt = Receipt("local", "one", ModelSpec("sha256:ab", home.folder, "x"), {}, {}, "", "")
    status = LocalTarget("local").status(receipt)
    assert (status.state, status.url) == ("failing", "http://127.0.0.1:1")
    assert "likewise update one" in status.about
    with pytest.raises(NotDeployed):
        LocalTarget("local").predict(receipt, b"{}", "application/json")
