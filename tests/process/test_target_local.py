"""The target `local` under what happens to a service: kills, updates, time-outs, addresses, tokens, a lost source."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.support.local import left_in, processes_in
from tests.support.processes import LIKEWISE, alive, command_of, environment_of, resident_bytes, run, until

from likewise import deployments
from likewise.core.errors import AlreadyDeployed, DeployFailed, NotDeployed, PortTaken, WrongUsage
from likewise.targets.base import Receipt, Status
from likewise.testing.deployer import Deployer
from likewise.testing.models import pyfunc_bundle, upper_bundle
from likewise.testing.targets import Callers

pytestmark = pytest.mark.xdist_group("local")
OPTIONS = {"start_timeout_s": "60", "drain_linger_s": "0.2"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's data folder; what a test leaves there is taken down."""
    folder = tmp_path / "data"
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(folder))
    yield folder
    for receipt in deployments.deployments():
        deployments.delete(receipt.name)
    left = left_in(folder)
    for pid in processes_in(folder):
        kill(pid)
    assert left == []


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {mark: upper_bundle(folder / mark, f"{mark}:") for mark in ("1", "2")}
    return made | {"pyfunc": pyfunc_bundle(folder / "pyfunc", "p:")}


def deploy(model: Path, **options: str) -> Receipt:
    return deployments.deploy(model, "local", "one", {**OPTIONS, **options}, trust=True)


def asked(text: str = "a") -> object:
    answer = deployments.ask("one", json.dumps({"inputs": [text]}).encode())
    assert answer.status == 200, answer
    return json.loads(answer.body)["predictions"][0]


def status() -> Status:
    return deployments.status("one")[1]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_five_updates_under_load_fail_no_request(data: Path, models: dict[str, Path]) -> None:
    url = deploy(models["1"]).output("url")
    with Callers(url) as load:
        for number in range(5):
            load.until_answered(30)
            deployments.update("one", models["2" if number % 2 == 0 else "1"], trust=True)
        load.until_answered(30)
    assert load.wrong == []
    assert asked() == "2:A"
    assert status().details["restarts"] == 0
    until(lambda: len(processes_in(data)) == 2)  # the supervisor and one service


def test_ready_says_yes_all_through_an_update(data: Path, models: dict[str, Path]) -> None:
    url, over, answers = deploy(models["1"]).output("url"), threading.Event(), []

    def look() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:  # on a connection that it keeps
            while not over.is_set():
                answers.append((client.get("/ready").status_code, httpx.get(f"{url}/ready").status_code))

    looking = threading.Thread(target=look)
    looking.start()
    deployments.update("one", models["pyfunc"], trust=True)
    over.set()
    looking.join()
    assert set(answers) == {(200, 200)}
    assert asked() == "p:A"


def test_a_request_in_flight_is_answered_by_the_version_that_it_asked(
    data: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    waits = f"""
    if text == "wait":
        open({str(begun)!r}, "w").close()
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)"""
    deploy(upper_bundle(tmp_path / "slow", "slow:", predicting=waits))
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(asked("wait")))
    asking.start()
    until(begun.exists)
    deployments.update("one", models["2"], trust=True)
    assert asked() == "2:A"
    assert answers == []
    gate.touch()
    asking.join()
    assert answers == ["slow:WAIT"]


def test_a_killed_service_is_started_again_while_its_callers_wait(data: Path, models: dict[str, Path]) -> None:
    deploy(models["1"])
    pid = status().details["service_pid"]
    kill(pid)
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists())
    assert asked() == "1:A"  # it waited: no connection was refused
    now = status()
    assert (now.state, now.details["restarts"]) == ("ready", 1)
    assert now.details["service_pid"] != pid


