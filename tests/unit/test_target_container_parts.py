"""The target `container` without a container engine: options, plans, names, the listener process, engine failures."""

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
from likewise.images.containers import ContainerEngine, remedy_for
from likewise.targets.base import Live
from likewise.targets.container import inspection
from likewise.targets.container.container_options import ContainerTargetOptions, check_options
from likewise.targets.container.door import PortHolder
from likewise.targets.container.inside import connect
from likewise.targets.container.inspection import ContainerState, DeploymentContainers, version_name
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
responses = json.load(open({responses!r}))
for prefix, (code, out, err) in responses.items():
    if " ".join(arguments).startswith(prefix):
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)
sys.exit(0)
"""


class FakeEngine:
    """A `docker` command with predefined responses, which logs its calls."""

    def __init__(self, folder: Path) -> None:
        self._log, self._responses = folder / "log", folder / "responses.json"
        program = folder / "docker"
        program.write_text(ENGINE.format(python=sys.executable, log=str(self._log), responses=str(self._responses)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.respond()

    def respond(self, **responses: tuple[int, str, str]) -> None:
        """Set the exit code, stdout and stderr by command prefix, with underscores for spaces."""
        by_prefix = {key.replace("_", " "): value for key, value in responses.items()}
        self._responses.write_text(json.dumps({"info --format {{.ServerVersion}}": [0, "1", ""], **by_prefix}))

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
    ("uri", "expected"),
    [
        ("container", "container"),
        ("container:", "container"),
        ("container:/docker", "container:/docker"),
        ("container://podman", "container:/podman"),
    ],
)
def test_uris_are_normalized(uri: str, expected: str) -> None:
    target = ContainerTarget(uri)
    assert target.uri == expected
    assert isinstance(target, Live)


@pytest.mark.parametrize("uri", ["container:/runc", "container:/docker/x", "containers"])
def test_invalid_uri_is_rejected(uri: str) -> None:
    with pytest.raises(WrongUsage, match=uri):
        ContainerTarget(uri)


def test_options_have_help_and_survive_a_json_round_trip() -> None:
    assert all(text for _, _, text in described(ContainerTargetOptions))
    options = ContainerTargetOptions(lock=Path("/l"), env={"A": "b"}, cpus=1.5, memory="2g", port=5000)
    assert coerce(ContainerTargetOptions, json.loads(json.dumps(as_json(options)))) == options


@pytest.mark.parametrize(
    ("values", "reported"),
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
def test_invalid_options_are_rejected_by_name(values: dict[str, str], reported: str) -> None:
    with pytest.raises(WrongUsage) as rejected:
        check_options(coerce(ContainerTargetOptions, values))
    assert reported in rejected.value.cause + rejected.value.remedy


@given(
    st.dictionaries(st.from_regex(r"X_[A-Z0-9_]{0,8}", fullmatch=True), st.text(st.characters(exclude_characters="\0")))
)
def test_variables_are_passed_to_the_engine_unchanged_and_without_a_shell(env: dict[str, str]) -> None:
    options = ContainerTargetOptions(env=env)
    check_options(options)
    command = version_command("n", _params(options), options)
    assert [each.removeprefix("--env=") for each in command if each.startswith("--env=")] == [
        f"{name}={value}" for name, value in env.items()
    ]


def test_version_runs_unprivileged_and_within_its_limits() -> None:
    options = ContainerTargetOptions(memory="1g", cpus=0.5, isolated=True, network="mine")
    command = version_command("n", _params(options), options)
    for flag in ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65532:65532"):
        assert flag in command
    assert {"--network=none", "--memory=1g", "--cpus=0.5", "--restart=unless-stopped"} <= set(command)
    assert "--network=mine" not in command


# --- plans -----------------------------------------------------------------------------------------------------------


def test_planning_is_deterministic_and_changes_nothing(engine: FakeEngine) -> None:
    target, options = ContainerTarget("container:/docker"), ContainerTargetOptions()
    create = target.plan("create", "n", MODEL, options, None)
    assert [step.id for step in create] == ["image", "door", "start"]
    assert create == target.plan("create", "n", MODEL, options, None)
    with pytest.raises(NotDeployed, match="n"):
        target.plan("delete", "n", None, options, None)
    changed = [call for call in engine.calls if call[0] in ("run", "rm", "stop", "start", "volume", "load")]
    assert changed == []


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a;b", "x" * 64])
def test_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(WrongUsage, match="name"):
        inspection.check_name(name)


def test_update_cannot_change_port_or_network(engine: FakeEngine) -> None:
    _set_existing_deployment(engine)
    target = ContainerTarget("container:/docker")
    same = ContainerTargetOptions(port=4711)  # the port that was chosen for the deployment
    assert [step.id for step in target.plan("update", "n", MODEL, same, None)][-2:] == ["retire", "tidy"]
    with pytest.raises(WrongUsage, match="4711"):
        target.plan("update", "n", MODEL, ContainerTargetOptions(port=4712), None)
    with pytest.raises(WrongUsage, match="network"):
        target.plan("update", "n", MODEL, ContainerTargetOptions(network="host"), None)


def test_version_name_is_determined_by_claim_and_image() -> None:
    names = {version_name("n", claim, image) for claim in "ab" for image in "cd"}
    assert len(names) == 4
    assert version_name("n", "a", "c") in names


# --- existing deployments --------------------------------------------------------------------------------------------


def test_existing_deployments_are_read_from_labels(engine: FakeEngine) -> None:
    _set_existing_deployment(engine)
    (receipt,) = ContainerTarget("container:/docker").found()
    assert (receipt.name, receipt.model, receipt.options["port"]) == ("n", MODEL, 0)
    assert receipt.output("url") == "http://127.0.0.1:4711"


def test_state_is_derived_from_the_containers(engine: FakeEngine) -> None:
    program = Program(ContainerEngine("docker", "1"))
    assert status_of(program, DeploymentContainers(None, ())).state == "gone"
    listener, version = _container("door"), _container("version", status="restarting", restarts=7)
    status = status_of(program, DeploymentContainers(listener, (version,)))
    assert (status.state, status.details["restarts"]) == ("failing", 7)
    assert status_of(program, DeploymentContainers(None, (version,))).state == "failing"
    both = _container("version"), _container("version", name="other")
    assert status_of(program, DeploymentContainers(listener, both)).state == "updating"
    assert status_of(program, DeploymentContainers(listener, (_container("version"),))).state == "starting"
    again = _container("version", restarts=1)
    assert status_of(program, DeploymentContainers(listener, (again,))).state == "restarting"
    assert receipt_of("container", "n", DeploymentContainers(listener, ())) is None


def test_engine_failure_is_reported_with_its_own_message(engine: FakeEngine) -> None:
    program = Program(ContainerEngine("docker", "1"))
    engine.respond(run=(125, "", "no space left on device"), container=(1, "", "Cannot connect to the daemon"))
    with pytest.raises(DeployFailed, match="no space left"):
        program.do("run", "x")
    engine.respond(run=(125, "", "Bind for 127.0.0.1:1 failed: port is already allocated"))
    with pytest.raises(PortTaken):
        program.do("run", "x")
    engine.respond(container=(1, "", "Cannot connect to the daemon"))
    with pytest.raises(TargetUnavailable, match="Cannot connect") as raised:
        inspection.deployment(program, "n")
    assert "doctor" in raised.value.remedy


def test_missing_engine_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetUnavailable) as raised:
        ContainerTarget("container").found()
    assert "docker" in raised.value.cause
    assert raised.value.remedy


def test_lock_includes_commands_of_a_killed_process(engine: FakeEngine, tmp_path: Path) -> None:
    """The engine's command inherits the lock, so the next `do` waits for it, even if the process that ran it exits."""
    from likewise.targets.container.target import _locked

    gate, gate_open = tmp_path / "gate", []
    with _locked(Program(ContainerEngine("docker", "1")), "n") as program:
        code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
        assert program.lock is not None
        command = subprocess.Popen([sys.executable, "-c", code], pass_fds=(program.lock,))

    def next_step() -> None:
        with _locked(Program(ContainerEngine("docker", "1")), "n"):
            gate_open.append(gate.exists())

    thread = threading.Thread(target=next_step)
    thread.start()
    gate.touch()
    thread.join(60)
    assert (command.wait(60), gate_open) == (0, [True])


