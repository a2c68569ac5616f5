"""Host names: those of a server that only this machine reaches, and access of web pages of other origins."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.server_app import client_of, upper_app

from likewise.core.errors import HostRefused, WrongUsage
from likewise.core.option_fields import as_json, coerce
from likewise.server import ServerOptions
from likewise.server.hosts import Hosts

PAGE = "https://app.example.com"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


def answers(options: ServerOptions, host: str) -> bool:
    hosts = Hosts.of(options)
    try:
        if hosts is not None:
            hosts.check({"headers": [(b"host", host.encode())], "server": ("127.0.0.1", 5000)})
    except HostRefused:
        return False
    return True


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "localhost.:1", "127.0.0.1", "127.8.9.1:5000", "[::1]:5000", "[::1]", ""]
)
def test_a_local_server_answers_for_its_own_names(host: str) -> None:
    assert answers(ServerOptions(), host)


FOREIGN = [
    "evil.example",
    "evil.example:5000",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "0.0.0.0",
    "[::]",
    "x y",
]


@pytest.mark.parametrize("host", FOREIGN)
def test_it_answers_for_no_other_name_unless_it_is_allowed_or_guarded(host: str, tmp_path: Path) -> None:
    assert not answers(ServerOptions(), host)
    assert not answers(ServerOptions(allow_host=("other.example",)), host)
    for more in ({"allow_host": ("*",)}, {"insecure": True}, {"token_file": tmp_path / "tokens"}):
        assert answers(ServerOptions(**more), host)


def test_a_name_can_be_allowed_and_the_one_it_listens_on_is() -> None:
    options = ServerOptions(host="My-Machine", allow_host=("Models.Example",))
    assert answers(options, "models.example:5000")
    assert answers(options, "my-machine:5000")


def scenario(options: ServerOptions, *requests: tuple[str, str, dict[str, str]]) -> list[httpx.Response]:
    """The responses to `(method, path, headers)`."""

    async def main() -> list[httpx.Response]:
        async with client_of(upper_app(options=options)) as client:
            return [await client.request(method, path, headers=headers) for method, path, headers in requests]

    return asyncio.run(main())


def test_a_request_for_another_host_is_refused_on_every_route() -> None:
    paths = ("/ping", "/", "/docs", "/openapi.json", "/metrics", "/v2/health/live", "/nothing")
    foreign = {"Host": "evil.example"}
    responses = scenario(
        ServerOptions(), *(("GET", path, foreign) for path in paths), ("POST", "/invocations", foreign)
    )
    for response in responses:
        assert (response.status_code, response.json()["error_code"]) == (421, "PERMISSION_DENIED")
        assert "--allow-host evil.example" in response.json()["remedy"]
        assert response.headers["X-Request-Id"]


def test_several_hosts_in_one_request_must_all_be_its_own() -> None:
    with pytest.raises(HostRefused):
        Hosts(ServerOptions()).check({"headers": [(b"host", b"localhost"), (b"host", b"evil.example")]})


# --- pages of other origins ------------------------------------------------------------------------------------------


def test_without_the_option_no_origin_may_read() -> None:
    preflight, simple = scenario(
        ServerOptions(), ("OPTIONS", "/invocations", PREFLIGHT), ("GET", "/ping", {"Origin": PAGE})
    )
    assert preflight.status_code == 405
    assert not [name for each in (preflight, simple) for name in each.headers if name.startswith("access-control")]


@pytest.mark.parametrize("allowed", [PAGE, "*"])
def test_an_allowed_origin_may_read_also_errors_and_without_a_token(allowed: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    options = ServerOptions(cors_origin=(allowed,), token_file=tokens)
    wrong = {"Origin": PAGE, "Authorization": "Bearer wrong"}
    preflight, denied, found = scenario(
        options, ("OPTIONS", "/invocations", PREFLIGHT), ("GET", "/version", wrong), ("GET", "/ping", {"Origin": PAGE})
    )
    assert [preflight.status_code, denied.status_code, found.status_code] == [200, 401, 200]
    assert preflight.headers["Access-Control-Allow-Headers"] == "authorization"
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    for response in (preflight, denied, found):
        assert response.headers["Access-Control-Allow-Origin"] == allowed
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert response.headers["X-Request-Id"]
    assert "X-Likewise-Bundle" in found.headers["Access-Control-Expose-Headers"]


def test_another_origin_may_not() -> None:
    other = {**PREFLIGHT, "Origin": "https://app.example.com.evil.example"}
    preflight, simple = scenario(
        ServerOptions(cors_origin=(PAGE,)), ("OPTIONS", "/invocations", other), ("GET", "/ping", other)
    )
    assert preflight.status_code == 400
    assert all("Access-Control-Allow-Origin" not in each.headers for each in (preflight, simple))
    assert "Origin" in simple.headers["Vary"]


@pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/", "https://*.example.com", ""])
def test_an_invalid_origin_is_wrong_usage(origin: str) -> None:
    with pytest.raises(WrongUsage, match="not an origin"):
        upper_app(options=ServerOptions(cors_origin=(origin,)))


@pytest.mark.parametrize("given", ["a.example,b.example", '["a.example", "b.example"]', ["a.example", "b.example"]])
def test_the_options_of_a_deployment_are_words_or_json(given: Any) -> None:
    options = coerce(ServerOptions, {"allow_host": given})
    assert options.allow_host == ("a.example", "b.example")
    assert coerce(ServerOptions, as_json(options)) == options
