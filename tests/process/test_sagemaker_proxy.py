"""The proxy of a rehearsal: requests to AWS's own addresses reach the emulator, others their destination."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.aws.images import Images
from tests.support.processes import PATIENCE, run

from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.emulator import Emulator, rehearsal, tls_context
from likewise.targets.sagemaker.rehearse import environment

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]

# SageMaker's SDK, version 2, calls STS like this.
SDK = """
import boto3
session = boto3.Session()
region = session.region_name
sts = session.client("sts", region_name=region, endpoint_url=f"https://sts.{region}.amazonaws.com")
print(sts.get_caller_identity()["Account"])
own = session.client("sagemaker-runtime", endpoint_url=f"https://runtime.sagemaker.{region}.amazonaws.com")
try:
    own.invoke_endpoint(EndpointName="nowhere", Body=b"")
except own.exceptions.ClientError as error:
    print(error)
session.client("s3", endpoint_url=f"https://s3.{region}.amazonaws.com").create_bucket(
    Bucket="by-name", CreateBucketConfiguration={"LocationConstraint": region}
)
print([each["Name"] for each in session.client("s3").list_buckets()["Buckets"]])
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emulator, Path]]:
    tls, trusted = tls_context(tmp_path_factory.mktemp("tls"), "eu-west-1")
    with rehearsal(Emulator(Images({}), tls=tls)) as emulator:  # type: ignore[arg-type]
        yield emulator, trusted


def connected(emulator: Emulator, address: str) -> socket.socket:
    """A connection to the proxy, with a request for a tunnel to `address`."""
    host, port = emulator.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), PATIENCE)
    connection.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    return connection


def test_the_sdks_calls_to_awss_addresses_stay_in_the_rehearsal(
    proxy: tuple[Emulator, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator, trusted = proxy
    monkeypatch.setenv("NO_PROXY", "*, .amazonaws.com, internal.example")
    own = SageMakerAddress("eu-west-1", endpoint=emulator.url)
    variables = environment(own, "arn:aws:iam::123456789012:role/likewise-rehearsal", trusted)
    assert variables["NO_PROXY"] == variables["no_proxy"] == "127.0.0.1,localhost,internal.example"
    lines = run([sys.executable, "-c", SDK], env={**os.environ, **variables}).stdout.splitlines()
    assert lines[0] == "123456789012"
    assert "Endpoint nowhere of account 123456789012 not found" in lines[1]
    assert "'by-name'" in lines[2]  # with those of other tests of this process


@pytest.mark.parametrize("direct", [True, False])
def test_other_requests_are_passed_on_also_by_the_users_proxy(
    proxy: tuple[Emulator, Path], monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("no_proxy", "127.0.0.1" if direct else "")
        monkeypatch.setenv("https_proxy", f"http://ann:p%40ss@127.0.0.1:{port}")
        with connected(proxy[0], f"127.0.0.1:{port}" if direct else "example.invalid:443") as client:
            other, _ = server.accept()
            with other:
                if direct:
                    assert client.recv(1000) == b"HTTP/1.1 200 Connection established\r\n\r\n"
                else:
                    request = other.recv(1000).decode()
                    assert request.startswith("CONNECT example.invalid:443 HTTP/1.1\r\n")
                    assert "Proxy-Authorization: Basic YW5uOnBAc3M=\r\n" in request
                client.sendall(b"question")
                assert other.recv(1000) == b"question"
                other.sendall(b"answer")
                assert client.recv(1000) == b"answer"
            assert client.recv(1000) == b""


def test_an_unreachable_host_is_reported(proxy: tuple[Emulator, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with connected(proxy[0], f"127.0.0.1:{port}") as client:
        assert client.recv(1000).split(b"\r\n")[0].split()[1] == b"502"