# --- the listener process --------------------------------------------------------------------------------------------


def test_services_share_one_listener_until_it_is_closed(tmp_path: Path) -> None:
    port, path = _free_port(), tmp_path / "socket"
    holder = PortHolder("127.0.0.1", port, path)
    thread = threading.Thread(target=holder.hand_out)
    thread.start()
    first, first_listener = connect(str(path), 60.0)
    second, second_listener = connect(str(path), 60.0)
    client = socket.create_connection(("127.0.0.1", port))
    first_listener.close()  # the client stays in the shared backlog
    accepted, _ = second_listener.accept()
    accepted.sendall(b"x")
    assert client.recv(1) == b"x"
    holder.close()
    thread.join(60)
    assert not thread.is_alive()
    assert (first.recv(1), second.recv(1)) == (b"", b"")
    second_listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for each in (first, second, client, accepted):
        each.close()


def test_connections_of_exited_services_are_released(tmp_path: Path) -> None:
    holder = PortHolder("127.0.0.1", 0, tmp_path / "socket")
    thread = threading.Thread(target=holder.hand_out)
    thread.start()
    for _ in range(5):
        for each in connect(str(tmp_path / "socket"), 60.0):
            each.close()
    last = connect(str(tmp_path / "socket"), 60.0)
    assert len(holder._connected) <= 2  # the last, and at most one that was closed after the previous check
    holder.close()
    thread.join(60)
    for each in last:
        each.close()


