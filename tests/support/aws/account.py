"""One region of the emulated account: clients, a role that SageMaker may assume, and its resources."""

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
SECRET = "test-secret"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": REGION,
}
"""Environment variables of a process with AWS credentials."""
_SESSION = boto3.Session("test", "test")  # a shared session reads each service model once
_CREATING = threading.Lock()  # sessions are not thread-safe, clients are


@contextmanager
def logged_in() -> Iterator[None]:
    """Set ENVIRONMENT in this process until the end of `with`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


class Account:
    """One region of an emulator.  uri: of the target, for `--to`.  role: the ARN of an execution role."""

    def __init__(self, emulator: Emulator, region: str) -> None:
        self.emulator, self.region = emulator, region
        self.uri = f"sagemaker:/{region}?endpoint_url={emulator.url}"
        self._clients: dict[str, Any] = {}
        self.role = self.make_role("serving")

    @cached_property
    def target(self) -> SageMakerTarget:
        """The target; shared by all tests, because each new one would read the service models again."""
        return SageMakerTarget(self.uri)

    def client(self, service: str, region: str = "", *, counted: bool = False, **options: Any) -> Any:
        """A boto3 client of a service.

        counted: whether the emulator records its calls and applies faults to them.  options: of its configuration.
        """
        key = f"{service} {region} {counted} {options}"
        with _CREATING:
            if key not in self._clients:
                settings = {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}, **options}
                config = Config(user_agent_extra=None if counted else AGENT, **settings)
                url = self.emulator.url
                self._clients[key] = _SESSION.client(service, region or self.region, endpoint_url=url, config=config)
            return self._clients[key]

    def make_role(self, name: str, principal: str = SAGEMAKER) -> str:
        """The ARN of a role that `principal` may assume; created if it does not exist."""
        iam = self.client("iam")
        statement = {"Effect": "Allow", "Principal": {"Service": principal}, "Action": "sts:AssumeRole"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        try:
            response = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy)
        except iam.exceptions.EntityAlreadyExistsException:
            response = iam.get_role(RoleName=name)
        return str(response["Role"]["Arn"])

    def make_bucket(self, name: str) -> str:
        """Create a bucket in this region and return its name."""
        location = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        self.client("s3").create_bucket(Bucket=name, **({} if self.region == "us-east-1" else location))
        return name

    def drop_bucket(self, name: str) -> None:
        """Delete the bucket and its objects."""
        s3 = self.client("s3")
        for each in s3.list_objects_v2(Bucket=name).get("Contents", []):
            s3.delete_object(Bucket=name, Key=each["Key"])
        s3.delete_bucket(Bucket=name)

    def options(self, image: str) -> dict[str, str]:
        """Options of a deployment of an image."""
        return {"image_url": image, "execution_role_arn": self.role, "timeout_seconds": "60"}

    def resources(self) -> list[str]:
        """Names of all resources of deployments in this region, including objects in S3."""
        sagemaker, scaling = self.client("sagemaker"), self.client("application-autoscaling")
        lists = (("list_endpoints", "Endpoint"), ("list_endpoint_configs", "EndpointConfig"), ("list_models", "Model"))
        names = [
            each[f"{kind}Name"] for operation, kind in lists for each in getattr(sagemaker, operation)()[f"{kind}s"]
        ]
        scaled = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return names + [each["ResourceId"] for each in scaled] + self.objects()

    def objects(self) -> list[str]:
        """The keys of all objects in this region."""
        s3 = self.client("s3")
        names = [each["Name"] for each in s3.list_buckets()["Buckets"]]
        here = [name for name in names if self._region_of(name) == self.region]
        return [each["Key"] for name in here for each in s3.list_objects_v2(Bucket=name).get("Contents", [])]

    def _region_of(self, bucket: str) -> str:
        return self.client("s3").get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
