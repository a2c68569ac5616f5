"""The target `container` without an engine of containers: options, plans, names, the door, and an engine that fails."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.errors import DeployFailed, NotDeployed, PortTaken, TargetUnavailable, WrongUsage
from likewise.core.option_fields import as_json, coerce, described
from likewise.core.spec import ModelSpec
from likewise.images.containers import ContainerEngine
from likewise.targets.base import Live
from likewise.targets.container import inspection
from likewise.targets.container.container_options import ContainerTargetOptions, check_options
from likewise.targets.container.door import PortHolder
from likewise.targets.container.inside import connect
from likewise.targets.container.inspection import ContainerState, Standing, version_name
from likewise.targets.container.program import Program
from likewise.targets.container.running import version_command
from likewise.targets.container.status import receipt_of, status_of
from likewise.targets.container.target import ContainerTarget

MODEL = ModelSpec("sha256:" + "a" * 64, Path("/nowhere"), "models:/m/1", "openvino", "bf16", False)
ENGINE = """#!{python}
import json, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
said = json.load(open({said!r}))
for words, (code, out, err) in said.items():
    if " ".join(arguments).startswith(words):
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)
sys.exit(0)
"""


class FakeEngine:
    """A `docker` that answers as it is told to, and writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self._log, self._said = folder / "log", folder / "said.json"
        program = folder / "docker"
        program.write_text(ENGINE.format(python=sys.executable, log=str(self._log), said=str(self._said)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.answers()

    def answers(self, **said: tuple[int, str, str]) -> None:
        words = {key.replace("_", " "): value for key, value in said.items()}
        self._said.write_text(json.dumps({"info --format {{.ServerVersion}}": [0, "1", ""], **words}))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    return FakeEngine(folder)


# --- options and addresses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("container", "container"),
        ("container:", "container"),
        ("container:/docker", "container:/docker"),
        ("container://podman", "container:/podman"),
    ],
)
def test_addresses(uri: str, wanted: str) -> None:
    target = ContainerTarget(uri)
    assert target.uri == wanted
    assert isinstance(target, Live)


@pytest.mark.parametrize("uri", ["container:/runc", "container:/docker/x", "containers"])
def test_another_address_is_refused(uri: str) -> None:
    with pytest.raises(WrongUsage, match=uri):
        ContainerTarget(uri)


