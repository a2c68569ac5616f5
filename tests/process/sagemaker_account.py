"""An AWS account on this machine: the emulator, a role that SageMaker may be, and processes in the place of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from likewise.targets.sagemaker.emulator import rehearsal
from likewise.targets.sagemaker.emulator.processes import SERVE, ProcessRunner
from likewise.targets.sagemaker.emulator.server import Emulator
from likewise.targets.sagemaker.target import SageMakerTarget

REGION = "eu-west-1"
QUICK = """
import http.server, json, os, sys
how = os.environ.get("HOW", "well")
print("started to go", how, flush=True)
if how == "exits":
    sys.exit("there are no such weights")

class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(503 if how == "is never ready" else 200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, json.dumps([os.environ["LIKEWISE_BUNDLE"], body.decode()]).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Service).serve_forever()
"""
"""A container without a model, that starts at once; HOW in its environment says how it goes."""

TRUSTED = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}


@dataclass
class AwsAccount:
    """uri: of the target. role: ARN. target: one for all, as each reads AWS's models of its own."""

    emulator: Emulator
    uri: str
    role: str = ""

    def __post_init__(self) -> None:
        self.target = SageMakerTarget(self.uri)
        self._session = boto3.Session("a", "b", region_name=REGION)
        self._clients: dict[str, Any] = {}

    def client(self, service: str, region: str = REGION) -> Any:
        """Another's view of it."""
        key = f"{service} {region}"
        if key not in self._clients:
            config = Config(s3={"addressing_style": "path"}, user_agent_extra="likewise-rehearsal")  # not counted
            self._clients[key] = self._session.client(service, region, endpoint_url=self.emulator.url, config=config)
        return self._clients[key]

    def options(self, image: str) -> dict[str, str]:
        """Of a deployment of one of the images."""
        return {"image_url": image, "execution_role_arn": self.role, "timeout_seconds": "60"}

    def left(self) -> list[str]:
        """All that stands there of any deployment."""
        sagemaker, scaling = self.client("sagemaker"), self.client("application-autoscaling")
        lists = (("list_endpoints", "Endpoint"), ("list_endpoint_configs", "EndpointConfig"), ("list_models", "Model"))
        found = [
            each[f"{kind}Name"] for operation, kind in lists for each in getattr(sagemaker, operation)()[f"{kind}s"]
        ]
        scaled = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return found + [each["ResourceId"] for each in scaled] + self.objects()

    def objects(self) -> list[str]:
        """The objects of all buckets."""
        s3 = self.client("s3")
        names = [each["Name"] for each in s3.list_buckets()["Buckets"]]
        return [each["Key"] for name in names for each in s3.list_objects_v2(Bucket=name).get("Contents", [])]


class AnyImage(Mapping[str, Mapping[str, str]]):
    """Every image holds the bundle whose folder `folders` names, by the image's name."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def __getitem__(self, image: str) -> Mapping[str, str]:
        return {"LIKEWISE_BUNDLE": str(self._folders[image])}

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


@contextmanager
def aws_account(
    images: Mapping[str, Path],
    set_environment: Callable[[str, str], None],
    *,
    quick: bool = False,
    every: Mapping[str, str] | None = None,
) -> Iterator[AwsAccount]:
    """The account, until the end of `with`. images: the bundle's folder of each image; quick: by the service above.

    every: the environment of any other image, None where there is no other.
    """
    settings = {
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
        "AWS_SECRET_ACCESS_KEY": "kept-to-itself",
    }
    for name, value in {**settings, "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": REGION}.items():
        set_environment(name, value)
    command = (sys.executable, "-c", QUICK) if quick else SERVE
    with rehearsal(ProcessRunner(AnyImage(images), command, every=every), most_wait_s=20 if quick else 60) as emulator:
        account = AwsAccount(emulator, f"sagemaker:/{REGION}?endpoint_url={emulator.url}")
        policy = json.dumps({"Version": "2012-10-17", "Statement": [TRUSTED]})
        made = account.client("iam").create_role(RoleName="serving", AssumeRolePolicyDocument=policy)
        account.role = made["Role"]["Arn"]
        yield account
