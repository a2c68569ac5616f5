"""The environment of a rehearsal: the emulator for AWS, a real registry for ECR, and an execution role."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from likewise.core.errors import TargetUnavailable
from likewise.core.processes import bound
from likewise.core.scratch import scratch_folder
from likewise.targets.base import Stage
from likewise.targets.sagemaker.address import ENDPOINT, SageMakerAddress
from likewise.targets.sagemaker.aws import Aws

REGISTRY = "LIKEWISE_REHEARSAL_REGISTRY"
REGION = "us-east-1"
ROLE = "likewise-rehearsal"
START_S = 30.0
_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{level: error, accesslog: {{disabled: true}}}}
"""
_TRUST_STATEMENT = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}


@contextmanager
def stage(at: SageMakerAddress) -> Iterator[Stage]:
    """Start the environment; at the end of `with`, all containers, the registry and the account are removed.

    Raises TargetUnavailable (no container engine, no registry), MissingExtra.
    """
    from likewise.images.containers import find_engine
    from likewise.targets.sagemaker.emulator import ContainerRunner, Emulator, rehearsal, tls_context

    runner = ContainerRunner([find_engine().program])
    runner.remove_abandoned()
    with scratch_folder("likewise-scratch-rehearsal-") as folder, _registry() as registry:
        tls, trusted = tls_context(folder, at.region or REGION)
        with rehearsal(Emulator(runner, registry, tls=tls)) as emulator:
            own = SageMakerAddress(at.region or REGION, endpoint=emulator.url)
            policy = json.dumps({"Version": "2012-10-17", "Statement": [_TRUST_STATEMENT]})
            role = Aws(own).call("iam", "create_role", RoleName=ROLE, AssumeRolePolicyDocument=policy)["Role"]["Arn"]
            variables = environment(own, role, trusted)
            yield Stage(own.uri, {"execution_role_arn": role}, emulator.url, variables, runner.cautions)


def environment(own: SageMakerAddress, role: str, trusted: Path) -> dict[str, str]:
    """Environment variables that point AWS tools to the emulator, with credentials of the role.

    Requests to AWS's own addresses, too, reach the emulator: it is their proxy.  trusted: its certificate.
    """
    proxies = {"https_proxy": str(own.endpoint), "no_proxy": ",".join(["127.0.0.1", "localhost", *_direct()])}
    keys = Aws(own).call("sts", "assume_role", RoleArn=role, RoleSessionName=ROLE)["Credentials"]
    return {
        ENDPOINT: str(own.endpoint),
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
        "AWS_REGION": own.named_region,
        "AWS_DEFAULT_REGION": own.named_region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CA_BUNDLE": str(trusted),
        **proxies,
        **{name.upper(): value for name, value in proxies.items()},
    }


def _direct() -> list[str]:
    """The hosts that the user excludes from proxies, but not AWS's."""
    hosts = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").replace(" ", "").split(",")
    return [host for host in hosts if host and host != "*" and "amazonaws" not in host]


@contextmanager
def _registry() -> Iterator[str]:
    """HOST:PORT of the user's registry, or of a temporary one that is started."""
    if configured := os.environ.get(REGISTRY):
        yield configured
        return
    program = shutil.which("docker-registry")
    if program is None:
        raise TargetUnavailable(
            "there is no container registry that can take the place of ECR",
            remedy=f"run: apt-get install docker-registry, or start one and set {REGISTRY}=127.0.0.1:PORT",
        )
    with socket.socket() as probe, scratch_folder("likewise-scratch-registry-") as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = folder / "config.yml"
        config.write_text(_CONFIG.format(folder=folder / "data", port=port))
        log = folder / "log"
        with (
            log.open("wb") as stream,
            subprocess.Popen(bound([program, "serve", str(config)]), stderr=stream) as process,
        ):
            try:
                _wait_for(port, process, log)
                yield f"127.0.0.1:{port}"
            finally:
                process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            output = log.read_text(errors="replace").strip()[-300:]
            raise TargetUnavailable(f"docker-registry does not start: {output}", remedy=f"fix it, or set {REGISTRY}")
        time.sleep(0.02)
