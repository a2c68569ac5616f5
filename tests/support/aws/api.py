"""SageMaker of an account by its API, as an AWS user without Likewise: models, endpoints, requests, logs."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.support.aws.account import Account

from likewise.targets.sagemaker.emulator import Emulator

LIVE = "dl-sentiment-model"  # an endpoint that stands
LOOK_S = 0.05  # the emulator gives containers up in time, so there is no other limit
BUCKET = "rows"
INSTANCE = {"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}


class Api:
    """account: whose calls are counted, and met by faults."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.role = account.role

    @property
    def emulator(self) -> Emulator:
        return self.account.emulator

    def client(self, service: str, **options: Any) -> Any:
        """boto3's client."""
        return self.account.client(service, counted=True, **options)

    # --- endpoints ---------------------------------------------------------------------------------------------------

    def model(self, name: str, image: str = "upper:1", **container: Any) -> None:
        """Create a model of one container."""
        held = {"Image": image, **container}
        self.client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=self.role, PrimaryContainer=held)

    def config(self, name: str, model: str | None = None, **more: Any) -> None:
        """Create a configuration of one variant; model: that of the same name where it is None."""
        variant = {"VariantName": "AllTraffic", "ModelName": model or name, **INSTANCE}
        self.client("sagemaker").create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)

    def endpoint(self, name: str) -> dict[str, Any]:
        """Create an endpoint of the configuration of the same name; its description once it is in service or failed."""
        self.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
        return self.settled(name)

    def settled(self, name: str) -> dict[str, Any]:
        """Its description once nothing is in progress."""
        while (answer := self.described(name))["EndpointStatus"] not in ("InService", "Failed"):
            time.sleep(LOOK_S)
        return answer

    def described(self, name: str) -> dict[str, Any]:
        """Its description."""
        answer: dict[str, Any] = self.client("sagemaker").describe_endpoint(EndpointName=name)
        return answer

    def delete(self, name: str) -> None:
        """Delete an endpoint, and wait until it is gone."""
        self.client("sagemaker").delete_endpoint(EndpointName=name)
        with suppress(ClientError):
            while self.described(name):
                time.sleep(LOOK_S)

    def ask(self, name: str, body: bytes = b'{"inputs": ["a"]}', **more: Any) -> dict[str, Any]:
        """The answer of InvokeEndpoint, its body read."""
        more = {"ContentType": "application/json", **more}
        answer: dict[str, Any] = self.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body, **more)
        return {**answer, "Body": answer["Body"].read()}

    def log(self, name: str) -> list[str]:
        """What CloudWatch has of an endpoint."""
        logs, group = self.client("logs"), f"/aws/sagemaker/Endpoints/{name}"
        (stream,) = [each["logStreamName"] for each in logs.describe_log_streams(logGroupName=group)["logStreams"]]
        assert stream.startswith("AllTraffic/i-")
        found = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        assert len(logs.filter_log_events(logGroupName=group)["events"]) >= len(found)
        return [event["message"] for event in found]

    # --- objects -----------------------------------------------------------------------------------------------------

    def put(self, key: str, body: bytes) -> str:
        """The URI of an object that is written."""
        self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def get(self, uri: str) -> bytes:
        """An object."""
        key = uri.removeprefix(f"s3://{BUCKET}/")
        body: bytes = self.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def has(self, uri: str) -> bool:
        """Whether there is such an object."""
        try:
            self.get(uri)
        except ClientError:
            return False
        return True


def refused(text: str) -> Any:
    """A block in which AWS refuses a call with an error whose text has `text`, a regular expression."""
    return pytest.raises(ClientError, match=text)
