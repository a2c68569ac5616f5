"""The only module that calls AWS: one client per service, and every failure as a LikewiseError."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from likewise.core.errors import LikewiseError
from likewise.core.extras import need
from likewise.core.proxies import proxied, proxy_for
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.failures import error_for, kind_of

CONNECT_S, READ_S = 10, 70  # SageMaker gives a model 60 seconds to respond
ROLE_SESSION_S = 2700.0  # an assumed role's credentials last an hour
MAX_MESSAGE = 1500  # characters of AWS's error message
PLACEHOLDER = "rehearsal"  # credentials for an emulator on this machine
_SECRETS = re.compile(r"(x-amz-security-token:|\b(?:AKIA|ASIA)[A-Z0-9]{12})\S*", re.IGNORECASE)


class Aws:
    """AWS in one region, with the user's credentials or those of an assumed role."""

    def __init__(self, at: SageMakerAddress) -> None:
        self.at = at
        self._clients: dict[str, Any] = {}
        self._secrets: list[str] = []
        self._session: Any = None
        self._since = 0.0

    def call(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """The response of `operation`, a method name of the boto3 client; a LikewiseError if the call fails."""
        response: dict[str, Any] = self.run(service, operation, lambda client: getattr(client, operation)(**params))
        return response

    def find(self, service: str, operation: str, **params: Any) -> dict[str, Any] | None:
        """Like `call`, but None if the resource does not exist."""
        return self.attempt(("missing",), service, operation, **params)

    def create(self, service: str, operation: str, **params: Any) -> dict[str, Any] | None:
        """Like `call`, but None if the resource exists already."""
        return self.attempt(("taken",), service, operation, **params)

    def attempt(self, ignored: Collection[str], service: str, operation: str, **params: Any) -> dict[str, Any] | None:
        """Like `call`, but None if it fails with one of the `ignored` kinds, which are keys of `failures.KINDS`."""

        def send(client: Any) -> Any:
            try:
                return getattr(client, operation)(**params)
            except need("botocore.exceptions", extra="aws").ClientError as error:
                if kind_of(error) in ignored:
                    return None
                raise

        response: dict[str, Any] | None = self.run(service, operation, send)
        return response

    def pages(self, service: str, operation: str, key: str, **params: Any) -> list[Any]:
        """The items of the list `key` from all pages of the response."""

        def collect(client: Any) -> list[Any]:
            pages = client.get_paginator(operation).paginate(**params)
            return [each for page in pages for each in page.get(key, [])]

        items: list[Any] = self.run(service, operation, collect)
        return items

    def url(self, service: str) -> str:
        """The endpoint URL of the service."""
        return str(self.run(service, "endpoint", lambda client: client.meta.endpoint_url))

    def scrubbed(self, text: str) -> str:
        """`text` without credentials, cut to MAX_MESSAGE characters."""
        return self.without_secrets(text)[:MAX_MESSAGE]

    def without_secrets(self, text: str) -> str:
        """`text` without credentials."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return _SECRETS.sub("…", text)

    def run(self, service: str, what: str, work: Callable[[Any], Any]) -> Any:
        """Call `work` with the service's boto3 client and return its result; what: the operation's name in errors."""
        try:
            return work(self._client(service))
        except LikewiseError:
            raise
        except _library_exceptions() as error:
            kind, client = kind_of(error), self._clients.get(service)
            via = proxied(client.meta.endpoint_url)[0] if client and kind == "unreachable" else ""
            raise error_for(kind, self.scrubbed(f"{service}, {what}{via}: {error}")) from error

    def _client(self, service: str) -> Any:
        if self._session is None or (self.at.role and time.monotonic() - self._since > ROLE_SESSION_S):
            self._clients, self._since = {}, time.monotonic()
            self._session = self._assumed_role_session() if self.at.role else self._default_session()
        if service not in self._clients:
            self._clients[service] = self._new_client(self._session, service)
        return self._clients[service]

    def _new_client(self, session: Any, service: str) -> Any:
        config = need("botocore.config", extra="aws").Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"mode": "standard"},
            s3={"addressing_style": "path" if self.at.endpoint else "auto"},
            user_agent_extra="likewise",
            proxies=self._proxies(),
        )
        return session.client(service, self.at.named_region, endpoint_url=self.at.endpoint, config=config)

    def _proxies(self) -> dict[str, str] | None:
        """The proxy by URL scheme; None to let botocore choose it for the service's own endpoint."""
        if self.at.endpoint is None:
            return None
        proxy = proxy_for(self.at.endpoint)
        return {urlsplit(self.at.endpoint).scheme: proxy} if proxy else {}

    def _default_session(self) -> Any:
        session = _session(self.at.named_region)
        if self.at.rehearsal and session.get_credentials() is None:
            session = _session(self.at.named_region, PLACEHOLDER, PLACEHOLDER)
        self._register_secrets(session)
        return session

    def _assumed_role_session(self) -> Any:
        sts = self._new_client(self._default_session(), "sts")
        keys = sts.assume_role(RoleArn=self.at.role, RoleSessionName="likewise")["Credentials"]
        session = _session(self.at.named_region, keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        self._register_secrets(session)
        return session

    def _register_secrets(self, session: Any) -> None:
        credentials = session.get_credentials()
        keys = credentials.get_frozen_credentials() if credentials else None
        if keys and keys.access_key != PLACEHOLDER:
            self._secrets += [text for text in (keys.access_key, keys.secret_key, keys.token) if text]


def _session(region: str | None, *credentials: str) -> Any:
    """A boto3 session; all sessions share one loader, because reading a service model takes about 0.2 seconds."""
    core = need("botocore.session", extra="aws").get_session()
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return need("boto3", extra="aws").Session(*credentials, region_name=region, botocore_session=core)


@cache
def _loader(path: str | None) -> Any:
    return need("botocore.loaders", extra="aws").create_loader(path)


def _library_exceptions() -> tuple[type[Exception], ...]:
    botocore, boto3 = need("botocore.exceptions", extra="aws"), need("boto3.exceptions", extra="aws")
    return (botocore.BotoCoreError, botocore.ClientError, botocore.UndefinedModelAttributeError, boto3.Boto3Error)
