"""Real images in real containers: assembled twice, looked through, started, asked, stopped."""

from __future__ import annotations

import json
import os
import pickletools
import re
import secrets
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
import pandas as pd
import pytest
from tests.support.cli import call
from tests.support.containers.daemon import Docker, podman
from tests.support.containers.images import small_base
from tests.support.containers.registry import registry
from tests.support.containers.shared import Containers
from tests.support.processes import free_port, likewise, run, until
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
ASK = """
import json, sys, time, urllib.error, urllib.request
until = time.monotonic() + 120
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:8080/ready")
        break
    except (urllib.error.URLError, OSError):
        if time.monotonic() > until:
            raise
        time.sleep(0.02)
body, kind = sys.stdin.buffer.read(), {"content-type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8080/invocations", body, kind)
print(urllib.request.urlopen(request).read().decode())
"""


@pytest.fixture(scope="module")
def docker(containers: Containers) -> Iterator[Docker]:
    """The daemon that commands find, with the base and the environments of both images below."""
    with containers.used("testing", "openvino") as docker:
        yield docker
        docker.remove_images()


@pytest.fixture(scope="module")
def image_store(containers: Containers) -> Store:
    """The images that lie here."""
    return containers.cache.store


@pytest.fixture(scope="module")
def base(containers: Containers) -> str:
    """Debian with its Python."""
    return str(containers.cache.base)


@pytest.fixture(scope="module")
def demo(docker: Docker, base: str, store: Demo) -> Path:
    """The bundle of the chapter's pipeline, of which the image `demo:1` is made."""
    good("image", "build", store.bundle, "-t", "demo:1", "--base", base)
    return store.bundle