def test_missing_listener_container_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailable, match="listener container") as raised:
        connect(str(tmp_path / "socket"), 0.0)
    assert "update" in raised.value.remedy


def test_listener_process_imports_no_large_package_and_reports_a_port_in_use(tmp_path: Path) -> None:
    code = "import likewise.targets.container.door, sys; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "starlette", "uvicorn", "mlflow", "torch", "asyncio"} & set(
        json.loads(done.stdout.replace("'", '"'))
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "likewise.targets.container.door", "127.0.0.1", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "in use" in done.stderr) == (1, True)


def test_importing_the_target_does_not_change_signal_handlers() -> None:
    code = """
import signal
import likewise.targets.container.target
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


# --- helpers ---------------------------------------------------------------------------------------------------------


def _params(options: ContainerTargetOptions) -> dict[str, object]:
    return {"name": "n", "claim": "c", "options": as_json(options), "model": MODEL.as_dict(), "image": "0123"}


def _container(role: str, *, name: str = "n", status: str = "running", restarts: int = 0) -> ContainerState:
    return ContainerState.of(_description(role, name, status, restarts, 1))


def _description(role: str, name: str, status: str, restarts: int, port: int) -> dict[str, object]:
    labels = {
        inspection.NAME: "n",
        inspection.ROLE: role,
        inspection.CLAIM: "c",
        inspection.OPTIONS: json.dumps(as_json(ContainerTargetOptions())),
    }
    role_labels = (
        {inspection.URL: f"http://127.0.0.1:{port}"}
        if role == "door"
        else {inspection.MODEL: json.dumps(MODEL.as_dict())}
    )
    return {
        "Name": f"/{name}",
        "Config": {"Labels": {**labels, **role_labels}},
        "State": {"Status": status, "ExitCode": 0, "StartedAt": "2026-01-01T00:00:00Z"},
        "RestartCount": restarts,
        "HostConfig": {"Memory": 0},
        "Image": "sha256:0123",
        "Created": "2026-01-01T00:00:00Z",
    }


def _set_existing_deployment(engine: FakeEngine) -> None:
    both = [_description("door", "n-door", "running", 0, 4711), _description("version", "n-1", "running", 0, 4711)]
    engine.respond(container_ls=(0, "1\n2\n", ""), container_inspect=(0, json.dumps(both), ""))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_limits_that_the_user_may_not_set_have_a_remedy() -> None:
    assert "default_ulimits" in remedy_for("runc: error setting rlimit type 7: operation not permitted")
    assert not remedy_for("no such image")
