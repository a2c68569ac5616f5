"""A real image of the chapter's model in real containers: assembled twice, looked through, started, asked, stopped."""

from __future__ import annotations

import json
import os
import pickletools
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from tests.conformance.container_place import docker_daemon, until
from tests.images.image_room import base_tar, free_port, likewise, need_program, registry
from tests.support.sentiment_store import TEXTS
from tests.support.sentiment_store import Store as Models

from likewise.bundles.open import open_bundle
from likewise.bundles.write import write_manifest
from likewise.demo.data import reviews
from likewise.images.containers import find_engine
from likewise.images.layers import machine_of
from likewise.images.oci import Descriptor
from likewise.images.store import Store

pytestmark = pytest.mark.slow
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
BODY = json.dumps({"inputs": TEXTS})


@dataclass(frozen=True)
class Room:
    """What all tests here share."""

    folder: Path
    bundle: Path
    base: Path
    cache: Path
    env: dict[str, str]

    def likewise(self, *arguments: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = likewise(*arguments, cache=cache or self.cache, env=self.env)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    def docker(self, *arguments: str, text: str | None = None) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            input=text,
            capture_output=True,
            text=True,
            env={**os.environ, **self.env},
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def daemon() -> Iterator[dict[str, str]]:
    """A Docker daemon of our own, as the environment names it."""
    with docker_daemon() as made:
        yield {"DOCKER_HOST": made.host}


@pytest.fixture(scope="module")
def room(store: Models, daemon: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Room:
    """The chapter's bundle, a base with Debian's Python, and the image `demo:1` of both."""
    folder = tmp_path_factory.mktemp("images")
    cache = folder / "cache"
    done = subprocess.run(
        [sys.executable, "-m", "likewise.cli", "bundle", store.uri, "-o", str(folder / "bundle")],
        cwd=store.folder,
        env={**store.env, "LIKEWISE_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    program = need_program("mmdebstrap", "mmdebstrap")
    base = folder / "base.tar"
    command = [program, "--quiet", "--variant=minbase", "--include=python3,ca-certificates", "bookworm", str(base)]
    subprocess.run(command, check=True, timeout=600)
    made = Room(folder, folder / "bundle", base, cache, daemon)
    made.likewise("image", "build", str(made.bundle), "-t", "demo:1", "--base", str(base))
    return made


@pytest.fixture(scope="module")
def answer(room: Room) -> str:
    """What the bundle itself answers."""
    return of_bundle(room, BODY)


def of_bundle(room: Room, body: str) -> str:
    """In a process of its own."""
    code = (
        "import sys, json, pandas; from likewise import open_bundle;"
        "b = open_bundle(sys.argv[1], engine='openvino');"
        "print(b.predict(pandas.DataFrame({'text': json.load(sys.stdin)['inputs']})).to_json(orient='records'))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(room.bundle)], input=body, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@contextmanager
def running(room: Room, image: str = "demo:1") -> Iterator[tuple[str, str]]:
    """The URL and the name of its container, on this machine's network."""
    arguments = ["-p", str(free_port()), "--network", "host", "--with", "docker", "--detach", "--json"]
    said = json.loads(room.likewise("image", "run", image, *arguments).stdout)
    try:
        yield said["url"], said["container"]
    finally:
        room.docker("rm", "--force", said["container"])


def members(store: Store, name: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """What the image's own two layers hold: each member, and how it begins where it is a file."""
    for layer in store.document(store.find(name))["layers"][-2:]:
        with tarfile.open(store.path(Descriptor.parse(layer).digest)) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                yield member, b"" if stream is None else stream.read(4096)


def test_as_any_user_on_a_read_only_disk_without_network_it_gives_the_bundles_answers(room: Room, answer: str) -> None:
    room.likewise("image", "run", "demo:1", "-p", str(free_port()), "--network", "host", "--with", "docker", "--detach")
    room.docker("rm", "--force", room.docker("ps", "--quiet"))
    user = f"{10_000 + secrets.randbelow(50_000)}:{10_000 + secrets.randbelow(50_000)}"
    safe = ["--network=none", "--read-only", f"--user={user}", "--cap-drop=ALL"]
    name = room.docker("run", "--detach", *safe, "demo:1", "serve")
    said = json.loads(room.docker("exec", "-i", name, "python", "-c", ASK, text=BODY))
    assert said["predictions"] == json.loads(answer)
    room.docker("stop", "--time", "30", name)
    assert room.docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    room.docker("rm", name)


def test_two_thousand_rows_are_answered_as_by_the_bundle(room: Room) -> None:
    texts = list(dict.fromkeys(review.text for review in reviews()))[:2000]
    assert len(texts) == 2000
    said = []
    with running(room) as (url, _):
        for at in range(0, 2000, 100):
            body = {"inputs": texts[at : at + 100]}
            said += httpx.post(f"{url}/invocations", json=body, timeout=120).json()["predictions"]
    assert said == json.loads(of_bundle(room, json.dumps({"inputs": texts})))


def test_sigterm_under_load_loses_nothing_that_was_accepted(room: Room) -> None:
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

    with running(room) as (url, container), ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, url, caller) for caller in range(8)]
        until(lambda: seen["200"] > 50)
        room.docker("stop", "--time", "60", container)
        wait(asking)
        assert room.docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    assert seen["refused"] == 8
    assert set(seen) <= {"200", "503", "refused"}, seen


def test_docker_is_given_only_the_layers_that_it_lacks(room: Room, tmp_path: Path) -> None:
    """Another model in the same environment, whose layer cannot be read meanwhile."""
    with running(room):
        pass
    other = tmp_path / "bundle"
    shutil.copytree(room.bundle, other)
    with (other / "model" / "serving_input_example.json").open("a") as stream:
        stream.write("\n")
    write_manifest(other, open_bundle(room.bundle).manifest)
    room.likewise("image", "build", str(other), "-t", "demo:3", "--base", str(room.base))
    store = Store(room.cache / "images")
    environment = store.path(store.document(store.find("demo:3"))["layers"][-2]["digest"])
    away = environment.rename(tmp_path / "away")
    try:
        with running(room, "demo:3") as (url, _):
            assert httpx.get(f"{url}/ready").status_code == 200
    finally:
        away.rename(environment)


def test_the_serve_program_is_on_the_path(room: Room) -> None:
    name = room.docker("run", "--detach", "--network=none", "--read-only", "--entrypoint=serve", "demo:1")
    assert json.loads(room.docker("exec", "-i", name, "python", "-c", ASK, text=BODY))["predictions"]
    room.docker("rm", "--force", name)


def test_the_same_inputs_give_the_same_digest(room: Room, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "bundle"
    moved.parent.mkdir()
    subprocess.run(["cp", "-r", str(room.bundle), str(moved)], check=True)
    arguments = [
        "image",
        "build",
        str(moved),
        "-t",
        "other:2",
        "--base",
        str(room.base),
        "--oci",
        str(tmp_path / "oci"),
    ]
    again = json.loads(room.likewise(*arguments, "--json", cache=tmp_path / "cache").stdout)
    assert again["digest"] == Store(room.cache / "images").find("demo:1").digest
    index = json.loads((tmp_path / "oci" / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == again["digest"]


def test_what_is_there_is_not_made_again(room: Room) -> None:
    again = json.loads(
        room.likewise("image", "build", str(room.bundle), "-t", "demo:2", "--base", str(room.base), "--json").stdout
    )
    assert [layer["made"] for layer in again["platforms"][0]["layers"].values()] == [False, False]


def test_nothing_is_in_it_that_should_not_be(room: Room) -> None:
    store = Store(room.cache / "images")
    told = re.compile(
        r"(?i)(^|/)(\.aws|\.netrc|\.pypirc|\.docker|\.cache|\.git|id_rsa|pip|setuptools|credentials)(/|$|\.json$)"
    )
    names = []
    for member, head in members(store, "demo:1"):
        names.append(member.name)
        assert (member.uid, member.gid, member.mtime, member.mode & 0o022) == (0, 0, 0, 0) or member.issym()
        if "/bundle/model/" not in member.name:
            assert not member.name.endswith((".pkl", ".pickle", ".pt")), member.name
            assert not is_pickle(head), member.name
    assert not [name for name in names if told.search(name)]
    assert "opt/likewise/bundle/likewise.json" in names
    text = json.dumps(store.document(Descriptor.parse(store.document(store.find("demo:1"))["config"])))
    assert not re.search(r"(?i)mlflow_|sqlite|https?://(?!json-schema)|password|token_file|AKIA", text)


def is_pickle(head: bytes) -> bool:
    """Whether it begins with the opcodes of a pickle of protocol 2 or newer."""
    if head[:1] != b"\x80" or head[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return False
    try:
        return len([1 for _ in zip(pickletools.genops(head), range(3), strict=False)]) == 3
    except ValueError:
        return False


def test_the_labels_tell_what_is_in_it(room: Room) -> None:
    room.likewise("image", "run", "demo:1", "-p", str(free_port()), "--network", "host", "--with", "docker", "--detach")
    room.docker("rm", "--force", room.docker("ps", "--quiet"))
    labels = json.loads(room.docker("image", "inspect", "--format", "{{json .Config.Labels}}", "demo:1"))
    manifest = json.loads((room.bundle / "likewise.json").read_bytes())
    assert labels["likewise.bundle"] == manifest["digest"]
    assert json.loads(labels["likewise.signature"]) == manifest["content"]["signature"]
    assert json.loads(labels["likewise.schema"])["type"] == "array"


def test_podman_runs_it_too(room: Room) -> None:
    """With folders of its own and the runtime that works in more places."""
    need_program("podman", "podman")
    with TemporaryDirectory(prefix="lwp-") as name:  # a short one: podman refuses a long runroot
        engine, storage = Path(name, "containers.conf"), Path(name, "storage.conf")
        engine.write_text('[engine]\nruntime = "runc"\n')
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{name}/root"\nrunroot = "{name}/run"\n')
        own = {"CONTAINERS_CONF": str(engine), "CONTAINERS_STORAGE_CONF": str(storage)}
        there = replace(room, env={**room.env, **own})
        small = [f"--option=--ulimit={limit}=1024:1024" for limit in ("nofile", "nproc")]
        arguments = ["--with", "podman", "-p", str(free_port()), "--network", "host", "--detach", *small, "--json"]
        said = json.loads(there.likewise("image", "run", "demo:1", *arguments).stdout)
        try:
            assert httpx.post(f"{said['url']}/invocations", json={"inputs": TEXTS}, timeout=60).status_code == 200
        finally:
            podman = ["podman", "rm", "--force", "--time", "10", said["container"]]
            subprocess.run(podman, env={**os.environ, **own}, check=True, capture_output=True)
            subprocess.run(["umount", f"{name}/root/overlay"], capture_output=True)  # it leaves this one mounted


def test_an_image_for_arm64_has_no_file_for_another_cpu(room: Room, tmp_path: Path) -> None:
    base = base_tar(tmp_path / "arm.tar", machine=183)
    room.likewise("image", "build", str(room.bundle), "-t", "arm:1", "--platform", "linux/arm64", "--base", str(base))
    seen = 0
    for member, head in members(Store(room.cache / "images"), "arm:1"):
        machine = machine_of(head)
        assert machine in (None, 183), member.name
        seen += machine is not None
    assert seen > 20
    done = likewise("image", "run", "arm:1", "-p", str(free_port()), cache=room.cache, env=room.env)
    assert done.returncode == 1
    assert "ENGINE_UNAVAILABLE" in done.stderr


def test_the_dockerfile_builds_what_answers_alike(room: Room, answer: str, tmp_path: Path) -> None:
    room.likewise("image", "dockerfile", str(room.bundle), "-o", str(tmp_path / "df"), "--base", str(room.base))
    room.docker("import", str(room.base), "base:1")
    room.docker("build", "--network=none", "--build-arg=BASE=base:1", "--tag=built:1", str(tmp_path / "df"))
    name = room.docker("run", "--detach", "--network=none", "--read-only", "--user=4711:4711", "built:1")
    said = json.loads(room.docker("exec", "-i", name, "python", "-c", ASK, text=BODY))
    room.docker("rm", "--force", name)
    assert said["predictions"] == json.loads(answer)


def test_a_base_is_pulled_from_a_registry(room: Room, tmp_path: Path) -> None:
    """Any image with a Python: here our own, pushed there first. It is pulled once, and then only for `--pull`."""
    with registry(tmp_path / "registry") as address:
        base = f"{address}/bases/python:1"
        room.likewise("image", "push", "demo:1", base)
        command = ["image", "build", str(room.bundle), "-t", "pulled:1", "--base", base, "--json"]
        (made,) = json.loads(room.likewise(*command, cache=tmp_path / "cache").stdout)["platforms"]
    own = Store(room.cache / "images")
    assert made["base"] == {"name": base, "digest": own.find("demo:1").digest}
    there = Store(tmp_path / "cache" / "images")
    layers = there.document(there.find("pulled:1"))["layers"]
    assert layers[:-2] == own.document(own.find("demo:1"))["layers"]
    again = json.loads(room.likewise(*command, cache=tmp_path / "cache").stdout)  # the registry is gone
    assert again["digest"] == there.find("pulled:1").digest


def test_a_deployment_to_sagemaker_is_rehearsed(room: Room, tmp_path: Path) -> None:
    """Image made, pushed to a real registry, pulled from it, started as SageMaker does, asked, and nothing is left."""
    need_program("docker-registry", "docker-registry")
    before = room.docker("ps", "--all", "--quiet")
    data = {"LIKEWISE_DATA_HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    there = replace(room, env={**room.env, **data})
    command = ("deploy", str(room.bundle), "--to", "sagemaker:/eu-west-1", "--name", "dl-sentiment-model", "--rehearse")
    said = json.loads(there.likewise(*command, "-C", f"base_image={room.base}", "--json").stdout)
    example = json.loads((room.bundle / "model" / "serving_input_example.json").read_bytes())
    answered = json.loads(said["answer"])["predictions"]
    assert len(answered) == len(example["dataframe_split"]["data"])
    assert {json.loads(row["text"])["response"]["prediction_label"][0] for row in answered} <= {"positive", "negative"}
    assert said["receipt"]["target"].startswith("sagemaker:/eu-west-1?endpoint_url=http://127.0.0.1:")
    assert room.docker("ps", "--all", "--quiet") == before
    assert json.loads(there.likewise("list", "--json").stdout) == {"deployments": []}


def test_the_chapters_six_steps_walk_through_a_rehearsal(room: Room, tmp_path: Path) -> None:
    """The script as it stands, with the AWS CLI where the machine has it."""
    script = Path(__file__).parents[2] / "examples" / "sentiment" / "sagemaker" / "six_steps.sh"
    path = [os.path.dirname(sys.executable), os.environ["PATH"]]
    if named := os.environ.get("LIKEWISE_TEST_AWS"):
        path.insert(0, os.path.dirname(named))
    aws = shutil.which("aws", path=os.pathsep.join(path))
    own = {"LIKEWISE_DATA_HOME": str(tmp_path), "PORT": str(free_port()), "NETWORK": "host"}
    there = replace(room, env={**room.env, **own, "PATH": os.pathsep.join(path)})
    command = ("rehearse", "sagemaker:/eu-west-1", "--", str(script), str(room.bundle), "--base", str(room.base))
    done = there.likewise(*command)
    assert re.findall(r"^# (\d)", done.stderr, re.MULTILINE) == ["1", "3", "4", "5", "6"]
    labels = re.findall(r'prediction_label\\*": \[\\*"(\w+)', done.stdout)
    assert len(labels) == (6 if aws else 4)
    assert set(labels) <= {"positive", "negative"}
    assert re.search(r"@sha256:[0-9a-f]{64}", done.stdout)
    assert room.docker("ps", "--all", "--quiet") == ""
    assert json.loads(there.likewise("list", "--json").stdout) == {"deployments": []}


def test_a_container_that_does_not_become_ready_is_told_and_taken_away(room: Room) -> None:
    arguments = ["image", "run", "demo:1", "-p", str(free_port()), "--network", "host", "--with", "docker"]
    done = likewise(*arguments, "--option", "--env=LIKEWISE_ENGINE=none", cache=room.cache, env=room.env)
    assert done.returncode == 1
    assert "no engine none" in done.stderr
    assert room.docker("ps", "--all", "--quiet") == ""


def test_where_nothing_runs_containers_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/socket")
    from likewise.core.errors import TargetUnavailable

    with pytest.raises(TargetUnavailable, match="docker"):
        find_engine("docker")
