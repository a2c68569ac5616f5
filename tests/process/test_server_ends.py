"""Whatever a process executes when it gets a signal to stop, it ends in time, and nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from tests.support.containers.service import first_process, service, stop_first
from tests.support.processes import LIKEWISE, PATIENCE, Running, alive, children, running, until
from tests.support.service import Service, ready, served, started

from likewise.server.server_options import STOP_GRACE_S
from likewise.testing.models import upper_bundle

SHORT = {"drain_linger_s": 0.1, "drain_timeout_s": 0}
SLACK_S = 1.5  # for a busy machine to notice an exit
WATCHDOG = "likewise/core/ending.py"


def send(url: str, text: str) -> None:
    """Send a text that is not answered."""

    def post() -> None:
        with suppress(httpx.TransportError):
            httpx.post(f"{url}/invocations", json={"inputs": [text]}, timeout=PATIENCE)

    threading.Thread(target=post, daemon=True).start()


def seconds_to_end(process: Running, *signals: signal.Signals) -> float:
    sent = time.monotonic()
    for number in signals:
        process.process.send_signal(number)
        time.sleep(0.1)  # two of the same at once count as one
    process.process.wait(PATIENCE)
    return time.monotonic() - sent


# --- the server process ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_call_that_holds_the_gil_is_killed_with_the_process(tmp_path: Path, sent: signal.Signals) -> None:
    log, held, left = tmp_path / "log", tmp_path / "held", tmp_path / "left"
    with started(log, "upper", **SHORT) as process:
        service = ready(process)
        httpx.post(f"{service.url}/invocations", json={"inputs": [f"leave {left}"]}, timeout=PATIENCE)
        send(service.url, f"hold {held}")
        until(held.exists)
        taken = seconds_to_end(process, sent)
        assert taken < SHORT["drain_linger_s"] + STOP_GRACE_S + SLACK_S
        assert process.process.returncode == -signal.SIGKILL
        assert "it is killed" in log.read_text()
        until(lambda: nothing_left(left))


def nothing_left(path: Path) -> bool:
    """Whether what the model left behind, according to the file at `path`, has gone."""
    left = json.loads(path.read_text())
    return not any(map(alive, left["processes"])) and not Path("/dev/shm", left["shared"]).exists()


def test_loading_that_holds_the_gil_is_killed_with_the_process(tmp_path: Path) -> None:
    with started(tmp_path / "log", "upper", "--hold", **SHORT) as process:
        until(lambda: bool(children(process.pid, WATCHDOG)))
        time.sleep(0.5)  # no event can show that the GIL is held: nothing in the process runs
        assert seconds_to_end(process, signal.SIGTERM) < 0.1 + STOP_GRACE_S + SLACK_S


def test_a_second_ctrl_c_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    held = tmp_path / "held"
    with started(tmp_path / "log", "upper", drain_timeout_s=600) as process:
        service = ready(process)
        send(service.url, f"hold {held}")
        until(held.exists)
        assert seconds_to_end(process, signal.SIGINT, signal.SIGINT) < 2 + SLACK_S


def test_what_the_model_started_ends_with_the_server(tmp_path: Path) -> None:
    left = tmp_path / "left"
    with served(tmp_path / "log", "upper") as service:
        httpx.post(f"{service.url}/invocations", json={"inputs": [f"leave {left}"]}, timeout=PATIENCE)
        assert not nothing_left(left)
        assert all(map(alive, json.loads(left.read_text())["processes"]))
        (watchdog,) = children(service.pid, WATCHDOG)
        assert service.stop() == 0
        until(lambda: nothing_left(left) and not alive(watchdog))


def test_a_process_that_the_model_forked_does_not_pass_on_its_signals(tmp_path: Path) -> None:
    """A fork inherits handlers and pipes: a signal that ends it must not end the server."""
    left = tmp_path / "left"
    with served(tmp_path / "log", "upper", **SHORT) as service:
        post = {"inputs": [f"leave {left}"]}
        httpx.post(f"{service.url}/invocations", json=post, timeout=PATIENCE)
        for pid in json.loads(left.read_text())["processes"]:
            os.kill(pid, signal.SIGTERM)
        time.sleep(SHORT["drain_linger_s"] + STOP_GRACE_S + 0.5)
        assert httpx.get(f"{service.url}/ready", timeout=PATIENCE).status_code == 200
        assert service.stop() == 0


def test_nohup_survives_the_terminal(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "model_server.py"), "upper"]
    options = ["--options", '{"drain_linger_s": 0}']
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, preexec_fn=ignore) as process:
        service = ready(Running(process, tmp_path / "none"))
        process.send_signal(signal.SIGHUP)
        assert httpx.post(f"{service.url}/invocations", json={"inputs": ["a"]}, timeout=PATIENCE).status_code == 200
        process.terminate()
        assert process.wait(PATIENCE) == 0


# --- workers, jobs ---------------------------------------------------------------------------------------------------

LEAVING = """
    if text.startswith("leave "):
        import multiprocessing.shared_memory, subprocess, sys
        kept = multiprocessing.shared_memory.SharedMemory(create=True, size=1000)
        globals().setdefault("kept", []).append(kept)
        sleeping = "import os, sys, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True); " \\
            "os.close(1); time.sleep(600)"
        pid = subprocess.run([sys.executable, "-S", "-c", sleeping], stdout=subprocess.PIPE).stdout
        with open(text.removeprefix("leave ") + ".new", "w") as file:
            file.write('{"processes": [%d], "shared": "%s"}' % (int(pid), kept.name))
        os.rename(file.name, text.removeprefix("leave "))
    if text == "wait":
        time.sleep(600)
