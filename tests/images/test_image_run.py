"""Real images in real containers: built twice, inspected, started, queried, stopped."""

from __future__ import annotations

import json
import os
import pickletools
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from subprocess import PIPE

import httpx
import mlflow
import pandas as pd
import pytest
from tests.support.cli import call
from tests.support.containers.cache import fast_compression
from tests.support.containers.daemon import Docker, podman
from tests.support.containers.images import small_base
from tests.support.containers.registry import registry
from tests.support.containers.shared import Containers
from tests.support.encoders import FILMS, save_classifier
from tests.support.interrupt import moments, run_interrupted
from tests.support.processes import LIKEWISE, alive, children, free_port, likewise, run, until
from tests.support.processes import running as background
from tests.support.sentiment_store import TEXTS
from tests.support.sentiment_store import Store as Demo

from likewise import open_bundle
from likewise.bundles.open import write_manifest
from likewise.core.errors import TargetUnavailable
from likewise.demo.data import reviews
from likewise.images.containers import find_engine
from likewise.images.layers import machine_of
from likewise.images.oci import Descriptor
from likewise.images.store import Store
from likewise.testing.models import upper_bundle

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("containers")]
pytest_plugins = ("tests.support.containers.fixtures",)
EXAMPLE = {"inputs": ["a", "b"]}
CLIENT = """
import json, sys, time, urllib.error, urllib.request
deadline = time.monotonic() + 120
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:8080/ready")
        break
    except (urllib.error.URLError, OSError):
        if time.monotonic() > deadline:
            raise
        time.sleep(0.02)
body, headers = sys.stdin.buffer.read(), {"content-type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8080/invocations", body, headers)
print(urllib.request.urlopen(request).read().decode())
"""


@pytest.fixture(scope="module")
def docker(containers: Containers) -> Iterator[Docker]:
    """The Docker daemon used by the commands, with the base and the environments of both images below.

    Every image is compressed like the cached environments: otherwise its digest would depend on what was cached.
    """
    with containers.used("testing", "openvino") as docker, fast_compression():
        yield docker
        docker.remove_images()


@pytest.fixture(scope="module")
def image_store(containers: Containers) -> Store:
    """The local image store."""
    return containers.cache.store


@pytest.fixture(scope="module")
def base(containers: Containers) -> str:
    """Path of the base image, Debian with its own Python."""
    return str(containers.cache.base)


@pytest.fixture(scope="module")
def demo(docker: Docker, base: str, store: Demo) -> Path:
    """The bundle of the demo's pipeline, from which the image `demo:1` is built."""
    stdout_of("image", "build", store.bundle, "-t", "demo:1", "--base", base)
    return store.bundle


