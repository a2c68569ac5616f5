"""Where a deployment stands: `sagemaker`, `sagemaker:/REGION`, `sagemaker:/REGION/ROLE_ARN`, as MLflow writes them."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from likewise.core.errors import WrongUsage
from likewise.core.extras import need

ENDPOINT = "AWS_ENDPOINT_URL"
REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_URI = re.compile(r"sagemaker(:|:?/+((?P<region>[^/?:][^/?]*)(/+(?P<role>arn:[^?]+))?/?)?)?(\?(?P<query>.*))?")
FORMS = "sagemaker, sagemaker:/REGION or sagemaker:/REGION/ROLE_ARN"


@dataclass(frozen=True, slots=True)
class SageMakerAddress:
    """All that a step must be told to reach AWS, and no credentials.

    region: None where nobody has named one. role: ARN of the role that is assumed first. endpoint: of all services, in
    AWS's stead.
    """

    region: str | None
    role: str | None = None
    endpoint: str | None = None

    @classmethod
    def of(cls, uri: str) -> SageMakerAddress:
        """What the URI says; the region and the endpoint, where it says none, as AWS's own tools find them.

        Raises WrongUsage, MissingExtra.
        """
        found = _URI.fullmatch(uri)
        if found is None:
            raise WrongUsage(f"{uri!r} is no address on SageMaker", remedy=FORMS)
        query = parse_qs(found["query"] or "", strict_parsing=bool(found["query"]))
        endpoint = query.get("endpoint_url", [os.environ.get(ENDPOINT) or None])[0]
        if set(query) - {"endpoint_url"}:
            raise WrongUsage(f"{uri!r} is no address on SageMaker", remedy=f"{FORMS}, ?endpoint_url=URL")
        if endpoint is not None:
            _check_endpoint(endpoint)
        region = found["region"] or configured_region() or ("us-east-1" if endpoint else None)
        return cls(None, endpoint=endpoint).with_options(region, found["role"])

    @property
    def uri(self) -> str:
        """As the user may write it again: one name for one place."""
        text = "sagemaker"
        if self.region:
            text += f":/{self.region}" + (f"/{self.role}" if self.role else "")
        elif self.endpoint:
            text += ":/"
        return text + (f"?endpoint_url={quote(self.endpoint, safe=':/')}" if self.endpoint else "")

    @property
    def named_region(self) -> str:
        """The region; WrongUsage where nobody has named one."""
        if self.region is None:
            raise WrongUsage(
                "no AWS region is named",
                remedy="--to sagemaker:/eu-west-1, or set AWS_REGION, or: aws configure set region eu-west-1",
            )
        return self.region

    def with_options(self, region: str | None, role: str | None) -> SageMakerAddress:
        """With a region and a role in the place of its own, where they are given; WrongUsage for what is none."""
        if region is not None and not REGION.fullmatch(region):
            meant = "a region comes before the role; " if region.startswith("arn:") else ""
            raise WrongUsage(f"{region!r} is no AWS region", remedy=f"{meant}for example: sagemaker:/eu-west-1")
        if role is not None and not ROLE.fullmatch(role):
            raise WrongUsage(f"{role!r} is no role's ARN", remedy="arn:aws:iam::123456789012:role/NAME")
        return replace(self, region=region or self.region, role=role or self.role)

    def as_dict(self) -> dict[str, Any]:
        """For a step's parameters."""
        return asdict(self)

    @property
    def rehearsal(self) -> bool:
        """Whether what stands there is an emulator on this very machine."""
        host = urlsplit(self.endpoint or "").hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


def configured_region() -> str | None:
    """AWS_REGION, AWS_DEFAULT_REGION, or that of the profile."""
    if os.environ.get("AWS_REGION"):  # the newer name, which botocore reads in some of its versions only
        return os.environ["AWS_REGION"]
    session = need("botocore.session", extra="aws").get_session()
    region: str | None = session.get_config_variable("region")
    return region


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise WrongUsage(
            f"the endpoint {parts._replace(netloc=parts.hostname or '').geturl()!r} is no URL without credentials",
            remedy=f"{ENDPOINT}=http://127.0.0.1:5000",
        )
