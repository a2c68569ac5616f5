"""The emulated AWS account: moto's S3, IAM and CloudWatch Logs, called by HTTP.

The emulator's own calls are recognized by their user agent.
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

ID = "123456789012"  # moto's account number
AGENT = "likewise-rehearsal"
PRINCIPAL = "sagemaker.amazonaws.com"
ENDPOINTS, JOBS = "/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"
MAX_EVENTS = 1000  # per call of PutLogEvents


class S3Unavailable(Exception):
    """An object or bucket in S3 that does not exist or is in another region; the message names it."""


@dataclass
class _LogSource:
    """A container whose output is copied to a log stream. lines: how many have been copied."""

    group: str
    stream: str
    container: Container
    lines: int = 0


class Account:
    """One region of the account; url: of the emulator."""

    def __init__(self, url: str, region: str) -> None:
        self.region = region
        self._url = url
        self._lock = threading.Lock()
        self._log_sources: list[_LogSource] = []
        self._clients: dict[str, Any] = {}
        self._session = boto3.Session("rehearsal", "rehearsal", region_name=region)
        self._creating = threading.Lock()

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a SageMaker resource."""
        return f"arn:aws:sagemaker:{self.region}:{ID}:{kind}/{name.lower()}"

    # --- roles -------------------------------------------------------------------------------------------------------

    def role_problem(self, arn: str) -> str | None:
        """Why SageMaker cannot assume the role, in AWS's words; None if it can."""
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
        """The object's content; raises S3Unavailable."""
        return self.read_typed(uri)[0]

    def read_typed(self, uri: str) -> tuple[bytes, str]:
        """The object's content and content type; raises S3Unavailable."""
        with self._objects(uri) as (s3, bucket, key):
            found = s3.get_object(Bucket=bucket, Key=key)
            return bytes(found["Body"].read()), found["ContentType"]

    def require(self, uri: str) -> None:
        """Raise S3Unavailable if the object does not exist."""
        with self._objects(uri) as (s3, bucket, key):
            s3.head_object(Bucket=bucket, Key=key)

    def write(self, uri: str, body: bytes) -> None:
        """Write an object; raises S3Unavailable if the bucket does not exist."""
        with self._objects(uri) as (s3, bucket, key):
            s3.put_object(Bucket=bucket, Key=key, Body=body)

    def keys(self, prefix: str) -> list[str]:
        """The keys of all objects below a prefix, without those of folders; raises S3Unavailable."""
        with self._objects(prefix) as (s3, bucket, key):
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return [each for each in keys if not each.endswith("/")]

    @contextmanager
    def _objects(self, uri: str) -> Iterator[tuple[Any, str, str]]:
        """The S3 client, the bucket and the key; errors of S3 inside the block become S3Unavailable."""
        s3, (bucket, key) = self._client("s3"), split_uri(uri)
        try:
            region = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
            if region != self.region:
                raise S3Unavailable(f"the bucket {bucket} is in {region}")
            yield s3, bucket, key
        except ClientError as error:
            raise S3Unavailable(f"{uri}: {error.response['Error']['Message']}") from error

    # --- repositories ------------------------------------------------------------------------------------------------

    def register_image(self, **image: str) -> None:
        """Add an image in the registry to ECR; image: parameters of PutImage.  No effect if ECR has it already."""
        ecr = self._client("ecr")
        known = ecr.exceptions.ImageAlreadyExistsException, ecr.exceptions.ImageTagAlreadyExistsException
        with suppress(*known, ecr.exceptions.RepositoryNotFoundException):
            ecr.put_image(**image)

    # --- logs --------------------------------------------------------------------------------------------------------

    def follow(self, group: str, stream: str, container: Container) -> None:
        """Create a log stream for the container's past and future output."""
        logs = self._client("logs")
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        with self._lock:
            self._log_sources.append(_LogSource(group, stream, container))
            self._flush(self._log_sources[-1])

    def flush(self) -> None:
        """Copy the containers' new output to their streams; called before logs are read."""
        with self._lock:
            for source in self._log_sources:
                self._flush(source)

    def _flush(self, source: _LogSource) -> None:
        lines = [line for line in source.container.log().splitlines() if line.strip()][source.lines :]
        source.lines += len(lines)
        now = int(time.time() * 1000)
        for at in range(0, len(lines), MAX_EVENTS):
            events = [{"timestamp": now, "message": line} for line in lines[at : at + MAX_EVENTS]]
            self._client("logs").put_log_events(
                logGroupName=source.group, logStreamName=source.stream, logEvents=events
            )

    def _client(self, service: str) -> Any:
        """The service's client; clients are thread-safe, but creating one is not."""
        with self._creating:
            if service not in self._clients:
                s3 = {"addressing_style": "path"}
                config = Config(user_agent_extra=AGENT, s3=s3, retries={"max_attempts": 0}, proxies={})
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
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else principal
        if statement["Effect"] == "Allow" and PRINCIPAL in ([services] if isinstance(services, str) else services):
            return True
    return False