@pytest.fixture(scope="module")
def upper(docker: Docker, base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model returns upper case; the image `upper:1` is built from it and loaded into Docker."""
    bundle = upper_bundle(tmp_path_factory.mktemp("bundles") / "upper", "")
    with open_bundle(bundle, trust=True) as opened:
        manifest = opened.manifest
    (bundle / "model" / "serving_input_example.json").write_text(json.dumps(EXAMPLE))
    write_manifest(bundle, manifest)
    stdout_of("image", "build", bundle, "-t", "upper:1", "--base", base, "--trust")
    with running(docker, "upper:1"):
        pass
    return bundle


def stdout_of(*arguments: str | Path) -> str:
    """Run a Likewise command that must succeed; returns its standard output."""
    completed = call(*arguments)
    assert completed.returncode == 0, completed.stderr[-3000:]
    return completed.stdout


@contextmanager
def running(docker: Docker, image: str) -> Iterator[tuple[str, str]]:
    """Run a container on the host's network; yields its URL and its name."""
    options = ["-p", str(free_port()), "--network", "host", "--with", "docker", "--detach", "--json"]
    started = json.loads(stdout_of("image", "run", image, *options))
    try:
        yield started["url"], started["container"]
    finally:
        docker("rm", "--force", started["container"])


@contextmanager
def isolated(docker: Docker, *arguments: str) -> Iterator[str]:
    """Run a container without a network on a read-only disk; yields its name."""
    name = docker("run", "--detach", "--network=none", "--read-only", *arguments)
    try:
        yield name
    finally:
        docker("rm", "--force", name)


def test_image_is_compared_with_a_bundle(docker: Docker, upper: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden.csv"
    golden.write_text("text\na\nb\n")
    before = docker("container", "ls", "--all", "--quiet")
    other = upper_bundle(tmp_path / "other", "other:")
    for bundle, code in ((upper, 0), (other, 3)):
        words = ["--against", "image:upper:1", "--golden", golden, "--trust", "--json"]
        done = call("verify", bundle, *words)
        assert done.returncode == code, done.stderr[-3000:]
        parity = json.loads(done.stdout)
        [place] = parity["places"]
        assert (place["same"], place["differ"]) == ((2, 0) if code == 0 else (0, 2))
        assert (place["bundle"] == parity["bundle"]) is (code == 0)
    done = call("verify", upper, "--against", "image:none:1", "--golden", golden, "--trust", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["places"][0]["verdict"] == "failed"
    assert docker("container", "ls", "--all", "--quiet") == before


def predictions_inside(docker: Docker, name: str, body: object) -> object:
    """The predictions of a container for a request that is sent from inside it."""
    response = docker("exec", "-i", name, "python", "-c", CLIENT, stdin=json.dumps(body))
    return json.loads(response)["predictions"]


def expected_predictions(bundle: Path, texts: list[str]) -> object:
    """The predictions of the bundle in this process."""
    with open_bundle(bundle, engine="openvino") as opened:
        return json.loads(opened.predict(pd.DataFrame({"text": texts})).to_json(orient="records"))


# --- the demo's model ------------------------------------------------------------------------------------------------


def test_isolated_container_gives_the_bundles_predictions_as_any_user(docker: Docker, demo: Path) -> None:
    with running(docker, "demo:1"):
        pass  # loads the image into Docker
    user = f"{10_000 + secrets.randbelow(50_000)}:{10_000 + secrets.randbelow(50_000)}"
    limits = ("--cpus=0.5", "--memory=600m", "--cap-drop=ALL", "--env=LIKEWISE_PORT=tcp://10.96.0.7:80")  # Kubernetes'
    with isolated(docker, f"--user={user}", *limits, "demo:1", "serve") as name:
        assert predictions_inside(docker, name, {"inputs": TEXTS}) == expected_predictions(demo, TEXTS)
        docker("stop", "--time", "30", name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"


@pytest.mark.parametrize("rows", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_many_rows_get_the_bundles_predictions(docker: Docker, demo: Path, rows: int) -> None:
    texts = list(dict.fromkeys(review.text for review in reviews()))[:rows]
    assert len(texts) == rows
    predictions = []
    with running(docker, "demo:1") as (url, _):
        for offset in range(0, rows, 100):
            body = {"inputs": texts[offset : offset + 100]}
            predictions += httpx.post(f"{url}/invocations", json=body, timeout=120).json()["predictions"]
    assert predictions == expected_predictions(demo, texts)


@pytest.mark.long
def test_text_classifier_of_transformers_needs_no_torch_in_its_image(docker: Docker, base: str, tmp_path: Path) -> None:
    saved, golden = save_classifier(tmp_path / "model"), tmp_path / "golden.jsonl"
    expected = mlflow.pyfunc.load_model(str(saved)).predict(FILMS).to_dict("records")
    rows = ({"text": text, "expected": each} for text, each in zip(FILMS, expected, strict=True))
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bundle = tmp_path / "bundle"
    stdout_of("bundle", saved, "-o", bundle, "--no-measure")
    stdout_of("image", "build", bundle, "-t", "texts:1", "--base", base)
    words = ["--against", "image:texts:1", "--golden", golden, "--tolerance", "0.02", "--json"]
    done = call("verify", bundle, *words)
    places = json.loads(done.stdout)["places"]
    assert [(each["rows"], each["differ"]) for each in places] == [(len(FILMS), 0)] * 2, json.dumps(places[-1])
    with isolated(docker, "texts:1", "serve") as name:
        inside = predictions_inside(docker, name, {"inputs": FILMS[:2]})
        assert [each["label"] for each in inside] == [each["label"] for each in expected[:2]]  # type: ignore[attr-defined]
        script = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'mlflow') if u.find_spec(n)])"
        assert docker("exec", name, "python", "-c", script) == "[]"


def members(store: Store, name: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The members of the two layers that Likewise adds, each with its first 4096 bytes (empty unless a file)."""
    for layer in store.document(store.find(name))["layers"][-2:]:
        with tarfile.open(store.path(Descriptor.parse(layer).digest)) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                yield member, b"" if stream is None else stream.read(4096)


def test_image_contains_no_credentials_tools_or_pickles(image_store: Store, demo: Path) -> None:
    forbidden = re.compile(
        r"(?i)(^|/)(\.aws|\.netrc|\.pypirc|\.docker|\.cache|\.git|id_rsa|pip|setuptools|credentials)(/|$|\.json$)"
    )
    names = []
    for member, head in members(image_store, "demo:1"):
        names.append(member.name)
        assert (member.uid, member.gid, member.mtime, member.mode & 0o022) == (0, 0, 0, 0) or member.issym()
        if "/bundle/model/" not in member.name:
            assert not member.name.endswith((".pkl", ".pickle", ".pt")), member.name
            assert not is_pickle(head), member.name
    assert not [name for name in names if forbidden.search(name)]
    assert "opt/likewise/bundle/likewise.json" in names
    text = json.dumps(
        image_store.document(Descriptor.parse(image_store.document(image_store.find("demo:1"))["config"]))
    )
    assert not re.search(r"(?i)mlflow_|sqlite|https?://(?!json-schema)|password|token_file|AKIA", text)


def is_pickle(head: bytes) -> bool:
    """Whether the data starts with the opcodes of a pickle of protocol 2 or newer."""
    if head[:1] != b"\x80" or head[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return False
    try:
        return len([1 for _ in zip(pickletools.genops(head), range(3), strict=False)]) == 3
    except ValueError:
        return False


@pytest.mark.long
def test_arm64_image_has_no_file_for_another_cpu(image_store: Store, demo: Path, tmp_path: Path) -> None:
    base = small_base(tmp_path / "arm.tar", machine=183)
    stdout_of("image", "build", demo, "-t", "arm:1", "--platform", "linux/arm64", "--base", base)
    compiled_files = 0
    for member, head in members(image_store, "arm:1"):
        machine = machine_of(head)
        assert machine in (None, 183), member.name
        compiled_files += machine is not None
    assert compiled_files > 20
    completed = call("image", "run", "arm:1", "-p", str(free_port()))
    assert completed.returncode == 1
    assert "ENGINE_UNAVAILABLE" in completed.stderr


@pytest.mark.long
def test_six_steps_script_runs_in_a_rehearsal(docker: Docker, demo: Path, base: str, tmp_path: Path) -> None:
    """The unchanged script, with the AWS CLI if it is installed."""
    script = Path(__file__).parents[2] / "examples" / "sentiment" / "sagemaker" / "six_steps.sh"
    aws = os.environ.get("LIKEWISE_TEST_AWS") or shutil.which("aws")
    path = [*([os.path.dirname(aws)] if aws else []), os.path.dirname(sys.executable), os.environ["PATH"]]
    own = {"LIKEWISE_DATA_HOME": str(tmp_path), "PORT": str(free_port()), "NETWORK": "host"}
    env = {**os.environ, **own, "PATH": os.pathsep.join(path)}
    completed = likewise("rehearse", "sagemaker:/eu-west-1", "--", script, demo, "--base", base, env=env)
    assert re.findall(r"^# (\d)", completed.stderr, re.MULTILINE) == ["1", "3", "4", "5", "6"]
    labels = re.findall(r'prediction_label\\*": \[\\*"(\w+)', completed.stdout)
    assert len(labels) == (6 if aws else 4)
    assert set(labels) <= {"positive", "negative"}
    assert re.search(r"@sha256:[0-9a-f]{64}", completed.stdout)
    assert docker("ps", "--all", "--quiet") == ""
    assert json.loads(likewise("list", "--json", env=env).stdout) == {"deployments": []}


# --- any model -------------------------------------------------------------------------------------------------------


def test_sigterm_under_load_loses_no_accepted_request(docker: Docker, upper: Path) -> None:
    """Every request gets a response, a 503 or a refused connection; none is cut off."""
    outcomes: Counter[str] = Counter()

    def send_requests(url: str, client: int) -> None:
        for number in count():
            try:
                response = httpx.post(f"{url}/invocations", json={"inputs": [f"{client} {number}"]}, timeout=120)
                outcomes[str(response.status_code)] += 1
            except httpx.ConnectError:
                outcomes["refused"] += 1
                return
            except httpx.HTTPError as error:
                outcomes[repr(error)] += 1

    with running(docker, "upper:1") as (url, container), ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(send_requests, url, client) for client in range(8)]
        until(lambda: outcomes["200"] > 50)
        docker("stop", "--time", "60", container)
        wait(clients)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    assert outcomes["refused"] == 8
    assert set(outcomes) <= {"200", "503", "refused"}, outcomes


def test_docker_receives_only_missing_layers(
    docker: Docker, image_store: Store, upper: Path, base: str, tmp_path: Path
) -> None:
    """Load another model with the same environment while the environment's layer is unreadable."""
    other = tmp_path / "bundle"
    shutil.copytree(upper, other)
    with (other / "model" / "serving_input_example.json").open("a") as stream:
        stream.write("\n")
    write_manifest(other, open_bundle(upper, trust=True).manifest)
    stdout_of("image", "build", other, "-t", "upper:2", "--base", base, "--trust")
    environment = image_store.path(image_store.document(image_store.find("upper:2"))["layers"][-2]["digest"])
    hidden = environment.rename(tmp_path / "hidden")
    try:
        with running(docker, "upper:2") as (url, _):
            assert httpx.get(f"{url}/ready").status_code == 200
    finally:
        hidden.rename(environment)


def test_serve_program_is_on_the_path(docker: Docker, upper: Path) -> None:
    with isolated(docker, "--entrypoint=serve", "upper:1") as name:
        assert predictions_inside(docker, name, EXAMPLE) == ["A", "B"]


def test_cached_layers_are_not_built_again(upper: Path, base: str) -> None:
    again = json.loads(stdout_of("image", "build", upper, "-t", "upper:3", "--base", base, "--trust", "--json"))
    assert [layer["made"] for layer in again["platforms"][0]["layers"].values()] == [False, False]


@pytest.fixture(scope="module")
def another_home(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has wheels, but no layers."""
    home, source = tmp_path_factory.mktemp("another"), containers.cache.store.folder
    shutil.copytree(source / "wheels", home / "images" / "wheels", copy_function=os.link)
    (home / "images" / "known").mkdir()
    for lock in source.glob("known/lock-*.json"):
        shutil.copy(lock, home / "images" / "known")
    return home


@pytest.fixture
def another_store(another_home: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The image store in that cache, which commands use."""
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(another_home))
    return Store()


def test_equal_inputs_give_the_same_digest(
    image_store: Store, upper: Path, base: str, another_store: Store, tmp_path: Path
) -> None:
    moved = shutil.copytree(upper, tmp_path / "elsewhere" / "bundle")
    arguments = ["image", "build", moved, "-t", "other:2", "--base", base, "--trust", "--oci", tmp_path / "oci"]
    built = json.loads(stdout_of(*arguments, "--json"))
    image = image_store.find("upper:1")
    assert another_store.document(another_store.find("other:2")) == image_store.document(image)
    assert built["digest"] == image.digest
    assert all(layer["made"] for layer in built["platforms"][0]["layers"].values())
    index = json.loads((tmp_path / "oci" / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == built["digest"]


def test_base_is_pulled_from_a_registry_and_cached(
    image_store: Store, upper: Path, another_store: Store, containers: Containers, tmp_path: Path
) -> None:
    """Any image with Python can be a base, here one that Likewise built. It is pulled again only with `--pull`."""
    with registry(tmp_path / "registry") as address:
        base = f"{address}/bases/python:1"
        with containers.used():
            stdout_of("image", "push", "upper:1", base)
        arguments = ["image", "build", upper, "-t", "pulled:1", "--base", base, "--trust", "--json"]
        (built,) = json.loads(stdout_of(*arguments))["platforms"]
    assert built["base"] == {"name": base, "digest": image_store.find("upper:1").digest}
    image = another_store.find("pulled:1")
    layers = another_store.document(image)["layers"]
    assert layers[:-2] == image_store.document(image_store.find("upper:1"))["layers"]
    again = json.loads(stdout_of(*arguments))  # the registry has stopped
    assert again["digest"] == image.digest


def test_labels_describe_the_bundle(docker: Docker, upper: Path) -> None:
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", "upper:1"))
    manifest = json.loads((upper / "likewise.json").read_bytes())
    assert labels["likewise.bundle"] == manifest["digest"]
    assert json.loads(labels["likewise.signature"]) == manifest["content"]["signature"]
    assert json.loads(labels["likewise.schema"])["type"] == "array"


@pytest.mark.long
def test_podman_runs_the_image(upper: Path) -> None:
    with podman() as env:
        options = ["--with", "podman", "-p", str(free_port()), "--network", "host", "--detach", "--json"]
        started = json.loads(likewise("image", "run", "upper:1", *options, env=env).stdout)
        try:
            assert httpx.post(f"{started['url']}/invocations", json=EXAMPLE, timeout=60).status_code == 200
        finally:
            run(["podman", "rm", "--force", "--time", "10", started["container"]], env=env)


def test_dockerfile_builds_an_equivalent_image(docker: Docker, upper: Path, base: str, tmp_path: Path) -> None:
    stdout_of("image", "dockerfile", upper, "-o", tmp_path / "df", "--base", base, "--trust")
    docker("import", base, "base:1")
    docker("build", "--network=none", "--build-arg=BASE=base:1", "--tag=built:1", str(tmp_path / "df"))
    docker("image", "rm", "base:1")
    with isolated(docker, "--user=4711:4711", "built:1") as name:
        assert predictions_inside(docker, name, EXAMPLE) == ["A", "B"]


POINTS = [pytest.param(2, id="few"), pytest.param(20, id="many", marks=pytest.mark.long)]


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_build_leaves_nothing_that_the_next_one_does_not_remove(
    docker: Docker, upper: Path, base: str, image_store: Store, tmp_path: Path, number: signal.Signals, points: int
) -> None:
    def build(at: int | None = None) -> tuple[int, int]:
        command = ["image", "build", bundle, "-t", "killed:1", "--base", base, "--trust", "--oci", tmp_path / "layout"]
        return run_interrupted(command, tmp_path / "out", at=at, number=number)

    bundle = upper_bundle(tmp_path / "bundle", number.name)  # whose layer is not in the cache
    code, operations = build()
    assert code == 0, (tmp_path / "out.err").read_text()
    for at in moments(operations, points):
        shutil.rmtree(tmp_path / "layout")
        shutil.rmtree(bundle)
        upper_bundle(bundle, f"{number.name}{at}")
        code, _ = build(at)
        if code != 0:
            assert code in (-number, 130)
            if code == 130:
                assert not partial(tmp_path, image_store.folder.parent)
            if (tmp_path / "layout").exists():  # it was complete when the command was about to end
                assert (tmp_path / "layout" / "index.json").is_file()
                shutil.rmtree(tmp_path / "layout")
            assert build()[0] == 0, (tmp_path / "out.err").read_text()
        assert (tmp_path / "layout" / "index.json").is_file()
        assert not partial(tmp_path, image_store.folder.parent)


def partial(*folders: Path) -> list[Path]:
    """Files and folders that are not complete."""
    names = ("*likewise-new-*", "stage.*")
    return [path for folder in folders for name in names for path in folder.rglob(name)]


@pytest.mark.long
def test_deployment_to_sagemaker_is_rehearsed(docker: Docker, upper: Path, base: str, tmp_path: Path) -> None:
    """Build the image, push it to a real registry, pull it, start it as SageMaker does, query it, remove everything."""
    before = docker("ps", "--all", "--quiet")
    env = {**os.environ, "LIKEWISE_DATA_HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    arguments = ["deploy", upper, "--to", "sagemaker:/eu-west-1", "--name", "upper", "--trust", "--rehearse"]
    document = json.loads(likewise(*arguments, "-C", f"base_image={base}", "--json", env=env).stdout)
    assert json.loads(document["answer"]) == {"predictions": ["A", "B"]}
    assert document["receipt"]["target"].startswith("sagemaker:/eu-west-1?endpoint_url=http://127.0.0.1:")
    assert docker("ps", "--all", "--quiet") == before
    assert json.loads(likewise("list", "--json", env=env).stdout) == {"deployments": []}


@pytest.mark.long
def test_killed_rehearsal_leaves_nothing_after_the_next_one(
    docker: Docker, upper: Path, base: str, tmp_path: Path
) -> None:
    before = docker("ps", "--all", "--quiet")
    (tmp_path / "tmp").mkdir()
    home = {"LIKEWISE_DATA_HOME": str(tmp_path / "data"), "TMPDIR": str(tmp_path / "tmp")}
    env = {**os.environ, **home, "AWS_EC2_METADATA_DISABLED": "true"}
    arguments = ["deploy", upper, "--to", "sagemaker:/eu-west-1", "--name", "upper", "--trust", "--rehearse"]
    arguments += ["-C", f"base_image={base}"]
    with background([*LIKEWISE, *arguments, "--keep"], tmp_path / "log", env=env) as rehearsal:
        rehearsal.line("is available at")
        registries = children(rehearsal.pid, "docker-registry")
        assert registries
        rehearsal.stop(signal.SIGKILL)
    assert docker("ps", "--all", "--quiet") != before
    until(lambda: not any(map(alive, registries)))
    assert json.loads(likewise("list", "--json", env=env).stdout) == {"deployments": []}
    likewise(*arguments, env=env)
    assert docker("ps", "--all", "--quiet") == before
    assert [*(tmp_path / "tmp").iterdir()] == []


def test_container_that_does_not_become_ready_is_reported_and_removed(docker: Docker, upper: Path) -> None:
    arguments = ["image", "run", "upper:1", "-p", str(free_port()), "--network", "host", "--with", "docker"]
    completed = call(*arguments, "--option", "--env=LIKEWISE_ENGINE=none")
    assert completed.returncode == 1
    assert "no engine none" in completed.stderr
    assert docker("ps", "--all", "--quiet") == ""


def test_run_ends_with_ctrl_c_and_reports_a_container_that_ends_by_itself(docker: Docker, upper: Path) -> None:
    arguments = ["image", "run", "upper:1", "-p", str(free_port()), "--network", "host", "--with", "docker"]
    for kill in (False, True):
        with subprocess.Popen([*LIKEWISE, *arguments, "--json"], stdout=PIPE, stderr=PIPE, text=True) as process:
            assert process.stdout is not None
            container = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["container"]
            if kill:
                docker("kill", container)
            else:
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == int(kill)
        assert ("exited by itself" in errors) == kill
        assert docker("ps", "--all", "--quiet") == ""


def test_missing_container_engine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/socket")
    with pytest.raises(TargetUnavailable, match="docker"):
        find_engine("docker")