@pytest.fixture(scope="module")
def upper(docker: Docker, base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that answers in capitals, of which the image `upper:1` is made, the same that Docker has."""
    bundle = upper_bundle(tmp_path_factory.mktemp("bundles") / "upper", "")
    with open_bundle(bundle, trust=True) as opened:
        manifest = opened.manifest
    (bundle / "model" / "serving_input_example.json").write_text(json.dumps(EXAMPLE))
    write_manifest(bundle, manifest)
    good("image", "build", bundle, "-t", "upper:1", "--base", base, "--trust")
    with running(docker, "upper:1"):
        pass
    return bundle


def good(*words: str | Path) -> str:
    """What the command writes; it must not fail."""
    done = call(*words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@contextmanager
def running(docker: Docker, image: str) -> Iterator[tuple[str, str]]:
    """The URL and the name of a container, on this machine's network."""
    words = ["-p", str(free_port()), "--network", "host", "--with", "docker", "--detach", "--json"]
    started = json.loads(good("image", "run", image, *words))
    try:
        yield started["url"], started["container"]
    finally:
        docker("rm", "--force", started["container"])


@contextmanager
def cut_off(docker: Docker, *arguments: str) -> Iterator[str]:
    """The name of a container without a network on a read-only disk."""
    name = docker("run", "--detach", "--network=none", "--read-only", *arguments)
    try:
        yield name
    finally:
        docker("rm", "--force", name)


def asked(docker: Docker, name: str, body: object) -> object:
    """The predictions of a container, asked from its inside."""
    answer = docker("exec", "-i", name, "python", "-c", ASK, stdin=json.dumps(body))
    return json.loads(answer)["predictions"]


def answers(bundle: Path, texts: list[str]) -> object:
    """What the bundle itself answers."""
    with open_bundle(bundle, engine="openvino") as opened:
        return json.loads(opened.predict(pd.DataFrame({"text": texts})).to_json(orient="records"))


# --- the chapter's model ---------------------------------------------------------------------------------------------


def test_as_any_user_on_a_read_only_disk_without_network_it_gives_the_bundles_answers(
    docker: Docker, demo: Path
) -> None:
    with running(docker, "demo:1"):
        pass  # now Docker has it
    user = f"{10_000 + secrets.randbelow(50_000)}:{10_000 + secrets.randbelow(50_000)}"
    with cut_off(docker, f"--user={user}", "--cap-drop=ALL", "demo:1", "serve") as name:
        assert asked(docker, name, {"inputs": TEXTS}) == answers(demo, TEXTS)
        docker("stop", "--time", "30", name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"


@pytest.mark.parametrize("rows", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_many_rows_are_answered_as_by_the_bundle(docker: Docker, demo: Path, rows: int) -> None:
    texts = list(dict.fromkeys(review.text for review in reviews()))[:rows]
    assert len(texts) == rows
    found = []
    with running(docker, "demo:1") as (url, _):
        for at in range(0, rows, 100):
            body = {"inputs": texts[at : at + 100]}
            found += httpx.post(f"{url}/invocations", json=body, timeout=120).json()["predictions"]
    assert found == answers(demo, texts)


def members(store: Store, name: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """What the image's own two layers hold: each member, and how it begins where it is a file."""
    for layer in store.document(store.find(name))["layers"][-2:]:
        with tarfile.open(store.path(Descriptor.parse(layer).digest)) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                yield member, b"" if stream is None else stream.read(4096)


def test_nothing_is_in_it_that_should_not_be(image_store: Store, demo: Path) -> None:
    telling = re.compile(
        r"(?i)(^|/)(\.aws|\.netrc|\.pypirc|\.docker|\.cache|\.git|id_rsa|pip|setuptools|credentials)(/|$|\.json$)"
    )
    names = []
    for member, head in members(image_store, "demo:1"):
        names.append(member.name)
        assert (member.uid, member.gid, member.mtime, member.mode & 0o022) == (0, 0, 0, 0) or member.issym()
        if "/bundle/model/" not in member.name:
            assert not member.name.endswith((".pkl", ".pickle", ".pt")), member.name
            assert not is_pickle(head), member.name
    assert not [name for name in names if telling.search(name)]
    assert "opt/likewise/bundle/likewise.json" in names
    text = json.dumps(
        image_store.document(Descriptor.parse(image_store.document(image_store.find("demo:1"))["config"]))
    )
    assert not re.search(r"(?i)mlflow_|sqlite|https?://(?!json-schema)|password|token_file|AKIA", text)


def is_pickle(head: bytes) -> bool:
    """Whether it begins with the opcodes of a pickle of protocol 2 or newer."""
    if head[:1] != b"\x80" or head[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return False
    try:
        return len([1 for _ in zip(pickletools.genops(head), range(3), strict=False)]) == 3
    except ValueError:
        return False


@pytest.mark.long
def test_an_image_for_arm64_has_no_file_for_another_cpu(image_store: Store, demo: Path, tmp_path: Path) -> None:
    base = small_base(tmp_path / "arm.tar", machine=183)
    good("image", "build", demo, "-t", "arm:1", "--platform", "linux/arm64", "--base", base)
    seen = 0
    for member, head in members(image_store, "arm:1"):
        machine = machine_of(head)
        assert machine in (None, 183), member.name
        seen += machine is not None
    assert seen > 20
    done = call("image", "run", "arm:1", "-p", str(free_port()))
    assert done.returncode == 1
    assert "ENGINE_UNAVAILABLE" in done.stderr


@pytest.mark.long
def test_the_chapters_six_steps_walk_through_a_rehearsal(docker: Docker, demo: Path, base: str, tmp_path: Path) -> None:
    """The script as it stands, with the AWS CLI where the machine has it."""
    script = Path(__file__).parents[2] / "examples" / "sentiment" / "sagemaker" / "six_steps.sh"
    aws = os.environ.get("LIKEWISE_TEST_AWS") or shutil.which("aws")
    path = [*([os.path.dirname(aws)] if aws else []), os.path.dirname(sys.executable), os.environ["PATH"]]
    own = {"LIKEWISE_DATA_HOME": str(tmp_path), "PORT": str(free_port()), "NETWORK": "host"}
    env = {**os.environ, **own, "PATH": os.pathsep.join(path)}
    done = likewise("rehearse", "sagemaker:/eu-west-1", "--", script, demo, "--base", base, env=env)
    assert re.findall(r"^# (\d)", done.stderr, re.MULTILINE) == ["1", "3", "4", "5", "6"]
    labels = re.findall(r'prediction_label\\*": \[\\*"(\w+)', done.stdout)
    assert len(labels) == (6 if aws else 4)
    assert set(labels) <= {"positive", "negative"}
    assert re.search(r"@sha256:[0-9a-f]{64}", done.stdout)
    assert docker("ps", "--all", "--quiet") == ""
    assert json.loads(likewise("list", "--json", env=env).stdout) == {"deployments": []}


# --- any model -------------------------------------------------------------------------------------------------------


def test_sigterm_under_load_loses_nothing_that_was_accepted(docker: Docker, upper: Path) -> None:
    """A caller is answered, told to come again, or finds nobody; none is cut off."""
    seen: Counter[str] = Counter()

    def ask(url: str, caller: int) -> None:
        for number in count():
            try:
                answer = httpx.post(f"{url}/invocations", json={"inputs": [f"{caller} {number}"]}, timeout=120)
                seen[str(answer.status_code)] += 1
            except httpx.ConnectError:
                seen["refused"] += 1
                return
            except httpx.HTTPError as error:
                seen[repr(error)] += 1

    with running(docker, "upper:1") as (url, container), ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, url, caller) for caller in range(8)]
        until(lambda: seen["200"] > 50)
        docker("stop", "--time", "60", container)
        wait(asking)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    assert seen["refused"] == 8
    assert set(seen) <= {"200", "503", "refused"}, seen


def test_docker_is_given_only_the_layers_that_it_lacks(
    docker: Docker, image_store: Store, upper: Path, base: str, tmp_path: Path
) -> None:
    """Another model in the same environment, whose layer cannot be read meanwhile."""
    other = tmp_path / "bundle"
    shutil.copytree(upper, other)
    with (other / "model" / "serving_input_example.json").open("a") as stream:
        stream.write("\n")
    write_manifest(other, open_bundle(upper, trust=True).manifest)
    good("image", "build", other, "-t", "upper:2", "--base", base, "--trust")
    environment = image_store.path(image_store.document(image_store.find("upper:2"))["layers"][-2]["digest"])
    away = environment.rename(tmp_path / "away")
    try:
        with running(docker, "upper:2") as (url, _):
            assert httpx.get(f"{url}/ready").status_code == 200
    finally:
        away.rename(environment)


def test_the_serve_program_is_on_the_path(docker: Docker, upper: Path) -> None:
    with cut_off(docker, "--entrypoint=serve", "upper:1") as name:
        assert asked(docker, name, EXAMPLE) == ["A", "B"]


def test_what_is_there_is_not_made_again(upper: Path, base: str) -> None:
    again = json.loads(good("image", "build", upper, "-t", "upper:3", "--base", base, "--trust", "--json"))
    assert [layer["made"] for layer in again["platforms"][0]["layers"].values()] == [False, False]


@pytest.fixture(scope="module")
def another_home(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has wheels, and nothing that was made of them."""
    home, own = tmp_path_factory.mktemp("another"), containers.cache.store.folder
    shutil.copytree(own / "wheels", home / "images" / "wheels", copy_function=os.link)
    (home / "images" / "known").mkdir()
    for lock in own.glob("known/lock-*.json"):
        shutil.copy(lock, home / "images" / "known")
    return home


@pytest.fixture
def another_store(another_home: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The images in it, which commands use."""
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(another_home))
    return Store()


def test_the_same_inputs_give_the_same_digest(
    image_store: Store, upper: Path, base: str, another_store: Store, tmp_path: Path
) -> None:
    moved = shutil.copytree(upper, tmp_path / "elsewhere" / "bundle")
    words = ["image", "build", moved, "-t", "other:2", "--base", base, "--trust", "--oci", tmp_path / "oci"]
    made = json.loads(good(*words, "--json"))
    assert made["digest"] == image_store.find("upper:1").digest
    assert all(layer["made"] for layer in made["platforms"][0]["layers"].values())
    index = json.loads((tmp_path / "oci" / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == made["digest"]


def test_a_base_is_pulled_from_a_registry(
    image_store: Store, upper: Path, another_store: Store, containers: Containers, tmp_path: Path
) -> None:
    """Any image with a Python: here our own, pushed there first. It is pulled once, and then only for `--pull`."""
    with registry(tmp_path / "registry") as address:
        base = f"{address}/bases/python:1"
        with containers.used():
            good("image", "push", "upper:1", base)
        words = ["image", "build", upper, "-t", "pulled:1", "--base", base, "--trust", "--json"]
        (made,) = json.loads(good(*words))["platforms"]
    assert made["base"] == {"name": base, "digest": image_store.find("upper:1").digest}
    image = another_store.find("pulled:1")
    layers = another_store.document(image)["layers"]
    assert layers[:-2] == image_store.document(image_store.find("upper:1"))["layers"]
    again = json.loads(good(*words))  # the registry is gone
    assert again["digest"] == image.digest


def test_the_labels_tell_what_is_in_it(docker: Docker, upper: Path) -> None:
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", "upper:1"))
    manifest = json.loads((upper / "likewise.json").read_bytes())
    assert labels["likewise.bundle"] == manifest["digest"]
    assert json.loads(labels["likewise.signature"]) == manifest["content"]["signature"]
    assert json.loads(labels["likewise.schema"])["type"] == "array"


@pytest.mark.long
def test_podman_runs_it_too(upper: Path) -> None:
    with podman() as env:
        words = ["--with", "podman", "-p", str(free_port()), "--network", "host", "--detach", "--json"]
        started = json.loads(likewise("image", "run", "upper:1", *words, env=env).stdout)
        try:
            assert httpx.post(f"{started['url']}/invocations", json=EXAMPLE, timeout=60).status_code == 200
        finally:
            run(["podman", "rm", "--force", "--time", "10", started["container"]], env=env)


def test_the_dockerfile_builds_what_answers_alike(docker: Docker, upper: Path, base: str, tmp_path: Path) -> None:
    good("image", "dockerfile", upper, "-o", tmp_path / "df", "--base", base, "--trust")
    docker("import", base, "base:1")
    docker("build", "--network=none", "--build-arg=BASE=base:1", "--tag=built:1", str(tmp_path / "df"))
    docker("image", "rm", "base:1")
    with cut_off(docker, "--user=4711:4711", "built:1") as name:
        assert asked(docker, name, EXAMPLE) == ["A", "B"]


def test_a_deployment_to_sagemaker_is_rehearsed(docker: Docker, upper: Path, base: str, tmp_path: Path) -> None:
    """Image made, pushed to a real registry, pulled from it, started as SageMaker does, asked, and nothing is left."""
    before = docker("ps", "--all", "--quiet")
    env = {**os.environ, "LIKEWISE_DATA_HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    words = ["deploy", upper, "--to", "sagemaker:/eu-west-1", "--name", "upper", "--trust", "--rehearse"]
    done = json.loads(likewise(*words, "-C", f"base_image={base}", "--json", env=env).stdout)
    assert json.loads(done["answer"]) == {"predictions": ["A", "B"]}
    assert done["receipt"]["target"].startswith("sagemaker:/eu-west-1?endpoint_url=http://127.0.0.1:")
    assert docker("ps", "--all", "--quiet") == before
    assert json.loads(likewise("list", "--json", env=env).stdout) == {"deployments": []}


def test_a_container_that_does_not_become_ready_is_told_and_taken_away(docker: Docker, upper: Path) -> None:
    words = ["image", "run", "upper:1", "-p", str(free_port()), "--network", "host", "--with", "docker"]
    done = call(*words, "--option", "--env=LIKEWISE_ENGINE=none")
    assert done.returncode == 1
    assert "no engine none" in done.stderr
    assert docker("ps", "--all", "--quiet") == ""


def test_where_nothing_runs_containers_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/socket")
    with pytest.raises(TargetUnavailable, match="docker"):
        find_engine("docker")
