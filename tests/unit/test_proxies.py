"""Proxies: never to this machine, otherwise as `requests` chooses them; errors name them."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from tests.support.recorder import Recorder, recorder

from likewise.batch.s3 import Bucket
from likewise.core.errors import LikewiseError
from likewise.core.proxies import proxied, proxy_for
from likewise.core.spec import ModelSpec
from likewise.images.containers import is_ready
from likewise.images.registry import Registry
from likewise.parity.backends.services import exchange
from likewise.targets.base import Receipt
from likewise.targets.http_client import Served
from likewise.targets.ray.rollout import _ready
from likewise.targets.ray.target import RayTarget
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.aws import Aws

pytestmark = pytest.mark.slow
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
EVERY_PROXY = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
HOSTS = (
    "model.test",
    "a.model.test",
    "model.test:8000",
    "notmodel.test",
    "10.1.2.3:8000",
    "10.9.2.3",
    "[fd00::7]:8000",
)
EXCLUSIONS = (
    *("", "*", "model.test", ".model.test", "a.model.test, 10.0.0.0/8", "model.test:8000", "10.1.2.3", "10.1.0.0/16"),
    *("10.1.2.0/33", "MODEL.TEST", "test", "10.1.2.3:8000", "other, ,"),
)
RECEIPT = Receipt("ray", "one", ModelSpec("sha256:" + "a" * 64, Path("/bundle"), "m"), {}, {}, "", "")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def proxy() -> Iterator[Recorder]:
    with recorder(status=502, body=b"the proxy cannot connect") as record:
        yield record


@pytest.fixture
def service() -> Iterator[Recorder]:
    with recorder() as record:
        yield record


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("variables", [NAMES[:1], NAMES[1:2], NAMES[2:3], NAMES[:2], NAMES[:3]], ids=len)
def test_the_proxy_is_the_one_that_requests_chooses(
    variables: tuple[str, ...], lower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables:
        value = f"http://{name.partition('_')[0].lower()}.test:3128" if name != "HTTPS_PROXY" else "https.test:3128"
        monkeypatch.setenv(name.lower() if lower else name, value)
    for scheme, host, excluded in itertools.product(("http", "https"), HOSTS, EXCLUSIONS):
        monkeypatch.setenv("no_proxy" if lower else "NO_PROXY", excluded)
        url = f"{scheme}://user:secret@{host}/v2/"
        expected = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        expected = expected and requests.utils.prepend_scheme_if_needed(expected, "http")
        assert proxy_for(url) == expected, (url, excluded)


@pytest.mark.parametrize("variable", EVERY_PROXY)
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1:8000", "localhost:5000", "LOCALHOST", "[::1]:80", "u:p@localhost"]
)
def test_this_machine_is_reached_without_a_proxy(variable: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://proxy.test:3128")
    assert [proxy_for(f"{scheme}://{host}/x") for scheme in ("http", "https")] == [None, None]


def test_messages_name_the_proxy_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxied("http://model.test/") == ("", "")
    monkeypatch.setenv("http_proxy", "http://ann:s3cret@proxy.test:3128/")
    via, advice = proxied("http://model.test:8000/")
    assert "http://proxy.test:3128" in via
    assert "s3cret" not in via + advice
    assert "add model.test to NO_PROXY" in advice


# --- the clients -----------------------------------------------------------------------------------------------------


def verify(url: str) -> None:
    exchange(f"{url}/invocations", {}, 10.0, b"{}", Served())


def predict_on_ray(url: str) -> None:
    RayTarget("ray").predict(dataclasses.replace(RECEIPT, outputs={"run": {"url": url}}), b"{}", "application/json")


def query_registry(url: str) -> None:
    with Registry(urlsplit(url).netloc, wait_s=0.001) as client:
        client.has("demo", "sha256:" + "a" * 64)


def call_aws(url: str) -> None:
    Aws(SageMakerAddress("us-east-1", endpoint=url)).call("sagemaker", "list_endpoints")


def list_s3(url: str) -> None:
    os.environ["AWS_ENDPOINT_URL"] = url  # the fixture restores it
    Bucket.of("s3://models/a/")[0].list("a/")


CLIENTS = (verify, predict_on_ray, query_registry, call_aws, list_s3)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("send", CLIENTS)
def test_no_client_uses_a_proxy_for_this_machine(
    send: Callable[[str], None], lower: bool, proxy: Recorder, service: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES[:3]:
        monkeypatch.setenv(name.lower() if lower else name, proxy.url)
    try:
        send(service.url)
    except LikewiseError:
        assert send is list_s3  # it expects XML
    assert service.seen
    assert proxy.seen == []


def test_a_container_is_ready_without_a_proxy(
    proxy: Recorder, service: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert is_ready(service.url, 10.0)
    assert proxy.seen == []


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("send", CLIENTS)
def test_every_client_uses_the_proxy_for_other_hosts_and_names_it(
    send: Callable[[str], None], proxy: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES[:2]:
        monkeypatch.setenv(name, proxy.url)
    if send is verify:  # returns the proxy's response, and its caller names the proxy
        send("http://model.test:8000")
    else:
        with pytest.raises(LikewiseError) as raised:
            send("http://model.test:8000")
        assert send in (list_s3, call_aws) or proxy.url in raised.value.cause
    assert proxy.seen
    assert all("model.test:8000" in each for each in proxy.seen)


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("send", [verify, predict_on_ray, query_registry, call_aws])
def test_an_unreachable_proxy_is_named(send: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES[:2]:
        monkeypatch.setenv(name, "http://ann:s3cret@127.0.0.1:9")
    with pytest.raises(LikewiseError) as raised:
        send("http://model.test:8000")
    assert "http://127.0.0.1:9" in raised.value.cause
    assert "s3cret" not in raised.value.cause + raised.value.remedy


def test_the_response_of_a_proxy_is_not_taken_for_that_of_a_deployment(
    proxy: Recorder, service: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert _ready("http://model.test:8000", "X-Likewise-Build") is None  # after which the deployment is not rolled back
    assert _ready(service.url, "X-Likewise-Build") == (200, None)


def test_a_proxy_of_another_kind_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "strange://proxy.test:1")
    with pytest.raises(LikewiseError, match=r"strange://proxy\.test:1"):
        query_registry("https://registry.test")
