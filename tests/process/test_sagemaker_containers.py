"""The local SageMaker with real containers: an image is pulled from a real registry and started cut off."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.process.container_room import PATIENCE, until, upper_bundle
from tests.process.emulator_room import Room, gone, log_of, role_of

import likewise
from likewise.targets.sagemaker.emulator import ContainerRunner, rehearsal

pytestmark = pytest.mark.slow
SMALL = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")  # where the machine allows no more itself
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}
FOLDERS = ("usr", "etc", "opt", "proc", "sys", "dev", "tmp", "run", "var")
SETTINGS = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: 127.0.0.1:{port}}}
log: {{level: error, accesslog: {{disabled: true}}}}
"""


def bare_image() -> bytes:
    """A root file system of empty folders: the tests mount this machine's Python into it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name, leads in LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, leads
            archive.addfile(link)
    return stream.getvalue()


def run(*command: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE, check=False)


@pytest.fixture(scope="module")
def program() -> Iterator[tuple[str, ...]]:
    """Podman or Docker, with the runtime that works here; skipped with what each of them said."""
    with TemporaryDirectory(prefix="lwp-") as folder:  # a short one: podman refuses a long runroot
        yield from working_program(folder)


def working_program(folder: str) -> Iterator[tuple[str, ...]]:
    told = []
    own = ("podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run")
    for candidate in (own, (*own, "--runtime", "runc"), ("docker",)):
        if shutil.which(candidate[0]) is None:
            told.append(f"{candidate[0]} is not installed")
            continue
        made = run(*candidate, "import", "-", "localhost/likewise-test:1", given=bare_image())
        tried = ("run", "--rm", "--network", "none", "--read-only", *SMALL, "--volume", "/usr:/usr:ro")
        done = made if made.returncode else run(*candidate, *tried, "localhost/likewise-test:1", "/usr/bin/true")
        if done.returncode == 0:
            yield candidate
            run(*candidate, "rmi", "--force", "localhost/likewise-test:1")
            return
        told.append(f"{' '.join(candidate)}: {done.stderr.decode()[-300:]}")
    pytest.skip(f"this machine runs no container, so the rehearsal was seen with processes alone: {'; '.join(told)}")


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A real one on loopback: HOST:PORT."""
    server = shutil.which("docker-registry")
    if server is None:
        pytest.skip("no registry is here, so no image was pulled: apt-get install docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config.yml").write_text(SETTINGS.format(folder=folder / "data", port=port))
    process = subprocess.Popen([server, "serve", str(folder / "config.yml")], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def mounted(bundle: Path) -> list[str]:
    """This machine's Python and packages, at their own paths, and the bundle where an image has it."""
    source = Path(likewise.__file__).parents[1]
    places = {Path("/usr"), Path("/etc"), Path(sys.base_prefix), Path(sys.prefix), source}
    places.add(Path(sysconfig.get_path("platlib")))
    inner = {place for place in places if not any(other in place.parents for other in places)}
    options = [f"--volume={place}:{place}:ro" for place in sorted(inner)]
    entry = f'["{sys.executable}", "-m", "likewise.container"]'
    return [*SMALL, *options, f"--volume={bundle}:/opt/likewise/bundle:ro", f"--entrypoint={entry}"]


@pytest.fixture(scope="module")
def room(program: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("containers")
    bundle = upper_bundle(folder / "upper", "c:", loading="isolated()")
    with registry(folder) as address:
        image = f"{address}/team/upper:1"
        assert run(*program, "tag", "localhost/likewise-test:1", image).returncode == 0
        plain = ["--tls-verify=false"] if program[0] == "podman" else []
        pushed = run(*program, "push", *plain, image)
        assert pushed.returncode == 0, pushed.stderr.decode()
        run(*program, "rmi", image)
        runner = ContainerRunner(program, mounted(bundle.path))
        with rehearsal(runner, registry=address, most_wait_s=PATIENCE) as emulator:
            made = Room(emulator, "", folder)
            made.role = role_of(made, "deployer")
            yield made
        assert run(*program, "ps", "--all", "--quiet", "--filter", f"ancestor={image}").stdout == b""
        run(*program, "rmi", "--force", image)


def image_of(room: Room, name: str = "upper") -> str:
    """As ECR says it."""
    made = room.client("ecr").create_repository(repositoryName=f"team/{name}")["repository"]
    return f"{made['repositoryUri']}:1"


def test_a_container_is_pulled_started_cut_off_and_answers(room: Room) -> None:
    image = image_of(room)
    told = room.client("ecr").describe_images(repositoryName="team/upper")["imageDetails"]
    assert [each["imageTags"] for each in told] == [["1"]]
    room.model("real", image, Environment={"LIKEWISE_TRUST": "true"})
    room.config("real")
    said = room.endpoint("real")
    assert said["EndpointStatus"] == "InService", said["FailureReason"]
    assert room.ask("real")["Body"] == b'{"predictions":["c:A"]}'
    if os.geteuid() == 0:
        assert room.emulator.caution is None
    gone(room, "real")
    assert any("ready at" in line for line in log_of(room, "real"))


def test_an_image_that_the_registry_does_not_have(room: Room) -> None:
    room.model("nowhere", image_of(room, "nowhere"))
    room.config("nowhere")
    said = room.endpoint("nowhere")
    assert said["EndpointStatus"] == "Failed"
    assert "cannot be pulled" in said["FailureReason"]


def test_a_container_that_ends_tells_its_last_lines(room: Room) -> None:
    image = image_of(room, "other").replace("team/other", "team/upper")
    room.model("untrusted", image)
    room.config("untrusted")
    said = room.endpoint("untrusted")
    assert said["EndpointStatus"] == "Failed"
    assert "CODE_NOT_TRUSTED" in said["FailureReason"]