""".strip()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Converts text to upper case; `leave PATH` leaves a daemon and shared memory behind; `wait` waits."""
    return str(upper_bundle(tmp_path_factory.mktemp("leaving") / "bundle", "", predicting=LEAVING))


def command(model: str, *words: str) -> list[str]:
    return [*LIKEWISE, words[0], model, *words[1:], "--trust", "--json"]


@pytest.mark.parametrize("end", ["a killed worker", "SIGTERM"])
def test_what_the_model_started_in_a_worker_ends_with_it(model: str, tmp_path: Path, end: str) -> None:
    left = tmp_path / "left"
    with running(command(model, "serve", "-p", "0", "--workers", "1"), tmp_path / "log") as process:
        document = process.document()
        service = Service(process, document["url"], document["bundle"])
        httpx.post(f"{service.url}/invocations", json={"inputs": [f"leave {left}"]}, timeout=PATIENCE)
        assert not nothing_left(left)
        if end == "SIGTERM":
            assert service.stop() == 0
        else:
            (worker,) = children(service.pid, "likewise.workers.child")
            os.kill(worker, signal.SIGKILL)
        until(lambda: nothing_left(left))


def test_process_1_of_a_container_ends_although_the_gil_is_held(tmp_path: Path) -> None:
    holding = "text == 'hold' and __import__('ctypes').PyDLL(None).sleep(60)"
    bundle = upper_bundle(tmp_path / "bundle", "", predicting=holding)
    drain = {f"LIKEWISE_{name.upper()}": str(value) for name, value in SHORT.items()}
    settings = {"LIKEWISE_BUNDLE": str(bundle), "LIKEWISE_TRUST": "true", **drain}
    with service(tmp_path / "log", settings, first_process()) as process:
        url = process.ready()
        send(url, "hold")
        time.sleep(0.5)  # no event can show that the GIL is held
        began = time.monotonic()
        assert stop_first(process) == 128 + signal.SIGKILL
        assert time.monotonic() - began < 0.1 + STOP_GRACE_S + SLACK_S


def job(model: str, folder: Path, *texts: str) -> list[str]:
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return command(model, "score", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"))


@pytest.mark.parametrize("sent", [None, signal.SIGTERM, signal.SIGHUP])
def test_what_the_model_started_in_a_job_ends_with_it(model: str, tmp_path: Path, sent: signal.Signals | None) -> None:
    left = tmp_path / "left"
    texts = (f"leave {left}", "wait" if sent else "a")
    with running(job(model, tmp_path, *texts), tmp_path / "log") as process:
        until(left.exists, 2 * PATIENCE)
        if sent is not None:
            assert seconds_to_end(process, sent) < 10 + SLACK_S
        assert process.process.wait(PATIENCE) == (130 if sent else 0)
        until(lambda: nothing_left(left))
