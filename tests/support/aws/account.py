"""One region of the emulator's account: clients, a role that SageMaker may assume, and what is left in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import boto3
import pytest
from botocore.config import Config

from likewise.targets.sagemaker.emulator import Emulator
from likewise.targets.sagemaker.emulator.account import AGENT
from likewise.targets.sagemaker.target import SageMakerTarget

REGION = "eu-west-1"  # where tests deploy
SAGEMAKER = "sagemaker.amazonaws.com"
SECRET = "kept-to-itself"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": REGION,
}
"""Of a process that is logged in."""
_SESSION = boto3.Session("test", "test")  # it reads a service's description once
_CREATING = threading.Lock()  # a session is not for several threads, its clients are


@contextmanager
def logged_in() -> Iterator[None]:
    """This process has ENVIRONMENT meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


class Account:
    """emulator: of all regions.  uri: of the target, as `--to` takes it.  role: the ARN of a role."""

    def __init__(self, emulator: Emulator, region: str) -> None:
        self.emulator, self.region = emulator, region
        self.uri = f"sagemaker:/{region}?endpoint_url={emulator.url}"
        self._clients: dict[str, Any] = {}
        self.role = self.make_role("serving")

    @cached_property
    def target(self) -> SageMakerTarget:
        """One for all tests, as each reads the descriptions of AWS's services anew."""
        return SageMakerTarget(self.uri)

    def client(self, service: str, region: str = "", *, counted: bool = False, **options: Any) -> Any:
        """boto3's client of a service.

        counted: its calls are recorded, and faults meet them; those of others are not.  options: of its configuration.
        """
        key = f"{service} {region} {counted} {options}"
        with _CREATING:
            if key not in self._clients:
                kept = {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}, **options}
                config = Config(user_agent_extra=None if counted else AGENT, **kept)
                url = self.emulator.url
                self._clients[key] = _SESSION.client(service, region or self.region, endpoint_url=url, config=config)
            return self._clients[key]

    def make_role(self, name: str, principal: str = SAGEMAKER) -> str:
        """The ARN of a role that `principal` may assume; one of this name may be there already."""
        iam = self.client("iam")
        statement = {"Effect": "Allow", "Principal": {"Service": principal}, "Action": "sts:AssumeRole"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        try:
            answer = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy)
        except iam.exceptions.EntityAlreadyExistsException:
            answer = iam.get_role(RoleName=name)
        return str(answer["Role"]["Arn"])

    def make_bucket(self, name: str) -> str:
        """A bucket in this region."""
        where = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        self.client("s3").create_bucket(Bucket=name, **({} if self.region == "us-east-1" else where))
        return name

    def drop_bucket(self, name: str) -> None:
        """Delete the bucket and what is in it."""
        s3 = self.client("s3")
        for each in s3.list_objects_v2(Bucket=name).get("Contents", []):
            s3.delete_object(Bucket=name, Key=each["Key"])
        s3.delete_bucket(Bucket=name)

    def options(self, image: str) -> dict[str, str]:
        """Of a deployment of an image."""
        return {"image_url": image, "execution_role_arn": self.role, "timeout_seconds": "60"}

    def left(self) -> list[str]:
        """All that is there of any deployment in this region."""
        sagemaker, scaling = self.client("sagemaker"), self.client("application-autoscaling")
        lists = (("list_endpoints", "Endpoint"), ("list_endpoint_configs", "EndpointConfig"), ("list_models", "Model"))
        found = [
            each[f"{kind}Name"] for operation, kind in lists for each in getattr(sagemaker, operation)()[f"{kind}s"]
        ]
        scaled = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return found + [each["ResourceId"] for each in scaled] + self.objects()

    def objects(self) -> list[str]:
        """The keys of all objects in this region."""
        s3 = self.client("s3")
        names = [each["Name"] for each in s3.list_buckets()["Buckets"]]
        here = [name for name in names if self._region_of(name) == self.region]
        return [each["Key"] for name in here for each in s3.list_objects_v2(Bucket=name).get("Contents", [])]

    def _region_of(self, bucket: str) -> str:
        return self.client("s3").get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