def test_a_service_that_does_not_come_back_is_told_and_tried_again(data: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    needs = f"assert not os.path.exists({str(flag)!r}), 'the flag is there'"
    deploy(upper_bundle(tmp_path / "flagged", "f:", loading=needs))
    flag.touch()
    kill(status().details["service_pid"])
    until(lambda: "the flag is there" in status().about)
    assert status().state == "failing"
    flag.unlink()
    until(lambda: status().state == "ready")
    assert asked() == "f:A"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_without_its_supervisor_the_service_ends_and_an_update_mends_it(
    data: Path, models: dict[str, Path], number: signal.Signals
) -> None:
    receipt = deploy(models["1"])
    os.kill(receipt.output("pid"), number)
    until(lambda: processes_in(data) == [])
    now = status()
    assert now.state == "failing"
    assert "likewise update one" in now.about
    with pytest.raises(NotDeployed, match="nothing answers"):
        asked()
    mended = deployments.update("one")
    assert mended.output("url") == receipt.output("url")
    assert asked() == "1:A"


def test_an_update_right_after_the_supervisor_was_killed_waits_for_what_it_left(
    data: Path, models: dict[str, Path]
) -> None:
    receipt = deploy(models["1"])
    kill(receipt.output("pid"))
    mended = deployments.update("one", models["2"], trust=True)
    assert mended.output("url") == receipt.output("url")
    assert asked() == "2:A"
    assert len(processes_in(data)) == 2


def test_a_deletion_after_the_supervisor_was_killed_leaves_nothing(data: Path, models: dict[str, Path]) -> None:
    kill(deploy(models["1"]).output("pid"))
    deployments.delete("one")
    assert processes_in(data) == []


def test_it_outlives_the_folder_that_it_was_made_of(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    given = tmp_path / "given"
    shutil.copytree(models["1"], given)
    deploy(given)
    (given / "model" / "MLmodel").write_text("other bytes in the same file")
    shutil.rmtree(given)
    kill(status().details["service_pid"])
    assert asked() == "1:A"
    deployments.update("one", models["2"], trust=True)
    deployments.update("one", previous=True)
    assert asked() == "1:A"


@pytest.mark.parametrize("verb", ["create", "update"])
def test_a_version_that_is_never_ready_is_given_up(
    data: Path, models: dict[str, Path], tmp_path: Path, verb: str
) -> None:
    loading = "print('loading', flush=True); time.sleep(600)"
    endless = upper_bundle(tmp_path / "endless", "e:", loading=loading)
    if verb == "update":
        deploy(models["1"])
    change = deploy if verb == "create" else partial(deployments.update, "one", trust=True)
    given = {"start_timeout_s": "4"} if verb == "create" else {"options": {"start_timeout_s": "4"}}
    with pytest.raises(DeployFailed, match=r"not ready within 4 s(?s:.*)loading") as failed:
        change(model=endless, **given)
    assert "start_timeout_s" in failed.value.remedy
    if verb == "update":
        assert asked() == "1:A"
        assert len(processes_in(data)) == 2
        assert len(list((data / "local" / "one" / "bundles").iterdir())) == 1


def test_addresses(data: Path, models: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        with pytest.raises(PortTaken, match=port) as taken:
            deploy(models["1"], port=port)
        assert "-C port=" in taken.value.remedy
    with pytest.raises(WrongUsage, match="other machines") as guarded:
        deploy(models["1"], host="0.0.0.0")
    assert "-C token_file" in guarded.value.remedy
    assert deploy(models["1"], port=port).output("url") == f"http://127.0.0.1:{port}"
    with pytest.raises(WrongUsage, match="an update keeps"):
        deployments.update("one", options={"host": "0.0.0.0", "insecure": "true"})
    assert asked() == "1:A"


def test_tokens(data: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeployFailed, match="cannot be read"):
        deploy(models["1"], token_file=str(tmp_path / "none"))
    (tmp_path / "tokens").write_text("# of the team\nsecret-1\n")
    monkeypatch.chdir(tmp_path)
    receipt = deploy(models["1"], token_file="tokens")
    assert asked() == "1:A"
    assert httpx.post(f"{receipt.output('url')}/invocations", json={"inputs": ["a"]}).status_code == 401


def test_worker_processes_end_with_a_killed_supervisor(data: Path, models: dict[str, Path]) -> None:
    def workers() -> list[int]:
        every = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        mine = [pid for pid in every if environment_of(pid).get("LIKEWISE_DATA_HOME") == str(data)]
        return [pid for pid in mine if alive(pid) and "likewise.workers.child" in command_of(pid)]

    receipt = deploy(models["1"], workers="1")
    assert asked() == "1:A"
    assert len(workers()) == 1
    kill(receipt.output("pid"))
    until(lambda: workers() == [])


def test_killed_while_it_waits_for_the_service_and_run_again(data: Path, tmp_path: Path) -> None:
    """The supervisor goes on by itself; the second run finds it, and starts no other."""
    gate = tmp_path / "gate"
    bundle = upper_bundle(
        tmp_path / "gated", "g:", loading=f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    )
    command = [*LIKEWISE, "deploy", bundle, "--to", "local", "--name", "one", "--trust"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: len(processes_in(data)) == 2)
        process.kill()
    before = processes_in(data)
    threading.Timer(1.0, gate.touch).start()  # while the second run waits, or before: it is all the same
    run([*command, "--json"])
    assert processes_in(data) == before
    assert asked() == "g:A"


def test_a_data_folder_with_a_long_name(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a Unix socket may have 108 bytes."""
    deep = tmp_path / ("n" * 100) / ("m" * 100)
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(deep))
    deploy(models["1"])
    assert asked() == "1:A"
    deployments.delete("one")
    assert left_in(deep) == []


def test_an_idle_kept_connection_is_closed_by_an_update_and_no_answer_is_lost(
    data: Path, models: dict[str, Path]
) -> None:
    url = deploy(models["1"]).output("url")
    with httpx.Client(base_url=url, timeout=30) as client:
        assert client.post("/invocations", json={"inputs": ["a"]}).json() == {"predictions": ["1:A"]}
        deployments.update("one", models["2"], trust=True)
        until(lambda: len(processes_in(data)) == 2)  # the old one has closed what was idle
        assert client.post("/invocations", json={"inputs": ["a"]}).json() == {"predictions": ["2:A"]}


def test_a_supervisor_takes_little_memory(data: Path, models: dict[str, Path]) -> None:
    assert resident_bytes(deploy(models["1"]).output("pid")) < 40_000 * 1024


@pytest.mark.parametrize("stop", ["switch", "tidy"])
def test_an_update_that_was_cut_off_is_taken_back_by_another_plan(
    data: Path, models: dict[str, Path], stop: str
) -> None:
    deploy(models["1"])
    with Deployer("local", OPTIONS) as deployer:
        deployer.killed("update", "one", models["2"], before=stop)
    assert asked() == {"switch": "1:A", "tidy": "2:A"}[stop]
    deployments.update("one", options={"queue_tokens": "1000"})
    assert asked() == "1:A"


def test_what_has_no_receipt_any_more_is_left_alone_and_can_be_taken_over(data: Path, models: dict[str, Path]) -> None:
    pid = deploy(models["1"]).output("pid")
    (data / "receipts.db").rename(data / "lost.db")
    with pytest.raises(AlreadyDeployed, match="one") as told:
        deploy(models["2"])
    assert told.value.remedy == "likewise update one MODEL --to local"
    assert deploy(models["1"]).output("pid") == pid
    assert asked() == "1:A"
    (data / "receipts.db").unlink()
    deployments.update("one", str(models["2"]), to="local", trust=True)
    assert asked() == "2:A"


def test_a_port_that_was_taken_meanwhile_is_replaced_by_a_free_one(data: Path, models: dict[str, Path]) -> None:
    receipt = deploy(models["1"])
    kill(receipt.output("pid"))
    until(lambda: processes_in(data) == [])
    with socket.create_server(("127.0.0.1", receipt.output("port"))):
        mended = deployments.update("one")
        assert mended.output("url") != receipt.output("url")
        assert asked() == "1:A"
        assert status().url == mended.output("url")
