"""The only place where AWS is asked: clients by service, and every failure as an error of ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

from likewise.core.errors import LikewiseError
from likewise.core.extras import need
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.failures import kind_of, told

CONNECT_S, READ_S = 10, 70  # SageMaker gives a model 60 seconds to answer
ASSUMED_S = 2700.0  # an assumed role's credentials last an hour
MESSAGE = 1500  # characters of what AWS says
PLACEHOLDER = "rehearsal"  # credentials for an emulator on this machine
_SECRETS = re.compile(r"(x-amz-security-token:|\b(?:AKIA|ASIA)[A-Z0-9]{12})\S*", re.IGNORECASE)


class Aws:
    """AWS at a region, as whoever is logged in, or as a role that is assumed."""

    def __init__(self, at: SageMakerAddress) -> None:
        self.at = at
        self._clients: dict[str, Any] = {}
        self._secrets: list[str] = []
        self._session: Any = None
        self._since = 0.0

    def call(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """The answer of `operation`, as boto3 names it; the error of ours where there is none."""
        answer: dict[str, Any] = self.run(service, operation, lambda client: getattr(client, operation)(**params))
        return answer

    def find(self, service: str, operation: str, **params: Any) -> dict[str, Any] | None:
        """The same; None where AWS has no such thing."""
        return self.attempt(("missing",), service, operation, **params)

    def make(self, service: str, operation: str, **params: Any) -> dict[str, Any] | None:
        """The same; None where it is there already."""
        return self.attempt(("taken",), service, operation, **params)

    def attempt(self, unless: Collection[str], service: str, operation: str, **params: Any) -> dict[str, Any] | None:
        """The same; None for a failure of these kinds, as `failures.KINDS` has them."""

        def ask(client: Any) -> Any:
            try:
                return getattr(client, operation)(**params)
            except need("botocore.exceptions", extra="aws").ClientError as error:
                if kind_of(error) in unless:
                    return None
                raise

        answer: dict[str, Any] | None = self.run(service, operation, ask)
        return answer

    def pages(self, service: str, operation: str, key: str, **params: Any) -> list[Any]:
        """The list `key` over all pages of the answer."""

        def collect(client: Any) -> list[Any]:
            pages = client.get_paginator(operation).paginate(**params)
            return [each for page in pages for each in page.get(key, [])]

        found: list[Any] = self.run(service, operation, collect)
        return found

    def url(self, service: str) -> str:
        """Where the service answers."""
        return str(self.run(service, "endpoint", lambda client: client.meta.endpoint_url))

    def scrubbed(self, text: str) -> str:
        """Without credentials, and of bounded length."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return _SECRETS.sub("…", text)[:MESSAGE]

    def run(self, service: str, what: str, work: Callable[[Any], Any]) -> Any:
        """What `work` makes of the service's client; what: how its errors name it."""
        try:
            return work(self._client(service))
        except LikewiseError:
            raise
        except _vendors() as error:
            raise told(kind_of(error), self.scrubbed(f"{service}, {what}: {error}")) from error

    def _client(self, service: str) -> Any:
        if self._session is None or (self.at.role and time.monotonic() - self._since > ASSUMED_S):
            self._clients, self._since = {}, time.monotonic()
            self._session = self._assumed() if self.at.role else self._own()
        if service not in self._clients:
            self._clients[service] = self._made(self._session, service)
        return self._clients[service]

    def _made(self, session: Any, service: str) -> Any:
        config = need("botocore.config", extra="aws").Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"mode": "standard"},
            s3={"addressing_style": "path" if self.at.endpoint else "auto"},
            user_agent_extra="likewise",
        )
        return session.client(service, self.at.named_region, endpoint_url=self.at.endpoint, config=config)

    def _own(self) -> Any:
        session = _session(self.at.named_region)
        if self.at.rehearsal and session.get_credentials() is None:
            session = _session(self.at.named_region, PLACEHOLDER, PLACEHOLDER)
        self._keep_secret(session)
        return session

    def _assumed(self) -> Any:
        asked = self._made(self._own(), "sts").assume_role(RoleArn=self.at.role, RoleSessionName="likewise")
        given = asked["Credentials"]
        credentials = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
        session = _session(self.at.named_region, *credentials)
        self._keep_secret(session)
        return session

    def _keep_secret(self, session: Any) -> None:
        held = session.get_credentials()
        known = held.get_frozen_credentials() if held else None
        if known and known.access_key != PLACEHOLDER:
            self._secrets += [text for text in (known.access_key, known.secret_key, known.token) if text]


def _session(region: str | None, *credentials: str) -> Any:
    """A boto3 session; all share what botocore has read of the services, which takes it a fifth of a second each."""
    core = need("botocore.session", extra="aws").get_session()
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return need("boto3", extra="aws").Session(*credentials, region_name=region, botocore_session=core)


@cache
def _loader(path: str | None) -> Any:
    return need("botocore.loaders", extra="aws").create_loader(path)


def _vendors() -> tuple[type[Exception], ...]:
    botocore, boto3 = need("botocore.exceptions", extra="aws"), need("boto3.exceptions", extra="aws")
    return (botocore.BotoCoreError, botocore.ClientError, botocore.UndefinedModelAttributeError, boto3.Boto3Error)
