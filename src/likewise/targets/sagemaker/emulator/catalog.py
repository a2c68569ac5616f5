"""What SageMaker keeps by name: models, endpoint configurations, tags; and its lists."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from likewise.targets.sagemaker.emulator.account import Account, Unreadable
from likewise.targets.sagemaker.emulator.wire import CONTROL, AwsError, invalid

RequestParams = Mapping[str, Any]


def now() -> datetime:
    """As an answer has it."""
    return datetime.now(UTC)


def refusal(message: str) -> AwsError:
    """The control plane's ValidationException."""
    return invalid(CONTROL, message)


@dataclass
class Record:
    """A resource as it was created."""

    arn: str
    asked: RequestParams
    created: datetime = field(default_factory=now)


class Catalog:
    """One region's.  Methods named as SageMaker's operations take and give what those do.  Thread-safe."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.lock = threading.RLock()
        self.models: dict[str, Record] = {}
        self.configs: dict[str, Record] = {}
        self.tags: dict[str, dict[str, str]] = {}

    # --- models ------------------------------------------------------------------------------------------------------

    def create_model(self, asked: RequestParams) -> RequestParams:
        self._check_model(asked)
        return {"ModelArn": self._keep(self.models, "model", asked["ModelName"], asked)}

    def describe_model(self, asked: RequestParams) -> RequestParams:
        record = self.model(asked["ModelName"])
        said = {name: value for name, value in record.asked.items() if name != "Tags"}
        return {**said, "ModelArn": record.arn, "CreationTime": record.created}

    def delete_model(self, asked: RequestParams) -> None:
        record = self.model(asked["ModelName"])
        with self.lock:
            self._forget(self.models, asked["ModelName"], record.arn)

    def list_models(self, asked: RequestParams) -> RequestParams:
        return listed("Models", "Model", self.models.items(), asked)

    def model(self, name: str) -> Record:
        """AwsError where there is none."""
        return self._found(self.models, "model", "model", name)

    def _check_model(self, asked: RequestParams) -> None:
        held = asked.get("PrimaryContainer")
        if held is None or not held.get("Image"):
            raise refusal("Rehearsed is a model of one PrimaryContainer with an Image.")
        if "ExecutionRoleArn" not in asked:
            raise refusal("ExecutionRoleArn is required for a model that is deployed to an endpoint.")
        if (problem := self.account.role_problem(asked["ExecutionRoleArn"])) is not None:
            raise refusal(problem)
        if url := held.get("ModelDataUrl"):
            try:
                self.account.require(url)
            except Unreadable as error:
                role, region = asked["ExecutionRoleArn"], self.account.region
                raise refusal(
                    f'Could not access model data at {url}. Please ensure that the role "{role}" has "s3:GetObject" '
                    f"permissions and that the object is located in {region}. ({error})"
                ) from error

    # --- endpoint configurations -------------------------------------------------------------------------------------

    def create_endpoint_config(self, asked: RequestParams) -> RequestParams:
        for variant in asked["ProductionVariants"]:
            if "ModelName" not in variant:
                raise refusal("Rehearsed are variants of a model, and not of inference components.")
            self.model(variant["ModelName"])
            if ("ServerlessConfig" in variant) == ("InstanceType" in variant):
                raise refusal("A variant needs either an InstanceType or a ServerlessConfig.")
        return {"EndpointConfigArn": self._keep(self.configs, "endpoint-config", asked["EndpointConfigName"], asked)}

    def describe_endpoint_config(self, asked: RequestParams) -> RequestParams:
        record = self.config(asked["EndpointConfigName"])
        said = {name: value for name, value in record.asked.items() if name != "Tags"}
        return {**said, "EndpointConfigArn": record.arn, "CreationTime": record.created}

    def delete_endpoint_config(self, asked: RequestParams) -> None:
        record = self.config(asked["EndpointConfigName"])
        with self.lock:
            self._forget(self.configs, asked["EndpointConfigName"], record.arn)

    def list_endpoint_configs(self, asked: RequestParams) -> RequestParams:
        return listed("EndpointConfigs", "EndpointConfig", self.configs.items(), asked)

    def config(self, name: str) -> Record:
        """AwsError where there is none."""
        return self._found(self.configs, "endpoint configuration", "endpoint-config", name)

    # --- tags --------------------------------------------------------------------------------------------------------

    def add_tags(self, asked: RequestParams) -> RequestParams:
        with self.lock:
            held = self._tags_of(asked["ResourceArn"])
            held.update({tag["Key"]: tag["Value"] for tag in asked["Tags"]})
            return {"Tags": _tag_list(held)}

    def delete_tags(self, asked: RequestParams) -> RequestParams:
        with self.lock:
            held = self._tags_of(asked["ResourceArn"])
            for key in asked["TagKeys"]:
                held.pop(key, None)
        return {}

    def list_tags(self, asked: RequestParams) -> RequestParams:
        with self.lock:
            return {"Tags": _tag_list(self._tags_of(asked["ResourceArn"]))}

    def _tags_of(self, arn: str) -> dict[str, str]:
        if arn not in self.tags:
            raise refusal(f'Could not find resource "{arn}".')
        return self.tags[arn]

    def know(self, arn: str, asked: RequestParams) -> None:
        """A resource is there, with its tags."""
        self.tags[arn] = {tag["Key"]: tag["Value"] for tag in asked.get("Tags", [])}

    def forget(self, arn: str) -> None:
        """It is gone."""
        self.tags.pop(arn, None)

    def _keep(self, kind: dict[str, Record], path: str, name: str, asked: RequestParams) -> str:
        arn = self.account.arn(path, name)
        with self.lock:
            if name in kind:
                raise refusal(f'Cannot create already existing {path.replace("-config", " configuration")} "{arn}".')
            kind[name] = Record(arn, asked)
            self.know(arn, asked)
        return arn

    def _forget(self, kind: dict[str, Record], name: str, arn: str) -> None:
        kind.pop(name, None)
        self.forget(arn)

    def _found(self, kind: dict[str, Record], words: str, path: str, name: str) -> Record:
        with self.lock:
            if name not in kind:
                raise refusal(f'Could not find {words} "{self.account.arn(path, name)}".')
            return kind[name]


def listed(
    key: str,
    kind: str,
    records: Iterable[tuple[str, Any]],
    asked: RequestParams,
    more: Callable[[Any], RequestParams] = lambda _: {},
    status: str | None = None,
) -> dict[str, Any]:
    """A page of a List operation; more: what a summary has besides name, ARN and time.  status: its member's name."""
    rows = [
        {f"{kind}Name": name, f"{kind}Arn": each.arn, "CreationTime": each.created, **more(each)}
        for name, each in list(records)
        if asked.get("NameContains", "") in name
    ]
    rows = [row for row in rows if _wanted(row, asked, status)]
    by = {"Name": f"{kind}Name", "Status": status or ""}.get(asked.get("SortBy", ""), "CreationTime")
    rows.sort(key=lambda row: row[by], reverse=asked.get("SortOrder", "Descending") == "Descending")
    begin = int(asked.get("NextToken", "0"))
    end = begin + asked.get("MaxResults", 100)
    page: dict[str, Any] = {key: rows[begin:end]}
    return {**page, "NextToken": str(end)} if end < len(rows) else page


def _wanted(row: RequestParams, asked: RequestParams, status: str | None) -> bool:
    if status is not None and asked.get("StatusEquals") not in (None, row[status]):
        return False
    for time in ("CreationTime", "LastModifiedTime"):
        after, before = asked.get(f"{time}After", 0), asked.get(f"{time}Before", math.inf)
        if time in row and not after <= row[time].timestamp() <= before:
            return False
    return True


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
