"""Credentials of registries in every form that Docker reads; other forms are refused by the name of their key."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likewise.core.errors import Unauthorized
from likewise.images.credentials import HUB_KEY, docker_credentials
from likewise.images.oci import HUB, parse_name
from likewise.images.registry import Registry

HOST = "registry.example:5000"
ANN = base64.b64encode(b"ann:s:3cret").decode()
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_AUTH_CONFIG", raising=False)
    return tmp_path


def configure(folder: Path, document: object) -> None:
    (folder / "config.json").write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.mark.parametrize(
    "key", [HOST, f"https://{HOST}", f"http://{HOST}/", f"https://{HOST}/v1/", f"https://{HOST}/v2/", f"{HOST}/v1/"]
)
def test_a_key_may_be_a_url_of_the_host(key: str, folder: Path) -> None:
    configure(folder, {"auths": {f"other.{HOST}": {"auth": "b3RoZXI6eA=="}, key: {"auth": ANN}}})
    assert docker_credentials(HOST) == ("ann", "s:3cret")
    assert docker_credentials("registry.example") is None


@pytest.mark.parametrize("key", [HUB_KEY, "docker.io", "https://index.docker.io/v2/", "registry-1.docker.io"])
def test_docker_hub_has_several_names(key: str, folder: Path) -> None:
    configure(folder, {"auths": {key: {"auth": ANN}}})
    assert docker_credentials(HUB) == ("ann", "s:3cret")


def test_an_exact_key_comes_first(folder: Path) -> None:
    configure(folder, {"auths": {f"https://{HOST}/v1/": {"auth": "b2xkOng="}, HOST: {"auth": ANN}}})
    assert docker_credentials(HOST) == ("ann", "s:3cret")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": ANN, "email": "ann@example.com"}, ("ann", "s:3cret")),
        ({"auth": base64.b64encode(b"ann:x\0\0").decode()}, ("ann", "x")),
        ({"username": "ann", "password": "x"}, ("ann", "x")),
        ({"auth": "", "username": "ann", "password": "x"}, ("ann", "x")),
        ({"auth": base64.b64encode(b"0000:").decode(), "identitytoken": "t"}, ("<token>", "t")),
        ({"identitytoken": "t", "auth": None}, ("<token>", "t")),
        ({}, None),
        (None, None),
        ({"auth": "", "username": "", "email": "ann@example.com"}, None),
    ],
)
def test_entries_of_each_form(entry: object, expected: tuple[str, str] | None, folder: Path) -> None:
    configure(folder, {"auths": {HOST: entry}})
    assert docker_credentials(HOST) == expected


@pytest.mark.parametrize("document", [{}, {"auths": None}, {"auths": {}, "credHelpers": {}, "credsStore": ""}])
def test_without_credentials_access_is_anonymous(document: object, folder: Path) -> None:
    assert docker_credentials(HOST) is None
    configure(folder, document)
    assert docker_credentials(HOST) is None


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, user: str) -> None:
    program = folder / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\nread host\necho "{{\\"Username\\": \\"{user}\\", \\"Secret\\": \\"$host\\"}}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_helpers_of_a_host_precede_the_store_which_precedes_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(folder, monkeypatch, "mine", "bob")
    helper(folder, monkeypatch, "store", "<token>")
    document = {"credHelpers": {HOST: "mine"}, "credsStore": "store", "auths": {HOST: {"auth": ANN}}}
    configure(folder, document)
    assert docker_credentials(HOST) == ("bob", HOST)
    configure(folder, {**document, "credHelpers": {}})
    assert docker_credentials(HOST) == ("<token>", HOST)
    assert docker_credentials(HUB) == ("<token>", HUB_KEY)
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {HOST: {"auth": ANN}}}))
    assert docker_credentials(HOST) == ("ann", "s:3cret")
    assert docker_credentials("other") == ("<token>", "other")
    configure(folder, {"credsStore": "no-such-helper"})
    with pytest.raises(Unauthorized, match="no-such-helper"):
        docker_credentials("other")


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("{", "config.json"),
        ("[]", "config.json"),
        pytest.param("[" * 100_000, "config.json", id="deep"),
        ({"auths": []}, "auths"),
        ({"auths": {HOST: "secret"}}, f"auths.{HOST}"),
        ({"auths": {HOST: []}}, f"auths.{HOST}"),
        ({"auths": {HOST: {"auth": 5}}}, f"auths.{HOST}.auth"),
        ({"auths": {HOST: {"auth": "secret!"}}}, f"auths.{HOST}.auth"),
        ({"auths": {HOST: {"auth": "c2VjcmV0"}}}, f"auths.{HOST}.auth"),
        ({"auths": {HOST: {"auth": "/w=="}}}, f"auths.{HOST}.auth"),
        ({"auths": {HOST: {"username": "ann"}}}, f"auths.{HOST}.username"),
        ({"auths": {HOST: {"identitytoken": ["secret"]}}}, f"auths.{HOST}.identitytoken"),
        ({"auths": {f"https://{HOST}/v1/": {"registrytoken": "secret"}}}, f"auths.https://{HOST}/v1/.registrytoken"),
        ({"credHelpers": ["secret"]}, "credHelpers"),
        ({"credHelpers": {HOST: {"a": "secret"}}}, f"credHelpers.{HOST}"),
        ({"credsStore": ["secret"]}, "credsStore"),
    ],
)
def test_another_form_is_refused_by_the_name_of_its_key(document: object, named: str, folder: Path) -> None:
    configure(folder, document)
    with pytest.raises(Unauthorized) as refused:
        docker_credentials(HOST)
    assert named in refused.value.cause
    assert "secret" not in refused.value.cause
    assert "docker login" in refused.value.remedy


def objects(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    keys = ["auths", "credHelpers", "credsStore", HOST, f"https://{HOST}/v2/", "auth", "username", "password"]
    return st.dictionaries(st.sampled_from([*keys, "identitytoken"]) | st.text(), values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | objects(inner)
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(document=JSON, auths=JSON, entry=JSON)
def test_any_json_is_read_or_refused(document: object, auths: object, entry: object, folder: Path) -> None:
    for each in (document, {"auths": auths}, {"auths": {HOST: entry}}):
        configure(folder, each)
        try:
            credentials = docker_credentials(HOST)
        except Unauthorized:
            continue
        assert credentials is None or all(isinstance(part, str) for part in credentials)


# --- tokens ----------------------------------------------------------------------------------------------------------


@contextmanager
def token_registry(kind: str, token: bytes = b'{"access_token": "good"}') -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A registry that demands a token or a password; yields its address and the forms that its token service got."""
    forms: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            address = f"127.0.0.1:{self.server.server_address[1]}"
            if self.path.startswith("/token"):
                query = sent or urlsplit(self.path).query
                forms.append({name: values[0] for name, values in parse_qs(query).items()})
                self.reply(200, token)
            elif self.headers.get("Authorization") == "Bearer good":
                self.reply(200, b"{}", media=self.headers["Accept"].split(",")[-1].strip())
            else:
                challenge = (
                    f'Bearer realm="http://{address}/token",service="s"' if kind == "bearer" else 'Basic realm="r"'
                )
                self.reply(401, b"{}", challenge=challenge)

        do_GET = do_HEAD = do_POST = answer  # noqa: N815  the library's names

        def reply(self, status: int, body: bytes, *, media: str = "application/json", challenge: str = "") -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", media),
                ("WWW-Authenticate", challenge),
                ("Content-Length", len(body)),
            ):
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Write no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", forms
        finally:
            server.shutdown()
            thread.join()


