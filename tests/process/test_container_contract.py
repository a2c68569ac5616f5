"""SageMaker's container contract with the real process: pings, payloads, headers, lines, signals, arbitrary users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.containers.service import Service, first_process, service, stop_first
from tests.support.gated import gated_bundle
from tests.support.machine import cannot_test
from tests.support.models import save_upper
from tests.support.processes import PATIENCE, until

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
    with httpx.Client(base_url=running.url(), timeout=PATIENCE) as http_client:
        yield http_client


def slow_bundle(folder: Path) -> tuple[Bundle, Path]:
    """A bundle that loads only after the returned gate file exists."""
    gate = folder / "gate"
    waiting = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    return open_bundle(upper_bundle(folder / "gated", "", loading=waiting)), gate


# --- requests --------------------------------------------------------------------------------------------------------


def test_the_books_request_is_served(client: httpx.Client, bundle: Bundle) -> None:
    response = client.post(
        "/invocations",
        content=b'{"columns":["text"], "data": [["What a movie!"]]}',
        headers={"Content-Type": "application/json; format=pandas-split", "Accept": "*/*"},
    )
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert response.headers["X-Likewise-Bundle"] == bundle.digest


def test_sagemakers_headers_are_returned_or_ignored(client: httpx.Client) -> None:
    response = client.post(
        "/invocations",
        json={"inputs": ["a"]},
        headers={
            "X-Amzn-SageMaker-Custom-Attributes": "trace=1, user=ann",
            "X-Amzn-SageMaker-Inference-Id": "inference-7",
            "X-Amzn-SageMaker-Target-Model": "other.tar.gz",
            "X-Amzn-SageMaker-Target-Variant": "blue",
        },
    )
    assert response.json() == {"predictions": ["A"]}
    assert response.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=1, user=ann"
    assert response.headers["X-Request-Id"] == "inference-7"


def test_line_based_bodies_of_batch_transform(client: httpx.Client) -> None:
    lines = client.post(
        "/invocations", content=b'a\n"b, c"\n', headers={"Content-Type": "text/csv", "Accept": "text/csv"}
    )
    assert lines.text == 'A\n"B, C"\n'
    with_header = client.post("/invocations", content=b"text\na\n", headers={"Content-Type": "text/csv"})
    assert with_header.json() == {"predictions": ["A"]}
    records = client.post(
        "/invocations",
        content=b'{"text": "a"}\n{"text": "b"}\n',
        headers={"Content-Type": "application/jsonlines"},
    )
    assert (records.text, records.headers["Content-Type"]) == ('"A"\n"B"\n', "application/jsonlines")


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "application/x-recordio-protobuf"}, {"Accept": "application/x-npy"}]
)
def test_an_unsupported_type_is_415_with_the_supported_ones(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.post("/invocations", content=b'{"inputs": ["a"]}', headers=headers)
    assert response.status_code == 415
    assert "application/json" in response.json()["remedy"]


def test_a_failing_row_is_422_with_its_number(client: httpx.Client) -> None:
    response = client.post("/invocations", json={"inputs": ["a", "bad b"]})
    assert response.status_code == 422
    assert "row 1" in response.json()["message"]


@pytest.mark.parametrize(("size", "status"), [(6 * MB, 200), (25 * MB - 100, 200), (26 * MB, 413)])
def test_payload_limits(client: httpx.Client, size: int, status: int) -> None:
    response = client.post("/invocations", content=b'{"inputs": ["' + b"a" * size + b'"]}')
    assert response.status_code == status
    if status == 200:
        assert response.content == b'{"predictions":["' + b"A" * size + b'"]}'


def test_execution_parameters_for_batch_transform(client: httpx.Client) -> None:
    parameters = client.get("/execution-parameters").json()
    assert parameters["BatchStrategy"] == "MULTI_RECORD"
    assert 0 < parameters["MaxConcurrentTransforms"] * parameters["MaxPayloadInMB"] <= 100


# --- lifecycle -------------------------------------------------------------------------------------------------------


def test_ping_is_200_only_after_the_warm_up(tmp_path: Path) -> None:
    bundle, gate = slow_bundle(tmp_path)
    with service(tmp_path / "log", settings(bundle)) as process:
        process.line("loading the model")
        with httpx.Client(base_url=process.url(), timeout=PATIENCE) as client:
            assert client.get("/ping").status_code == 503
            assert client.get("/v2/health/live").status_code == 200
            gate.touch()
            until(lambda: client.get("/ping").status_code == 200)
        assert process.stop() == 0


def test_sigterm_completes_accepted_requests_even_as_pid_1(bundle: Bundle, tmp_path: Path) -> None:
    gate, responses = tmp_path / "gate", []
    with service(tmp_path / "log", settings(bundle, LIKEWISE_WORKERS="1"), first_process()) as process:
        url = process.ready()

        def post(text: str) -> None:
            responses.append(httpx.post(f"{url}/invocations", json={"inputs": [text]}, timeout=PATIENCE))

        clients = [threading.Thread(target=post, args=(text,)) for text in (f"gate {gate}", "b", "c", "d")]
        clients[0].start()
        until(Path(f"{gate}.begun").exists)
        for thread in clients[1:]:
            thread.start()
        until(lambda: "queue_items 3.0" in waiting(url))
        exit_codes: list[int] = []
        terminating = threading.Thread(target=lambda: exit_codes.append(stop_first(process)))
        terminating.start()
        until(lambda: httpx.get(f"{url}/ping", timeout=PATIENCE).status_code == 503)
        gate.touch()
        for thread in (*clients, terminating):
            thread.join(PATIENCE)
    assert sorted(response.json()["predictions"][0] for response in responses) == [
        "B",
        "C",
        "D",
        f"GATE {gate}".upper(),
    ]
    assert exit_codes == [0]


def waiting(url: str) -> str:
    """The metric `queue_items` without its labels."""
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines()
    return "\n".join(f"queue_items {line.rpartition(' ')[2]}" for line in lines if "queue_items{" in line)


def test_sigterm_during_loading_stops_pid_1(tmp_path: Path) -> None:
    bundle, _ = slow_bundle(tmp_path)
    with service(tmp_path / "log", settings(bundle), first_process()) as process:
        process.line("loading the model")
        assert stop_first(process) == 0


def test_worker_processes_serve_requests(bundle: Bundle, tmp_path: Path) -> None:
    with service(tmp_path / "log", settings(bundle, LIKEWISE_WORKERS="2")) as process:
        url = process.ready()
        assert httpx.post(f"{url}/invocations", json={"inputs": ["a"]}, timeout=PATIENCE).json() == {
            "predictions": ["A"]
        }
        assert process.stop() == 0


def test_mlflows_own_model_data_is_served_if_trusted(tmp_path: Path) -> None:
    environment = {"LIKEWISE_MODEL_DIR": str(tmp_path / "data")}
    save_upper(tmp_path / "data" / "model")
    with service(tmp_path / "refused", environment) as process:
        assert process.process.wait(PATIENCE) == 1
        assert "CODE_NOT_TRUSTED: " in process.text()
        assert "likewise bundle" in process.text()
    with service(tmp_path / "log", {**environment, "LIKEWISE_TRUST": "true"}) as process:
        url = process.ready()
        assert httpx.post(f"{url}/invocations", json={"inputs": ["a"]}, timeout=PATIENCE).json() == {
            "predictions": ["A"]
        }


# --- startup errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "code", "exit_code"),
    [
        ({"LIKEWISE_DEADLINE_S": "soon"}, "WRONG_USAGE", 2),
        ({"LIKEWISE_WORKERS": "many"}, "WRONG_USAGE", 2),
        ({"LIKEWISE_BUNDLE": "/nowhere"}, "MODEL_NOT_FOUND", 1),
        ({"LIKEWISE_TRUST": "false"}, "CODE_NOT_TRUSTED", 1),
        ({"LIKEWISE_ENGINE": "openvino"}, "ENGINE_UNAVAILABLE", 1),
    ],
)
def test_startup_errors_are_reported_with_code_cause_and_remedy(
    setting: dict[str, str], code: str, exit_code: int, bundle: Bundle, tmp_path: Path
) -> None:
    with service(tmp_path / "log", {**settings(bundle), **setting}) as process:
        assert process.process.wait(PATIENCE) == exit_code
        output = process.text()
    assert f"{code}: " in output
    assert "\nremedy: " in output
    assert "Traceback" not in output


def test_another_command_is_rejected(tmp_path: Path) -> None:
    with service(tmp_path / "log", {}, command=(sys.executable, "-m", "likewise.container", "train")) as process:
        assert process.process.wait(PATIENCE) == 2
        assert "'serve'" in process.text()


# --- an arbitrary user on a read-only file system without a network --------------------------------------------------

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
    LIKEWISE_BUNDLE=/mnt/bundle LIKEWISE_TRUST=true LIKEWISE_CELL_LIMIT=1 \
    LIKEWISE_SERVICE_HOST=10.96.0.7 LIKEWISE_SERVICE_PORT=80 LIKEWISE_PORT=tcp://10.96.0.7:80 \
    LIKEWISE_PORT_80_TCP=tcp://10.96.0.7:80 LIKEWISE_PORT_80_TCP_ADDR=10.96.0.7 LIKEWISE_DEMO_SERVICE_PORT_HTTP=80 \
    setpriv --reuid=54321 --regid=54321 --clear-groups --no-new-privs \
    /mnt/python/bin/python3 -m likewise.container serve &
server=$!
/mnt/python/bin/python3 -c "$CLIENT" "$server" || true
kill -TERM "$server"
wait "$server" && echo "exited with 0"
"""
CLIENT = """
import http.client, json, os, sys, time

def send(*arguments):
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
    connection.request(*arguments)
    response = connection.getresponse()
    return response.status, response.read().decode()

while os.path.exists(f"/proc/{sys.argv[1]}/exe"):
    try:
        if send("GET", "/ping")[0] == 200:
            break
    except OSError:
        pass
    time.sleep(0.05)
uids = [line.split()[1] for line in open(f"/proc/{sys.argv[1]}/status") if line.startswith("Uid")]
print(json.dumps({"uids": uids, "response": send("POST", "/invocations", '{"inputs": ["a"]}')}), flush=True)
"""


def test_it_runs_as_any_user_on_a_read_only_file_system_without_home_and_network(bundle: Bundle) -> None:
    namespaces = ["unshare", "--mount", "--net"]
    done = subprocess.run([*namespaces, "true"], capture_output=True, text=True)
    if done.returncode != 0:
        cannot_test("containers", f"this machine cannot create namespaces: {done.stderr.strip()}")
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
    output = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert output, done.stderr
    assert json.loads(output[0]) == {"uids": ["54321"], "response": [200, '{"predictions":["A"]}']}
    assert "exited with 0" in done.stdout, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "LIKEWISE_CELL_LIMIT" in warning
    assert "LIKEWISE_CELLS_LIMIT?" in warning
