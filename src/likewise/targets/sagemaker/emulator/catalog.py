"""Models, endpoint configurations and tags of the emulated SageMaker, and its List operations."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from likewise.targets.sagemaker.emulator.account import Account, S3Unavailable
from likewise.targets.sagemaker.emulator.wire import CONTROL, AwsError, invalid

RequestParams = Mapping[str, Any]


def now() -> datetime:
    """The current time, for timestamps in responses."""
    return datetime.now(UTC)


def validation_error(message: str) -> AwsError:
    """A ValidationException of the control plane."""
    return invalid(CONTROL, message)


@dataclass
class Record:
    """A resource. params: the request that created it."""

    arn: str
    params: RequestParams
    created: datetime = field(default_factory=now)


class Catalog:
    """One region's resources. Methods named like SageMaker operations take their parameters and return their response.

    Thread-safe.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.lock = threading.RLock()
        self.models: dict[str, Record] = {}
        self.configs: dict[str, Record] = {}
        self.tags: dict[str, dict[str, str]] = {}

    # --- models ------------------------------------------------------------------------------------------------------

    def create_model(self, params: RequestParams) -> RequestParams:
        self._check_model(params)
        return {"ModelArn": self._add(self.models, "model", params["ModelName"], params)}

    def describe_model(self, params: RequestParams) -> RequestParams:
        record = self.model(params["ModelName"])
        described = {name: value for name, value in record.params.items() if name != "Tags"}
        return {**described, "ModelArn": record.arn, "CreationTime": record.created}

    def delete_model(self, params: RequestParams) -> None:
        record = self.model(params["ModelName"])
        with self.lock:
            self._remove(self.models, params["ModelName"], record.arn)

    def list_models(self, params: RequestParams) -> RequestParams:
        return list_page("Models", "Model", self.models.items(), params)

    def model(self, name: str) -> Record:
        """The model; AwsError if it does not exist."""
        return self._get(self.models, "model", "model", name)

    def _check_model(self, params: RequestParams) -> None:
        container = params.get("PrimaryContainer")
        if container is None or not container.get("Image"):
            raise validation_error("The rehearsal supports only models with one PrimaryContainer with an Image.")
        if "ExecutionRoleArn" not in params:
            raise validation_error("ExecutionRoleArn is required for a model that is deployed to an endpoint.")
        if (problem := self.account.role_problem(params["ExecutionRoleArn"])) is not None:
            raise validation_error(problem)
        if url := container.get("ModelDataUrl"):
            try:
                self.account.require(url)
            except S3Unavailable as error:
                role, region = params["ExecutionRoleArn"], self.account.region
                raise validation_error(
                    f'Could not access model data at {url}. Please ensure that the role "{role}" has "s3:GetObject" '
                    f"permissions and that the object is located in {region}. ({error})"
                ) from error

    # --- endpoint configurations -------------------------------------------------------------------------------------

    def create_endpoint_config(self, params: RequestParams) -> RequestParams:
        for variant in all_variants(params):
            if "ModelName" not in variant:
                raise validation_error("The rehearsal supports variants of a model, not inference components.")
            self.model(variant["ModelName"])
            if ("ServerlessConfig" in variant) == ("InstanceType" in variant):
                raise validation_error("A variant needs either an InstanceType or a ServerlessConfig.")
        if "ShadowProductionVariants" in params:
            serverless = any("ServerlessConfig" in variant for variant in all_variants(params))
            if len(all_variants(params)) != 2 or serverless or "AsyncInferenceConfig" in params:
                raise validation_error(
                    "A shadow variant needs exactly one production variant, both on instances, and a configuration "
                    "without AsyncInferenceConfig."
                )
        return {"EndpointConfigArn": self._add(self.configs, "endpoint-config", params["EndpointConfigName"], params)}

    def describe_endpoint_config(self, params: RequestParams) -> RequestParams:
        record = self.config(params["EndpointConfigName"])
        described = {name: value for name, value in record.params.items() if name != "Tags"}
        return {**described, "EndpointConfigArn": record.arn, "CreationTime": record.created}

    def delete_endpoint_config(self, params: RequestParams) -> None:
        record = self.config(params["EndpointConfigName"])
        with self.lock:
            self._remove(self.configs, params["EndpointConfigName"], record.arn)

    def list_endpoint_configs(self, params: RequestParams) -> RequestParams:
        return list_page("EndpointConfigs", "EndpointConfig", self.configs.items(), params)

    def config(self, name: str) -> Record:
        """The endpoint configuration; AwsError if it does not exist."""
        return self._get(self.configs, "endpoint configuration", "endpoint-config", name)

    # --- what the rehearsal has none of ------------------------------------------------------------------------------

    def list_contexts(self, _: RequestParams) -> RequestParams:
        return {"ContextSummaries": []}

    def list_monitoring_schedules(self, _: RequestParams) -> RequestParams:
        return {"MonitoringScheduleSummaries": []}

    # --- tags --------------------------------------------------------------------------------------------------------

    def add_tags(self, params: RequestParams) -> RequestParams:
        with self.lock:
            tags = self._tags_of(params["ResourceArn"])
            tags.update({tag["Key"]: tag["Value"] for tag in params["Tags"]})
            return {"Tags": _tag_list(tags)}

    def delete_tags(self, params: RequestParams) -> RequestParams:
        with self.lock:
            tags = self._tags_of(params["ResourceArn"])
            for key in params["TagKeys"]:
                tags.pop(key, None)
        return {}

    def list_tags(self, params: RequestParams) -> RequestParams:
        with self.lock:
            return {"Tags": _tag_list(self._tags_of(params["ResourceArn"]))}

    def _tags_of(self, arn: str) -> dict[str, str]:
        if arn not in self.tags:
            raise validation_error(f'Could not find resource "{arn}".')
        return self.tags[arn]

    def register(self, arn: str, params: RequestParams) -> None:
        """Add a resource with the tags in its create request."""
        self.tags[arn] = {tag["Key"]: tag["Value"] for tag in params.get("Tags", [])}

    def unregister(self, arn: str) -> None:
        """Remove a resource's tags."""
        self.tags.pop(arn, None)

    def _add(self, kind: dict[str, Record], path: str, name: str, params: RequestParams) -> str:
        arn = self.account.arn(path, name)
        with self.lock:
            if name in kind:
                words = path.replace("-config", " configuration")
                raise validation_error(f'Cannot create already existing {words} "{arn}".')
            kind[name] = Record(arn, params)
            self.register(arn, params)
        return arn

    def _remove(self, kind: dict[str, Record], name: str, arn: str) -> None:
        kind.pop(name, None)
        self.unregister(arn)

    def _get(self, kind: dict[str, Record], words: str, path: str, name: str) -> Record:
        with self.lock:
            if name not in kind:
                raise validation_error(f'Could not find {words} "{self.account.arn(path, name)}".')
            return kind[name]