def test_every_option_has_help_and_comes_back_from_json() -> None:
    assert all(text for _, _, text in described(ContainerTargetOptions))
    options = ContainerTargetOptions(lock=Path("/l"), env={"A": "b"}, cpus=1.5, memory="2g", port=5000)
    assert coerce(ContainerTargetOptions, json.loads(json.dumps(as_json(options)))) == options


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"memory": "much"}, "memory"),
        ({"memory": "0"}, "memory"),
        ({"cpus": "0"}, "cpus"),
        ({"user": "0:0"}, "user"),
        ({"user": "root"}, "user"),
        ({"port": "65536"}, "port"),
        ({"host": "0.0.0.0"}, "insecure"),
        ({"host": "x; rm -rf /", "insecure": "true"}, "host"),
        ({"network": "none"}, "network"),
        ({"network": "--privileged"}, "network"),
        ({"start_timeout_s": "0"}, "start_timeout_s"),
        ({"env": '{"A=B": "c"}'}, "A=B"),
        ({"env": '{"A": 1}'}, "A"),
        ({"env": '{"LIKEWISE_PORT": "1"}'}, "port"),
        ({"env": '{"LIKEWISE_QUEUE_TOKEN": "1"}'}, "LIKEWISE_QUEUE_TOKENS"),
        ({"restart": "always"}, "restart"),
    ],
)
def test_options_that_no_container_can_have_are_refused_by_name(given: dict[str, str], named: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        check_options(coerce(ContainerTargetOptions, given))
    assert named in refused.value.cause + refused.value.remedy


@given(
    st.dictionaries(st.from_regex(r"X_[A-Z0-9_]{0,8}", fullmatch=True), st.text(st.characters(exclude_characters="\0")))
)
def test_variables_reach_the_engine_as_they_are_and_no_shell(env: dict[str, str]) -> None:
    options = ContainerTargetOptions(env=env)
    check_options(options)
    command = version_command("n", _params(options), options)
    assert [each.removeprefix("--env=") for each in command if each.startswith("--env=")] == [
        f"{name}={value}" for name, value in env.items()
    ]


def test_a_version_runs_without_rights() -> None:
    options = ContainerTargetOptions(memory="1g", cpus=0.5, isolated=True, network="mine")
    command = version_command("n", _params(options), options)
    for wanted in ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65532:65532"):
        assert wanted in command
    assert {"--network=none", "--memory=1g", "--cpus=0.5", "--restart=unless-stopped"} <= set(command)
    assert "--network=mine" not in command


# --- plans -----------------------------------------------------------------------------------------------------------


def test_plans(engine: FakeEngine) -> None:
    target, options = ContainerTarget("container:/docker"), ContainerTargetOptions()
    create = target.plan("create", "n", MODEL, options, None)
    assert [step.id for step in create] == ["image", "door", "start"]
    assert create == target.plan("create", "n", MODEL, options, None)
    with pytest.raises(NotDeployed, match="n"):
        target.plan("delete", "n", None, options, None)
    changed = [call for call in engine.calls if call[0] in ("run", "rm", "stop", "start", "volume", "load")]
    assert changed == []


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a;b", "x" * 64])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(WrongUsage, match="name"):
        inspection.check_name(name)


def test_an_update_keeps_its_address(engine: FakeEngine) -> None:
    _stands(engine)
    target = ContainerTarget("container:/docker")
    same = ContainerTargetOptions(port=4711)  # the one that was found for it
    assert [step.id for step in target.plan("update", "n", MODEL, same, None)][-2:] == ["retire", "tidy"]
    with pytest.raises(WrongUsage, match="4711"):
        target.plan("update", "n", MODEL, ContainerTargetOptions(port=4712), None)
    with pytest.raises(WrongUsage, match="network"):
        target.plan("update", "n", MODEL, ContainerTargetOptions(network="host"), None)


def test_a_version_has_one_name_for_one_plan_and_image() -> None:
    names = {version_name("n", claim, image) for claim in "ab" for image in "cd"}
    assert len(names) == 4
    assert version_name("n", "a", "c") in names


# --- what stands -----------------------------------------------------------------------------------------------------


def test_what_stands_is_read_of_labels(engine: FakeEngine) -> None:
    _stands(engine)
    (receipt,) = ContainerTarget("container:/docker").found()
    assert (receipt.name, receipt.model, receipt.options["port"]) == ("n", MODEL, 0)
    assert receipt.output("url") == "http://127.0.0.1:4711"


def test_states(engine: FakeEngine) -> None:
    program = Program(ContainerEngine("docker", "1"))
    assert status_of(program, Standing(None, ())).state == "gone"
    door, version = _container("door"), _container("version", status="restarting", restarts=7)
    status = status_of(program, Standing(door, (version,)))
    assert (status.state, status.details["restarts"]) == ("failing", 7)
    assert status_of(program, Standing(None, (version,))).state == "failing"
    both = _container("version"), _container("version", name="other")
    assert status_of(program, Standing(door, both)).state == "updating"
    assert status_of(program, Standing(door, (_container("version"),))).state == "starting"
    assert receipt_of("container", "n", Standing(door, ())) is None


def test_an_engine_that_fails_is_told_in_its_own_words(engine: FakeEngine) -> None:
    program = Program(ContainerEngine("docker", "1"))
    engine.answers(run=(125, "", "no space left on device"), container=(1, "", "Cannot connect to the daemon"))
    with pytest.raises(DeployFailed, match="no space left"):
        program.do("run", "x")
    engine.answers(run=(125, "", "Bind for 127.0.0.1:1 failed: port is already allocated"))
    with pytest.raises(PortTaken):
        program.do("run", "x")
    engine.answers(container=(1, "", "Cannot connect to the daemon"))
    with pytest.raises(TargetUnavailable, match="Cannot connect") as told:
        inspection.standing(program, "n")
    assert "doctor" in told.value.remedy


def test_a_machine_without_an_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetUnavailable) as told:
        ContainerTarget("container").found()
    assert "docker" in told.value.cause
    assert told.value.remedy


