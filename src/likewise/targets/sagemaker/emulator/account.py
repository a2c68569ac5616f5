"""The account that is rehearsed in: moto's S3, IAM and CloudWatch Logs, asked over their own wire.

What the emulator asks for itself is told by its user agent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from likewise.targets.sagemaker.emulator.containers import Container

ID = "123456789012"  # moto's
AGENT = "likewise-rehearsal"
PRINCIPAL = "sagemaker.amazonaws.com"
ENDPOINTS, JOBS = "/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"
MOST_EVENTS = 1000  # a call


class Unreadable(Exception):
    """An object of S3 that is not there, or not in this region; the text says which."""


@dataclass
class _Followed:
    group: str
    stream: str
    container: Container
    lines: int = 0


class Account:
    """One region of it; url: of the emulator."""

    def __init__(self, url: str, region: str) -> None:
        self.region = region
        self._url = url
        self._lock = threading.Lock()
        self._followed: list[_Followed] = []
        self._clients: dict[str, Any] = {}
        self._session = boto3.Session("rehearsal", "rehearsal", region_name=region)
        self._creating = threading.Lock()

    def arn(self, kind: str, name: str) -> str:
        """Of one of SageMaker's resources."""
        return f"arn:aws:sagemaker:{self.region}:{ID}:{kind}/{name.lower()}"

    # --- roles -------------------------------------------------------------------------------------------------------

    def role_problem(self, arn: str) -> str | None:
        """Why SageMaker cannot be the role, as it says it."""
        try:
            role = self._client("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]
        except ClientError:
            role = None
        if role is not None and role["Arn"] == arn and _trusts(role["AssumeRolePolicyDocument"]):
            return None
        return (
            f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
            f"'{PRINCIPAL}' to assume the role."
        )

    # --- objects -----------------------------------------------------------------------------------------------------

    def read(self, uri: str) -> bytes:
        """The object; Unreadable."""
        with self._objects(uri) as (s3, bucket, key):
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def require(self, uri: str) -> None:
        """Unreadable, unless the object is there."""
        with self._objects(uri) as (s3, bucket, key):
            s3.head_object(Bucket=bucket, Key=key)

    def write(self, uri: str, body: bytes) -> None:
        """Unreadable where the bucket is not there."""
        with self._objects(uri) as (s3, bucket, key):
            s3.put_object(Bucket=bucket, Key=key, Body=body)

    def keys(self, prefix: str) -> list[str]:
        """The keys of all objects below a prefix, folders' own apart; Unreadable."""
        with self._objects(prefix) as (s3, bucket, key):
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            found = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return [each for each in found if not each.endswith("/")]

    @contextmanager
    def _objects(self, uri: str) -> Iterator[tuple[Any, str, str]]:
        """S3's client, the bucket and the key; what S3 refuses meanwhile is Unreadable."""
        s3, (bucket, key) = self._client("s3"), split_uri(uri)
        try:
            there = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
            if there != self.region:
                raise Unreadable(f"the bucket {bucket} is in {there}")
            yield s3, bucket, key
        except ClientError as error:
            raise Unreadable(f"{uri}: {error.response['Error']['Message']}") from error

    # --- repositories ------------------------------------------------------------------------------------------------

    def know_image(self, **image: str) -> None:
        """ECR tells of an image (as PutImage has it) that is in the registry; of one that it knows, nothing changes."""
        ecr = self._client("ecr")
        known = ecr.exceptions.ImageAlreadyExistsException, ecr.exceptions.ImageTagAlreadyExistsException
        with suppress(*known, ecr.exceptions.RepositoryNotFoundException):
            ecr.put_image(**image)

    # --- logs --------------------------------------------------------------------------------------------------------

    def follow(self, group: str, stream: str, container: Container) -> None:
        """What the container writes, and has written, is in this new stream whenever somebody reads logs."""
        logs = self._client("logs")
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        with self._lock:
            self._followed.append(_Followed(group, stream, container))
            self._flush(self._followed[-1])

    def flush(self) -> None:
        """Bring the streams up to now."""
        with self._lock:
            for followed in self._followed:
                self._flush(followed)

    def _flush(self, followed: _Followed) -> None:
        lines = [line for line in followed.container.log().splitlines() if line.strip()][followed.lines :]
        followed.lines += len(lines)
        now = int(time.time() * 1000)
        for at in range(0, len(lines), MOST_EVENTS):
            events = [{"timestamp": now, "message": line} for line in lines[at : at + MOST_EVENTS]]
            self._client("logs").put_log_events(
                logGroupName=followed.group, logStreamName=followed.stream, logEvents=events
            )

    def _client(self, service: str) -> Any:
        """Its client, which several threads may use, though only one may make it."""
        with self._creating:
            if service not in self._clients:
                s3 = {"addressing_style": "path"}
                config = Config(user_agent_extra=AGENT, s3=s3, retries={"max_attempts": 0})
                self._clients[service] = self._session.client(service, endpoint_url=self._url, config=config)
            return self._clients[service]


def split_uri(uri: str) -> tuple[str, str]:
    """(`bucket`, `key`) of `s3://bucket/key`."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def _trusts(policy: Any) -> bool:
    """Whether a role's trust policy names SageMaker."""
    statements = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    for statement in statements:
        named = statement.get("Principal", {})
        services = named.get("Service", []) if isinstance(named, dict) else named
        if statement["Effect"] == "Allow" and PRINCIPAL in ([services] if isinstance(services, str) else services):
            return True
    return False