def all_variants(config: RequestParams) -> list[RequestParams]:
    """The production variants of an endpoint configuration, and then its shadow variants."""
    return [*config["ProductionVariants"], *config.get("ShadowProductionVariants", ())]


def list_page(
    key: str,
    kind: str,
    records: Iterable[tuple[str, Any]],
    params: RequestParams,
    more: Callable[[Any], RequestParams] = lambda _: {},
    status: str | None = None,
) -> dict[str, Any]:
    """A page of a List operation.

    key: the list's member name.  kind: prefix of the names of a summary's members.  more: a summary's members other
    than name, ARN and creation time.  status: the member with the status, None if there is none.
    """
    rows = [
        {f"{kind}Name": name, f"{kind}Arn": each.arn, "CreationTime": each.created, **more(each)}
        for name, each in list(records)
        if params.get("NameContains", "") in name
    ]
    rows = [row for row in rows if _matches(row, params, status)]
    by = {"Name": f"{kind}Name", "Status": status or ""}.get(params.get("SortBy", ""), "CreationTime")
    rows.sort(key=lambda row: row[by], reverse=params.get("SortOrder", "Descending") == "Descending")
    begin = int(params.get("NextToken", "0"))
    end = begin + params.get("MaxResults", 100)
    page: dict[str, Any] = {key: rows[begin:end]}
    return {**page, "NextToken": str(end)} if end < len(rows) else page


def _matches(row: RequestParams, params: RequestParams, status: str | None) -> bool:
    if status is not None and params.get("StatusEquals") not in (None, row[status]):
        return False
    for time in ("CreationTime", "LastModifiedTime"):
        after, before = params.get(f"{time}After", 0), params.get(f"{time}Before", math.inf)
        if time in row and not after <= row[time].timestamp() <= before:
            return False
    return True


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