def test_what_a_killed_process_began_has_ended_when_the_next_one_comes(engine: FakeEngine, tmp_path: Path) -> None:
    """The engine's command holds the lock on: the next `do` waits for it, and not only for the one who called it."""
    from likewise.targets.container.target import _one_at_a_time

    gate, seen = tmp_path / "gate", []
    with _one_at_a_time(Program(ContainerEngine("docker", "1")), "n") as program:
        code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
        assert program.lock is not None
        left = subprocess.Popen([sys.executable, "-c", code], pass_fds=(program.lock,))

    def next_one() -> None:
        with _one_at_a_time(Program(ContainerEngine("docker", "1")), "n"):
            seen.append(gate.exists())

    thread = threading.Thread(target=next_one)
    thread.start()
    gate.touch()
    thread.join(60)
    assert (left.wait(60), seen) == (0, [True])


# --- the door --------------------------------------------------------------------------------------------------------


def test_the_door_hands_one_listener_to_all_and_lets_go_of_it(tmp_path: Path) -> None:
    port, path = _free_port(), tmp_path / "door"
    door = PortHolder("127.0.0.1", port, path)
    thread = threading.Thread(target=door.hand_out)
    thread.start()
    first, one = connect(str(path), 60.0)
    second, other = connect(str(path), 60.0)
    caller = socket.create_connection(("127.0.0.1", port))
    one.close()  # whoever called stays in the queue for the other
    accepted, _ = other.accept()
    accepted.sendall(b"x")
    assert caller.recv(1) == b"x"
    door.close()
    thread.join(60)
    assert not thread.is_alive()
    assert (first.recv(1), second.recv(1)) == (b"", b"")
    other.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for each in (first, second, caller, accepted):
        each.close()


def test_the_door_forgets_services_that_have_ended(tmp_path: Path) -> None:
    door = PortHolder("127.0.0.1", 0, tmp_path / "door")
    thread = threading.Thread(target=door.hand_out)
    thread.start()
    for _ in range(5):
        for each in connect(str(tmp_path / "door"), 60.0):
            each.close()
    last = connect(str(tmp_path / "door"), 60.0)
    assert len(door._held) <= 2  # the last, and at most the one whose end came after it was looked at
    door.close()
    thread.join(60)
    for each in last:
        each.close()


def test_no_door_is_told(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailable, match="door") as told:
        connect(str(tmp_path / "door"), 0.0)
    assert "update" in told.value.remedy


def test_the_doors_process_imports_nothing_heavy_and_says_that_a_port_is_taken(tmp_path: Path) -> None:
    code = "import likewise.targets.container.door, sys; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "starlette", "uvicorn", "mlflow", "torch", "asyncio"} & set(
        json.loads(done.stdout.replace("'", '"'))
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "likewise.targets.container.door", "127.0.0.1", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "in use" in done.stderr) == (1, True)


def test_importing_the_target_leaves_signals_alone() -> None:
    code = """
import signal
import likewise.targets.container.target
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


# --- parts -----------------------------------------------------------------------------------------------------------


def _params(options: ContainerTargetOptions) -> dict[str, object]:
    return {"name": "n", "claim": "c", "options": as_json(options), "model": MODEL.as_dict(), "image": "0123"}


def _container(role: str, *, name: str = "n", status: str = "running", restarts: int = 0) -> ContainerState:
    return ContainerState.of(_said(role, name, status, restarts, 1))


def _said(role: str, name: str, status: str, restarts: int, port: int) -> dict[str, object]:
    labels = {
        inspection.NAME: "n",
        inspection.ROLE: role,
        inspection.CLAIM: "c",
        inspection.OPTIONS: json.dumps(as_json(ContainerTargetOptions())),
    }
    more = (
        {inspection.URL: f"http://127.0.0.1:{port}"}
        if role == "door"
        else {inspection.MODEL: json.dumps(MODEL.as_dict())}
    )
    return {
        "Name": f"/{name}",
        "Config": {"Labels": {**labels, **more}},
        "State": {"Status": status, "ExitCode": 0, "StartedAt": "2026-01-01T00:00:00Z"},
        "RestartCount": restarts,
        "HostConfig": {"Memory": 0},
        "Image": "sha256:0123",
        "Created": "2026-01-01T00:00:00Z",
    }


def _stands(engine: FakeEngine) -> None:
    both = [_said("door", "n-door", "running", 0, 4711), _said("version", "n-1", "running", 0, 4711)]
    engine.answers(container_ls=(0, "1\n2\n", ""), container_inspect=(0, json.dumps(both), ""))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
