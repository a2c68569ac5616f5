"""Target URIs in MLflow's form: `sagemaker`, `sagemaker:/REGION`, `sagemaker:/REGION/ROLE_ARN`."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.proxies import is_loopback

ENDPOINT = "AWS_ENDPOINT_URL"
REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_URI = re.compile(r"sagemaker(:|:?/+((?P<region>[^/?:][^/?]*)(/+(?P<role>arn:[^?]+))?/?)?)?(\?(?P<query>.*))?")
FORMS = "sagemaker, sagemaker:/REGION or sagemaker:/REGION/ROLE_ARN"


@dataclass(frozen=True, slots=True)
class SageMakerAddress:
    """What a step needs to connect to AWS, except credentials.

    region: None if it is not configured. role: ARN of the role to assume first. endpoint: URL that replaces the AWS
    endpoint of every service.
    """

    region: str | None
    role: str | None = None
    endpoint: str | None = None

    @classmethod
    def of(cls, uri: str) -> SageMakerAddress:
        """Parse a URI; a region or endpoint that it does not contain is looked up as the AWS CLI does.

        Raises WrongUsage, MissingExtra.
        """
        match = _URI.fullmatch(uri)
        if match is None:
            raise WrongUsage(f"{uri!r} is not a valid SageMaker URI", remedy=f"use {FORMS}")
        query = parse_qs(match["query"] or "", strict_parsing=bool(match["query"]))
        endpoint = query.get("endpoint_url", [os.environ.get(ENDPOINT) or None])[0]
        if set(query) - {"endpoint_url"}:
            raise WrongUsage(
                f"{uri.partition('?')[0]!r} has a query parameter other than endpoint_url",
                remedy=f"use {FORMS}, with ?endpoint_url=URL",
            )
        if endpoint is not None:
            _check_endpoint(endpoint)
        region = match["region"] or configured_region() or ("us-east-1" if endpoint else None)
        return cls(None, endpoint=endpoint).with_options(region, match["role"])

    @property
    def uri(self) -> str:
        """The canonical URI: equal addresses have equal URIs."""
        text = "sagemaker"
        if self.region:
            text += f":/{self.region}" + (f"/{self.role}" if self.role else "")
        elif self.endpoint:
            text += ":/"
        return text + (f"?endpoint_url={quote(self.endpoint, safe=':/')}" if self.endpoint else "")

    @property
    def named_region(self) -> str:
        """The region; WrongUsage if it is not configured."""
        if self.region is None:
            raise WrongUsage(
                "no AWS region is configured",
                remedy="use --to sagemaker:/eu-west-1, or set AWS_REGION, or run: aws configure set region eu-west-1",
            )
        return self.region

    def with_options(self, region: str | None, role: str | None) -> SageMakerAddress:
        """A copy with another region and role; None leaves the value as it is.  WrongUsage if one is not valid."""
        if region is not None and not REGION.fullmatch(region):
            hint = "put a region before the role" if region.startswith("arn:") else "use a region name"
            shown = region.rpartition("@")[2]  # a password may precede it
            raise WrongUsage(f"{shown!r} is not an AWS region", remedy=f"{hint}, for example sagemaker:/eu-west-1")
        if role is not None and not ROLE.fullmatch(role):
            raise WrongUsage(f"{role!r} is not a valid role ARN", remedy="use arn:aws:iam::123456789012:role/NAME")
        return replace(self, region=region or self.region, role=role or self.role)

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON for a step's parameters."""
        return asdict(self)

    @property
    def rehearsal(self) -> bool:
        """Whether the endpoint is an emulator on this machine."""
        return is_loopback(urlsplit(self.endpoint or "").hostname or "")


def configured_region() -> str | None:
    """The region from AWS_REGION, AWS_DEFAULT_REGION or the AWS profile."""
    if os.environ.get("AWS_REGION"):  # the newer name; only some versions of botocore read it
        return os.environ["AWS_REGION"]
    session = need("botocore.session", extra="aws").get_session()
    region: str | None = session.get_config_variable("region")
    return region


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise WrongUsage(
            f"the endpoint {parts._replace(netloc=parts.hostname or '').geturl()!r} is not a valid HTTP(S) URL",
            remedy=f"use a URL without credentials or a query, for example {ENDPOINT}=http://127.0.0.1:5000",
        )