def test_an_identity_token_is_exchanged_and_the_request_repeated_with_its_headers(folder: Path) -> None:
    with token_registry("bearer") as (address, forms), Registry(address) as client:
        configure(folder, {"auths": {f"http://{address}/v2/": {"identitytoken": "mine"}}})
        manifest = client.manifest(parse_name(f"{address}/demo:1"))  # without Accept, a registry chooses the type
    assert manifest.document == {}
    assert [(form["grant_type"], form["refresh_token"], form["service"]) for form in forms] == [
        ("refresh_token", "mine", "s")
    ]
    assert forms[0]["scope"] == "repository:demo:pull"


def test_an_identity_token_is_no_password(folder: Path) -> None:
    with token_registry("basic") as (address, _), Registry(address) as client:
        configure(folder, {"auths": {address: {"identitytoken": "mine"}}})
        with pytest.raises(Unauthorized, match="identity token"):
            client.has("demo", DIGEST)


@pytest.mark.parametrize("token", [b"<html>", b"[]", b"{}"])
def test_a_token_service_without_a_token_is_reported(token: bytes) -> None:
    with (
        token_registry("bearer", token) as (address, _),
        Registry(address) as client,
        pytest.raises(Unauthorized, match="issued no token"),
    ):
        client.has("demo", DIGEST)
