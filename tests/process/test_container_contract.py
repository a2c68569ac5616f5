"""SageMaker's contract, kept by the real process: pings, payloads, headers, lines, signals, strange users."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.containers.service import Service, service
from tests.support.gated import gated_bundle
from tests.support.machine import cannot_test
from tests.support.models import save_upper
from tests.support.processes import PATIENCE, children, until

import likewise
from likewise.bundles.open import Bundle, open_bundle
from likewise.testing.models import upper_bundle

pytestmark = pytest.mark.slow
MB = 1024 * 1024


def settings(bundle: Bundle, **more: str) -> dict[str, str]:
    return {"LIKEWISE_BUNDLE": str(bundle.path), "LIKEWISE_TRUST": "true", **more}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return gated_bundle(tmp_path_factory.mktemp("bundle") / "upper")


@pytest.fixture(scope="module")
def running(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("log") / "log", settings(bundle)) as process:
        process.ready()
        yield process


@pytest.fixture
def client(running: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url(), timeout=PATIENCE) as asking:
        yield asking


def slow_bundle(folder: Path) -> tuple[Bundle, Path]:
    """A bundle that loads once the file is there."""
    gate = folder / "gate"
    waiting = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    return open_bundle(upper_bundle(folder / "gated", "", loading=waiting)), gate


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_request_as_the_chapter_sends_it(client: httpx.Client, bundle: Bundle) -> None:
    answer = client.post(
        "/invocations",
        content=b'{"columns":["text"], "data": [["What a movie!"]]}',
        headers={"Content-Type": "application/json; format=pandas-split", "Accept": "*/*"},
    )
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.headers["X-Likewise-Bundle"] == bundle.digest


def test_sagemakers_headers_come_back_or_do_no_harm(client: httpx.Client) -> None:
    answer = client.post(
        "/invocations",
        json={"inputs": ["a"]},
        headers={
            "X-Amzn-SageMaker-Custom-Attributes": "trace=1, user=ann",
            "X-Amzn-SageMaker-Inference-Id": "inference-7",
            "X-Amzn-SageMaker-Target-Model": "other.tar.gz",
            "X-Amzn-SageMaker-Target-Variant": "blue",
        },
    )
    assert answer.json() == {"predictions": ["A"]}
    assert answer.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=1, user=ann"
    assert answer.headers["X-Request-Id"] == "inference-7"


def test_lines_as_batch_transform_sends_them(client: httpx.Client) -> None:
    lines = client.post(
        "/invocations", content=b'a\n"b, c"\n', headers={"Content-Type": "text/csv", "Accept": "text/csv"}
    )
    assert lines.text == 'A\n"B, C"\n'
    headed = client.post("/invocations", content=b"text\na\n", headers={"Content-Type": "text/csv"})
    assert headed.json() == {"predictions": ["A"]}
    records = client.post(
        "/invocations",
        content=b'{"text": "a"}\n{"text": "b"}\n',
        headers={"Content-Type": "application/jsonlines"},
    )
    assert (records.text, records.headers["Content-Type"]) == ('"A"\n"B"\n', "application/jsonlines")


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "application/x-recordio-protobuf"}, {"Accept": "application/x-npy"}]
)
def test_what_is_not_spoken_is_415_with_what_is(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post("/invocations", content=b'{"inputs": ["a"]}', headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["remedy"]


def test_a_bad_row_is_the_clients_with_its_number(client: httpx.Client) -> None:
    answer = client.post("/invocations", json={"inputs": ["a", "bad b"]})
    assert answer.status_code == 422
    assert "row 1" in answer.json()["message"]


@pytest.mark.parametrize(("size", "status"), [(6 * MB, 200), (25 * MB - 100, 200), (26 * MB, 413)])
def test_payloads(client: httpx.Client, size: int, status: int) -> None:
    answer = client.post("/invocations", content=b'{"inputs": ["' + b"a" * size + b'"]}')
    assert answer.status_code == status
    if status == 200:
        assert answer.content == b'{"predictions":["' + b"A" * size + b'"]}'


def test_batch_transform_is_told_how(client: httpx.Client) -> None:
    said = client.get("/execution-parameters").json()
    assert said["BatchStrategy"] == "MULTI_RECORD"
    assert 0 < said["MaxConcurrentTransforms"] * said["MaxPayloadInMB"] <= 100


# --- life ------------------------------------------------------------------------------------------------------------


def test_a_ping_is_200_when_the_model_is_warm_and_not_before(tmp_path: Path) -> None:
    bundle, gate = slow_bundle(tmp_path)
    with service(tmp_path / "log", settings(bundle)) as process:
        process.line("loading the model")
        with httpx.Client(base_url=process.url(), timeout=PATIENCE) as client:
            assert client.get("/ping").status_code == 503
            assert client.get("/health").status_code == 200
            gate.touch()
            until(lambda: client.get("/ping").status_code == 200)
        assert process.stop() == 0


def first_process() -> list[str]:
    """What makes the next one the first of a PID namespace, as in a container."""
    prefix = ["unshare", "--pid", "--fork", "--kill-child"]
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if done.returncode != 0:
        cannot_test("containers", f"this machine makes no PID namespace: {done.stderr.strip()}")
    return prefix


def terminate_inside(process: Service) -> int:
    """SIGTERM to the process that `unshare` has started; the exit code."""
    (first,) = children(process.pid)
    os.kill(first, signal.SIGTERM)
    return process.process.wait(PATIENCE)


def test_sigterm_loses_nothing_that_was_accepted_also_as_the_first_process(bundle: Bundle, tmp_path: Path) -> None:
    gate, answers = tmp_path / "gate", []
    with service(tmp_path / "log", settings(bundle), first_process()) as process:
        url = process.ready()

        def ask(text: str) -> None:
            answers.append(httpx.post(f"{url}/invocations", json={"inputs": [text]}, timeout=PATIENCE))

        asking = [threading.Thread(target=ask, args=(text,)) for text in (f"gate {gate}", "b", "c", "d")]
        asking[0].start()
        until(Path(f"{gate}.begun").exists)
        for thread in asking[1:]:
            thread.start()
        until(lambda: "queue_items 3.0" in waiting(url))
        ended: list[int] = []
        ending = threading.Thread(target=lambda: ended.append(terminate_inside(process)))
        ending.start()
        until(lambda: httpx.get(f"{url}/ping", timeout=PATIENCE).status_code == 503)
        gate.touch()
        for thread in (*asking, ending):
            thread.join(PATIENCE)
    assert sorted(answer.json()["predictions"][0] for answer in answers) == ["B", "C", "D", f"GATE {gate}".upper()]
    assert ended == [0]


def waiting(url: str) -> str:
    """The metric of what waits, without its labels."""
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines()
    return "\n".join(f"queue_items {line.rpartition(' ')[2]}" for line in lines if "queue_items{" in line)


def test_sigterm_while_it_loads_ends_the_first_process_too(tmp_path: Path) -> None:
    bundle, _ = slow_bundle(tmp_path)
    with service(tmp_path / "log", settings(bundle), first_process()) as process:
        process.line("loading the model")
        assert terminate_inside(process) == 0


def test_worker_processes_answer(bundle: Bundle, tmp_path: Path) -> None:
    with service(tmp_path / "log", settings(bundle, LIKEWISE_WORKERS="2")) as process:
        url = process.ready()
        assert httpx.post(f"{url}/invocations", json={"inputs": ["a"]}, timeout=PATIENCE).json() == {
            "predictions": ["A"]
        }
        assert process.stop() == 0


def test_mlflows_own_model_data_is_served_where_it_is_trusted(tmp_path: Path) -> None:
    where = {"LIKEWISE_MODEL_DIR": str(tmp_path / "data")}
    save_upper(tmp_path / "data" / "model")
    with service(tmp_path / "refused", where) as process:
        assert process.process.wait(PATIENCE) == 1
        assert "CODE_NOT_TRUSTED: " in process.text()
        assert "likewise bundle" in process.text()
    with service(tmp_path / "log", {**where, "LIKEWISE_TRUST": "true"}) as process:
        url = process.ready()
        assert httpx.post(f"{url}/invocations", json={"inputs": ["a"]}, timeout=PATIENCE).json() == {
            "predictions": ["A"]
        }


# --- what goes wrong at the start ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "code", "exit_code"),
    [
        ({"LIKEWISE_DEADLINE_S": "soon"}, "WRONG_USAGE", 2),
        ({"LIKEWISE_TRUSTED": "1"}, "WRONG_USAGE", 2),
        ({"LIKEWISE_BUNDLE": "/nowhere"}, "MODEL_NOT_FOUND", 1),
        ({"LIKEWISE_TRUST": "false"}, "CODE_NOT_TRUSTED", 1),
        ({"LIKEWISE_ENGINE": "openvino"}, "ENGINE_UNAVAILABLE", 1),
    ],
)
def test_it_ends_with_code_cause_and_remedy(
    setting: dict[str, str], code: str, exit_code: int, bundle: Bundle, tmp_path: Path
) -> None:
    with service(tmp_path / "log", {**settings(bundle), **setting}) as process:
        assert process.process.wait(PATIENCE) == exit_code
        said = process.text()
    assert f"{code}: " in said
    assert "\nremedy: " in said
    assert "Traceback" not in said


def test_another_command_is_refused(tmp_path: Path) -> None:
    with service(tmp_path / "log", {}, command=(sys.executable, "-m", "likewise.container", "train")) as process:
        assert process.process.wait(PATIENCE) == 2
        assert "'serve'" in process.text()


# --- a strange user on a read-only disk without a network ------------------------------------------------------------

INSIDE = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/python /mnt/bundle /mnt/packages /mnt/source
mount --bind "$BASE" /mnt/python
mount --bind "$BUNDLE" /mnt/bundle
mount --bind "$PACKAGES" /mnt/packages
mount --bind "$SOURCE" /mnt/source
mount -o remount,bind,ro /mnt
for each in python bundle packages source; do mount -o remount,bind,ro "/mnt/$each"; done
mount -o remount,bind,ro /
ip link set lo up
env -i PATH=/usr/bin:/bin LD_LIBRARY_PATH=/mnt/python/lib PYTHONPATH=/mnt/source:/mnt/packages \
    LIKEWISE_BUNDLE=/mnt/bundle LIKEWISE_TRUST=true \
    setpriv --reuid=54321 --regid=54321 --clear-groups --no-new-privs \
    /mnt/python/bin/python3 -m likewise.container serve &
server=$!
/mnt/python/bin/python3 -c "$CLIENT" "$server" || true
kill -TERM "$server"
wait "$server" && echo "ended with 0"
"""
CLIENT = """
import http.client, json, os, sys, time

def ask(*arguments):
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
    connection.request(*arguments)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()

while os.path.exists(f"/proc/{sys.argv[1]}/exe"):
    try:
        if ask("GET", "/ping")[0] == 200:
            break
    except OSError:
        pass
    time.sleep(0.05)
uids = [line.split()[1] for line in open(f"/proc/{sys.argv[1]}/status") if line.startswith("Uid")]
print(json.dumps({"uids": uids, "answer": ask("POST", "/invocations", '{"inputs": ["a"]}')}), flush=True)
"""


def test_it_runs_as_anybody_on_a_read_only_disk_without_home_and_network(bundle: Bundle) -> None:
    namespaces = ["unshare", "--mount", "--net"]
    done = subprocess.run([*namespaces, "true"], capture_output=True, text=True)
    if done.returncode != 0:
        cannot_test("containers", f"this machine makes no namespaces: {done.stderr.strip()}")
    environment = {
        "PATH": os.environ["PATH"],
        "BASE": sys.base_prefix,
        "BUNDLE": str(bundle.path),
        "PACKAGES": sysconfig.get_path("platlib"),
        "SOURCE": str(Path(likewise.__file__).parents[1]),
        "CLIENT": CLIENT,
    }
    done = subprocess.run(
        [*namespaces, "sh", "-c", INSIDE], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert said, done.stderr
    assert json.loads(said[0]) == {"uids": ["54321"], "answer": [200, '{"predictions":["A"]}']}
    assert "ended with 0" in done.stdout, done.stderr
