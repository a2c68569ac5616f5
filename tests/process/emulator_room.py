"""The local SageMaker with an endpoint in service; processes stand in for containers."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.process.container_room import until

from likewise.targets.sagemaker.emulator import Emulator

REGION = "us-east-1"
LIVE = "dl-sentiment-model"
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}
INSTANCE = {"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}


@dataclass
class Room:
    """An emulator with two images of one model, a role, a bucket, and an endpoint in service: LIVE."""

    emulator: Emulator
    role: str
    folder: Path

    def client(self, name: str, **options: Any) -> Any:
        config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, **options)
        session = boto3.Session("test", "test", region_name=REGION)
        return session.client(name, endpoint_url=self.emulator.url, config=config)

    def model(self, name: str, image: str = "upper:1", **more: Any) -> None:
        container = {"Image": image, **more}
        self.client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=self.role, PrimaryContainer=container)

    def config(self, name: str, model: str | None = None, **more: Any) -> None:
        variant = {"VariantName": "AllTraffic", "ModelName": model or name, **INSTANCE}
        self.client("sagemaker").create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)

    def endpoint(self, name: str) -> dict[str, Any]:
        """Created of the configuration of the same name; as it stands when it is decided."""
        self.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
        return self.settled(name)

    def settled(self, name: str) -> dict[str, Any]:
        until(lambda: self.described(name)["EndpointStatus"] in ("InService", "Failed"))
        return self.described(name)

    def described(self, name: str) -> dict[str, Any]:
        said: dict[str, Any] = self.client("sagemaker").describe_endpoint(EndpointName=name)
        return said

    def ask(self, name: str, body: bytes = b'{"inputs": ["a"]}', **more: Any) -> dict[str, Any]:
        more = {"ContentType": "application/json", **more}
        said: dict[str, Any] = self.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body, **more)
        return {**said, "Body": said["Body"].read()}

    def put(self, key: str, body: bytes) -> str:
        self.client("s3").put_object(Bucket="rows", Key=key, Body=body)
        return f"s3://rows/{key}"

    def get(self, uri: str) -> bytes:
        body: bytes = self.client("s3").get_object(Bucket="rows", Key=uri.removeprefix("s3://rows/"))["Body"].read()
        return body


def role_of(room: Room, name: str, principal: str = "sagemaker.amazonaws.com") -> str:
    statement = {**TRUST["Statement"][0], "Principal": {"Service": principal}}  # type: ignore[dict-item]
    policy = json.dumps({**TRUST, "Statement": [statement]})
    try:
        said = room.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=policy)
    except ClientError:  # another rehearsal of this process has it: moto keeps one account a process
        said = room.client("iam").get_role(RoleName=name)
    return str(said["Role"]["Arn"])


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=code)


def gone(room: Room, name: str) -> None:
    """Delete the endpoint, and wait until nobody finds it."""
    room.client("sagemaker").delete_endpoint(EndpointName=name)

    def missing() -> bool:
        try:
            room.described(name)
        except ClientError:
            return True
        return False

    until(missing)


def children() -> list[str]:
    """The processes that stand in for containers."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parent = each.with_name("stat").read_text().rpartition(")")[2].split()[1]
            if b"likewise.container" in each.read_bytes() and parent == str(os.getpid()):
                found.append(each.parent.name)
        except OSError:
            continue
    return found


def log_of(room: Room, name: str) -> list[str]:
    """What CloudWatch has of the endpoint."""
    logs, group = room.client("logs"), f"/aws/sagemaker/Endpoints/{name}"
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert streams[0]["logStreamName"].startswith("AllTraffic/i-")
    said = logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"], startFromHead=True)
    assert len(logs.filter_log_events(logGroupName=group)["events"]) >= len(said["events"])
    return [event["message"] for event in said["events"]]
