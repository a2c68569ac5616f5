"""SageMaker's API without Likewise, for tests of the emulator: models, endpoints, requests, logs."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.support.aws.account import Account

from likewise.targets.sagemaker.emulator import Emulator

LIVE = "dl-sentiment-model"  # an endpoint in service
POLL_S = 0.05  # no time limit is needed here, because the emulator limits the startup of containers
BUCKET = "rows"
INSTANCE = {"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}


class Api:
    """Calls with an account's clients; they are recorded, and faults apply to them."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.role = account.role

    @property
    def emulator(self) -> Emulator:
        return self.account.emulator

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client whose calls are recorded."""
        return self.account.client(service, counted=True, **options)

    # --- endpoints ---------------------------------------------------------------------------------------------------

    def model(self, name: str, image: str = "upper:1", **container: Any) -> None:
        """Create a model of one container."""
        definition = {"Image": image, **container}
        self.client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=self.role, PrimaryContainer=definition)

    def config(self, name: str, model: str | None = None, **more: Any) -> None:
        """Create a configuration with one variant; model: None for the model of the same name."""
        variant = {"VariantName": "AllTraffic", "ModelName": model or name, **INSTANCE}
        self.client("sagemaker").create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)

    def endpoint(self, name: str) -> dict[str, Any]:
        """Create an endpoint with the configuration of the same name; its description when it has settled."""
        self.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
        return self.settled(name)

    def settled(self, name: str) -> dict[str, Any]:
        """The endpoint's description when it is in service or has failed."""
        while (response := self.described(name))["EndpointStatus"] not in ("InService", "Failed"):
            time.sleep(POLL_S)
        return response

    def described(self, name: str) -> dict[str, Any]:
        """The endpoint's description."""
        response: dict[str, Any] = self.client("sagemaker").describe_endpoint(EndpointName=name)
        return response

    def delete(self, name: str) -> None:
        """Delete an endpoint and wait until it is gone."""
        self.client("sagemaker").delete_endpoint(EndpointName=name)
        with suppress(ClientError):
            while self.described(name):
                time.sleep(POLL_S)

    def invoke(self, name: str, body: bytes = b'{"inputs": ["a"]}', **more: Any) -> dict[str, Any]:
        """The response of InvokeEndpoint, with its body as bytes."""
        more = {"ContentType": "application/json", **more}
        response: dict[str, Any] = self.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=name, Body=body, **more
        )
        return {**response, "Body": response["Body"].read()}

    def log(self, name: str, variant: str = "AllTraffic") -> list[str]:
        """The log lines of an endpoint's variant in CloudWatch."""
        logs, group = self.client("logs"), f"/aws/sagemaker/Endpoints/{name}"
        streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{variant}/i-")["logStreams"]
        (stream,) = [each["logStreamName"] for each in streams]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        assert len(logs.filter_log_events(logGroupName=group)["events"]) >= len(events)
        return [event["message"] for event in events]

    # --- objects -----------------------------------------------------------------------------------------------------

    def put(self, key: str, body: bytes, **more: Any) -> str:
        """Store an object and return its URI."""
        self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body, **more)
        return f"s3://{BUCKET}/{key}"

    def get(self, uri: str) -> bytes:
        """The content of an object."""
        key = uri.removeprefix(f"s3://{BUCKET}/")
        body: bytes = self.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def has(self, uri: str) -> bool:
        """Whether the object exists."""
        try:
            self.get(uri)
        except ClientError:
            return False
        return True


def refused(text: str) -> Any:
    """A `with` block in which AWS rejects a call; text: a regular expression that matches the error message."""
    return pytest.raises(ClientError, match=text)
