"""The target `local` under failures and changes: kills, updates, timeouts, addresses, tokens, a deleted source."""

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
from tests.support.cli import call
from tests.support.local import left_in, processes_in
from tests.support.processes import LIKEWISE, alive, command_of, environment_of, resident_bytes, run, until

from likewise import deployments
from likewise.core.errors import AlreadyDeployed, DeployFailed, ModelNotFound, NotDeployed, PortTaken, WrongUsage
from likewise.targets.base import LOG_ENDS, Receipt, Status
from likewise.targets.local.deployment_folder import DeploymentFolder
from likewise.targets.local.launch import status_of
from likewise.testing.deployer import Deployer
from likewise.testing.models import pyfunc_bundle, upper_bundle
from likewise.testing.targets import Callers

pytestmark = pytest.mark.xdist_group("local")
OPTIONS = {"start_timeout_s": "60", "drain_linger_s": "0.2"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's data folder; deployments that a test leaves there are deleted."""
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
    bundles = {mark: upper_bundle(folder / mark, f"{mark}:") for mark in ("1", "2")}
    return bundles | {"pyfunc": pyfunc_bundle(folder / "pyfunc", "p:")}


def deploy(model: Path, **options: str) -> Receipt:
    return deployments.deploy(model, "local", "one", {**OPTIONS, **options}, trust=True)


def predict(text: str = "a") -> object:
    response = deployments.predict("one", json.dumps({"inputs": [text]}).encode())
    assert response.status == 200, response
    return json.loads(response.body)["predictions"][0]


def status() -> Status:
    return deployments.status("one")[1]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def worker_processes(data: Path) -> list[int]:
    """The worker processes of the services in the user's data folder."""
    all_pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    pids = [pid for pid in all_pids if environment_of(pid).get("LIKEWISE_DATA_HOME") == str(data)]
    return [pid for pid in pids if alive(pid) and "likewise.workers.child" in command_of(pid)]


@pytest.mark.long
def test_five_updates_under_load_fail_no_request(data: Path, models: dict[str, Path]) -> None:
    url = deploy(models["1"]).output("url")
    with Callers(url) as load:
        for number in range(5):
            load.until_answered(30)
            deployments.update("one", models["2" if number % 2 == 0 else "1"], trust=True)
        load.until_answered(30)
    assert load.wrong == []
    assert predict() == "2:A"
    assert status().details["restarts"] == 0
    until(lambda: len(processes_in(data)) == 2)  # the supervisor and one service


def test_ready_returns_200_throughout_an_update(data: Path, models: dict[str, Path]) -> None:
    url, stop, statuses = deploy(models["1"]).output("url"), threading.Event(), []

    def poll() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:  # on a reused connection, and on new ones
            while not stop.is_set():
                statuses.append((client.get("/ready").status_code, httpx.get(f"{url}/ready").status_code))

    polling = threading.Thread(target=poll)
    polling.start()
    deployments.update("one", models["pyfunc"], trust=True)
    stop.set()
    polling.join()
    assert set(statuses) == {(200, 200)}
    assert predict() == "p:A"


def test_request_in_flight_during_an_update_is_completed_by_the_old_version(
    data: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    waits = f"""
    if text == "wait":
        open({str(started)!r}, "w").close()
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)"""
    deploy(upper_bundle(tmp_path / "slow", "slow:", predicting=waits))
    predictions: list[object] = []
    request = threading.Thread(target=lambda: predictions.append(predict("wait")))
    request.start()
    until(started.exists)
    deployments.update("one", models["2"], trust=True)
    assert predict() == "2:A"
    assert predictions == []
    gate.touch()
    request.join()
    assert predictions == ["slow:WAIT"]


def test_killed_service_is_restarted_while_its_clients_wait(data: Path, models: dict[str, Path]) -> None:
    deploy(models["1"])
    pid = status().details["service_pid"]
    kill(pid)
    supervised = DeploymentFolder(data / "local" / "one")
    until(lambda: status_of(supervised)["state"] == "restarting")  # `status` would wait as other clients do
    assert status().about == "the service was killed by SIGKILL"
    assert predict() == "1:A"  # the client waited; its connection was not refused
    now = status()
    assert (now.state, now.details["restarts"]) == ("ready", 1)
    assert now.details["service_pid"] != pid


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle that does not load while a file exists, and that file."""
    folder = tmp_path_factory.mktemp("flagged")
    flag = folder / "flag"
    loading = f"assert not os.path.exists({str(flag)!r}), 'the flag exists'"
    return upper_bundle(folder / "bundle", "f:", loading=loading, predicting="{'a': 'A'}[text]"), flag


def test_service_that_does_not_load_is_reported_and_started_again(
    data: Path, flagged: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle, flag = flagged
    deploy(bundle)
    flag.touch()
    kill(status().details["service_pid"])
    until(lambda: "the flag exists" in status().about)
    assert status().state == "failing"
    url = status().url
    assert httpx.get(f"{url}/ready").status_code == 503
    refused = httpx.post(f"{url}/invocations", json={"inputs": ["a" * 1_000_000]})
    assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    with pytest.raises(DeployFailed, match="the flag exists"):
        deployments.update("one", trust=True)
    log = "\n".join(deployments.logs("one"))
    assert "\nAssertionError: the flag exists\n" in log, log
    assert "asyncio" not in log
    flag.unlink()
    copy = shutil.copytree(bundle, tmp_path / "copy")
    deployments.update("one", copy, trust=True)  # to the same version, which starts it now
    assert (status().state, predict()) == ("ready", "f:A")
    assert [each.number for each in deployments.history("one") if each.outcome == "deployed"] == [1]
    flag.touch()
    kill(status().details["service_pid"])
    until(lambda: status().state == "failing")
    flag.unlink()
    until(lambda: status().state == "ready")  # by itself


def test_update_to_the_same_version_keeps_the_previous_one(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    first = shutil.copytree(models["1"], tmp_path / "first")
    deploy(first)
    deployments.update("one", models["2"], trust=True)
    shutil.rmtree(first)
    deployments.update("one", models["2"], trust=True)
    deployments.update("one", previous=True, trust=True)
    assert predict() == "1:A"


def test_relative_paths_of_options_are_those_of_the_deployment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("t" * 40)
    monkeypatch.chdir(tmp_path)
    deploy(upper_bundle(tmp_path / "one", "1:"), token_file="token")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    deployments.update("one", upper_bundle(tmp_path / "two", "2:"), trust=True)
    assert predict() == "2:A"


def test_status_has_the_cause_of_failing_rows_and_of_workers_that_do_not_start(
    data: Path, flagged: tuple[Path, Path]
) -> None:
    bundle, flag = flagged
    deploy(bundle, workers="1")
    assert predict() == "f:A"
    response = deployments.predict("one", b'{"inputs": ["a secret"]}')
    assert response.status == 422
    traffic = status().traffic
    assert traffic is not None
    assert str(traffic.last_failure).startswith("the model raised KeyError, at 20")
    flag.touch()
    for _ in range(2):  # the first one's replacement may have loaded before the flag existed
        for pid in worker_processes(data):
            kill(pid)
    until(lambda: "the flag exists" in status().about)
    flag.unlink()
    assert status().about.startswith("the service is running but not ready: no worker can run the model at present: ")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_service_exits_without_its_supervisor_and_an_update_repairs_it(
    data: Path, models: dict[str, Path], number: signal.Signals
) -> None:
    receipt = deploy(models["1"])
    os.kill(receipt.output("pid"), number)
    until(lambda: processes_in(data) == [])
    now = status()
    assert now.state == "failing"
    assert "likewise update one" in now.about
    with pytest.raises(NotDeployed, match="nothing is listening"):
        predict()
    repaired = deployments.update("one")
    assert repaired.output("url") == receipt.output("url")
    assert predict() == "1:A"


def test_update_after_the_supervisor_was_killed_waits_for_its_remaining_processes(
    data: Path, models: dict[str, Path]
) -> None:
    receipt = deploy(models["1"])
    kill(receipt.output("pid"))
    repaired = deployments.update("one", models["2"], trust=True)
    assert repaired.output("url") == receipt.output("url")
    assert predict() == "2:A"
    assert len(processes_in(data)) == 2


def test_deletion_after_the_supervisor_was_killed_leaves_nothing(data: Path, models: dict[str, Path]) -> None:
    kill(deploy(models["1"]).output("pid"))
    deployments.delete("one")
    assert processes_in(data) == []


def test_deployment_does_not_depend_on_its_source_folder(data: Path, models: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(models["1"], source)
    deploy(source)
    (source / "model" / "MLmodel").write_text("other bytes in the same file")
    shutil.rmtree(source)
    kill(status().details["service_pid"])
    assert predict() == "1:A"
    deployments.update("one", models["2"], trust=True)
    deployments.update("one", previous=True)
    assert predict() == "1:A"


def test_log_is_followed_through_an_update_until_the_deletion(data: Path, models: dict[str, Path]) -> None:
    deploy(models["1"])
    log = deployments.logs("one", lines=1, follow=True)
    assert " is ready at http" in next(log)
    deployments.update("one", models["2"], trust=True)
    assert " starting sha256:" in next(log)
    assert " is ready at http" in next(log)
    with subprocess.Popen([*LIKEWISE, "logs", "one", "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b" starting sha256:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    deployments.delete("one")
    assert [*log][-1] == LOG_ENDS


def test_former_revision_is_restored_or_the_remedy_names_what_is_missing(
    data: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(models["1"], source)
    deploy(source)
    deployments.update("one", models["2"], trust=True)
    deployments.update("one", options={"deadline_s": "30"})
    shutil.rmtree(source)
    with pytest.raises(ModelNotFound, match="revision 1") as missing:
        deployments.update("one", revision=1)
    assert str(source) in missing.value.remedy
    shutil.copytree(models["1"], source)
    receipt = deployments.update("one", revision=1)
    assert (predict(), receipt.options["deadline_s"]) == ("1:A", 60.0)
    with pytest.raises(WrongUsage, match="a model and a former version"):
        deployments.update("one", models["2"], revision=1, trust=True)
    shown = json.loads(call("history", "one", "--json").stdout)["revisions"]
    assert [each["number"] for each in shown] == [1, 2, 3, 4]
    assert shown[2]["changes"] == {"deadline_s": 30.0}
    deployments.delete("one")
    with pytest.raises(NotDeployed):
        deployments.history("one")


def test_list_shows_states_and_does_not_wait_for_what_does_not_respond(
    data: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = deploy(models["1"])
    (listed,) = deployments.listed()
    assert (listed.state, listed.url, listed.engine) == ("ready", receipt.output("url"), "testing/native")
    monkeypatch.setattr("likewise.targets.listing.STATE_S", 0.5)
    supervisor = receipt.output("pid")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        (shown,) = json.loads(call("list", "--json").stdout)["deployments"]
        assert (shown["state"], shown["url"], shown["status"]) == ("unreachable", receipt.output("url"), None)
        (recorded,) = json.loads(call("list", "--json", "--no-state").stdout)["deployments"]
        assert (recorded["state"], recorded["model"]) == ("", shown["model"])
    finally:
        os.kill(supervisor, signal.SIGCONT)
    with pytest.raises(NotDeployed) as misspelled:
        deployments.status("onne")
    assert "'one'" in misspelled.value.remedy


@pytest.mark.parametrize("verb", ["create", "update"])
def test_version_that_is_not_ready_in_time_is_a_failure(
    data: Path, models: dict[str, Path], tmp_path: Path, verb: str
) -> None:
    loading = "print('loading', flush=True); time.sleep(600)"
    endless = upper_bundle(tmp_path / "endless", "e:", loading=loading)
    if verb == "update":
        deploy(models["1"])
    change = deploy if verb == "create" else partial(deployments.update, "one", trust=True)
    timeout = {"start_timeout_s": "4"} if verb == "create" else {"options": {"start_timeout_s": "4"}}
    with pytest.raises(DeployFailed, match=r"not ready within 4 s(?s:.*)loading") as failed:
        change(model=endless, **timeout)
    assert "start_timeout_s" in failed.value.remedy
    if verb == "update":
        assert predict() == "1:A"
        assert len(processes_in(data)) == 2
        assert len(list((data / "local" / "one" / "bundles").iterdir())) == 1


def test_ports_in_use_unguarded_hosts_and_address_changes_are_rejected(data: Path, models: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with pytest.raises(PortTaken, match=port) as taken:
            deploy(models["1"], port=port)
        assert "-C port=" in taken.value.remedy
    with pytest.raises(WrongUsage, match="other machines") as unguarded:
        deploy(models["1"], host="0.0.0.0")
    assert "-C token_file" in unguarded.value.remedy
    assert deploy(models["1"], port=port).output("url") == f"http://127.0.0.1:{port}"
    (data / "local" / "damaged").mkdir()
    (data / "local" / "damaged" / "deployment.json").write_text("{")
    with pytest.raises(PortTaken, match="for the deployment 'one'"):
        deployments.deploy(models["1"], "local", "two", {**OPTIONS, "port": port}, trust=True)
    shutil.rmtree(data / "local" / "damaged")
    with pytest.raises(WrongUsage, match="an update cannot change"):
        deployments.update("one", options={"host": "0.0.0.0", "insecure": "true"})
    assert predict() == "1:A"


def test_token_file_is_required_of_clients_and_used_by_predict(
    data: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeployFailed, match="cannot be read"):
        deploy(models["1"], token_file=str(tmp_path / "none"))
    (tmp_path / "tokens").write_text("# of the team\nsecret-1\n")
    monkeypatch.chdir(tmp_path)
    receipt = deploy(models["1"], token_file="tokens")
    assert predict() == "1:A"
    url = receipt.output("url")
    assert httpx.post(f"{url}/invocations", json={"inputs": ["a"]}).status_code == 401
    named = "X-Likewise-Bundle"
    assert named not in httpx.get(f"{url}/ready").headers
    assert deployments.status("one")[1].bundle == httpx.get(f"{url}/ready", auth=("", "secret-1")).headers[named]
    (tmp_path / "tokens").unlink()
    assert (deployments.status("one")[1].state, deployments.status("one")[1].bundle) == ("ready", None)


def test_worker_processes_exit_with_a_killed_supervisor(data: Path, models: dict[str, Path]) -> None:
    receipt = deploy(models["1"], workers="1")
    assert predict() == "1:A"
    assert len(worker_processes(data)) == 1
    kill(receipt.output("pid"))
    until(lambda: worker_processes(data) == [])


def test_command_killed_while_waiting_for_the_service_can_be_run_again(data: Path, tmp_path: Path) -> None:
    """The supervisor continues by itself; the second run waits for it, and starts no other."""
    gate = tmp_path / "gate"
    bundle = upper_bundle(
        tmp_path / "gated", "g:", loading=f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    )
    command = [*LIKEWISE, "deploy", bundle, "--to", "local", "--name", "one", "--trust"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: len(processes_in(data)) == 2)
        process.kill()
    until(lambda: len(processes_in(data)) == 2)  # the first two may have been the supervisor and what started it
    before = processes_in(data)
    threading.Timer(1.0, gate.touch).start()  # while the second run waits, or before it does
    run([*command, "--json"])
    assert processes_in(data) == before
    assert predict() == "g:A"


def test_update_that_is_stopped_while_the_new_version_loads_changes_nothing(
    data: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    loading = f"import time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    gated = upper_bundle(tmp_path / "gated", "g:", loading=loading)
    deploy(models["1"])
    before = processes_in(data)
    with subprocess.Popen([*LIKEWISE, "update", "one", str(gated), "--trust"], stderr=subprocess.PIPE) as process:
        until(lambda: status().state == "updating")
        until(lambda: len(processes_in(data)) > len(before))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"undo it with: likewise update one" in process.stderr.read()
    assert process.returncode == 130
    until(lambda: processes_in(data) == before)
    gate.touch()
    assert (status().state, predict()) == ("ready", "1:A")
    deployments.update("one", trust=True)  # as the remedy suggests
    assert [each.name for each in deployments.listed() if each.unfinished is None] == ["one"]
    assert predict() == "1:A"


def test_data_folder_may_have_a_long_path(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a Unix socket is limited to 108 bytes."""
    deep = tmp_path / ("n" * 100) / ("m" * 100)
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(deep))
    deploy(models["1"])
    assert predict() == "1:A"
    deployments.delete("one")
    assert left_in(deep) == []


def test_idle_connection_is_closed_by_an_update_without_losing_a_response(data: Path, models: dict[str, Path]) -> None:
    url = deploy(models["1"]).output("url")
    with httpx.Client(base_url=url, timeout=30) as client:
        assert client.post("/invocations", json={"inputs": ["a"]}).json() == {"predictions": ["1:A"]}
        deployments.update("one", models["2"], trust=True)
        until(lambda: len(processes_in(data)) == 2)  # the old version has closed its idle connections
        assert client.post("/invocations", json={"inputs": ["a"]}).json() == {"predictions": ["2:A"]}


def test_supervisor_uses_less_than_40_mb_of_memory(data: Path, models: dict[str, Path]) -> None:
    assert resident_bytes(deploy(models["1"]).output("pid")) < 40_000 * 1024


@pytest.mark.parametrize("stop", ["switch", "tidy"])
def test_interrupted_update_is_rolled_back_by_another_plan(data: Path, models: dict[str, Path], stop: str) -> None:
    deploy(models["1"])
    with Deployer("local", OPTIONS) as deployer:
        deployer.kill_before(stop, "update", "one", models["2"])
    assert predict() == {"switch": "1:A", "tidy": "2:A"}[stop]
    deployments.update("one", options={"queue_tokens": "1000"})
    assert predict() == "1:A"


def test_deployment_without_a_receipt_is_not_overwritten_and_can_be_updated(
    data: Path, models: dict[str, Path]
) -> None:
    pid = deploy(models["1"]).output("pid")
    (data / "receipts.db").rename(data / "lost.db")
    with pytest.raises(AlreadyDeployed, match="one") as raised:
        deploy(models["2"])
    assert raised.value.remedy == "likewise update one MODEL --to local"
    assert deploy(models["1"]).output("pid") == pid
    assert predict() == "1:A"
    (data / "receipts.db").unlink()
    deployments.update("one", str(models["2"]), to="local", trust=True)
    assert predict() == "2:A"


def test_update_chooses_a_new_port_if_the_former_one_is_in_use(data: Path, models: dict[str, Path]) -> None:
    receipt = deploy(models["1"])
    kill(receipt.output("pid"))
    until(lambda: processes_in(data) == [])
    with socket.create_server(("127.0.0.1", receipt.output("port"))):
        repaired = deployments.update("one")
        assert repaired.output("url") != receipt.output("url")
        assert predict() == "1:A"
        assert status().url == repaired.output("url")


def test_invalid_request_is_reported_as_the_callers_in_one_document(data: Path, models: dict[str, Path]) -> None:
    deploy(models["1"])
    done = call("predict", "one", '{"inputs": [', "--json")
    document = json.loads(done.stdout)  # a single one
    assert done.returncode == 1
    assert document["error"]["code"] == "BAD_REQUEST"
    assert document["error"]["cause"].startswith("one responded with status 400: ")
    assert (document["status"], document["response"]["error_code"]) == (400, "BAD_REQUEST")
    done = call("predict", "one", '{"inputs": [')
    assert json.loads(done.stdout) == document["response"]
    assert done.stderr.startswith("BAD_REQUEST: one responded with status 400: ")
    done = call("predict", "one", '{"inputs": ["a"]}', "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"predictions": ["1:A"]})
