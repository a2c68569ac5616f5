"""The page at `/docs`: whole, of this host alone, and guarded as the description that it shows."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.docs.generated import ROOT
from tests.support.server_app import client_of, upper_app

from likewise.server import ServerOptions
from likewise.server.pages import ASSETS

LINK = re.compile(r'(?:href|src)="([^"]+)"')
FILES = {"swagger-ui-bundle.js": "javascript", "swagger-ui.css": "css", "start.js": "javascript"}


def ask(scenario: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]], app: Starlette | None = None) -> None:
    async def whole() -> None:
        async with client_of(app or upper_app()) as client:
            await scenario(client)

    asyncio.run(whole())


def test_the_page_and_each_file_that_it_names_are_served() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        page = await client.get("/docs")
        assert page.headers["Content-Type"].startswith("text/html")
        links = [link for link in LINK.findall(page.text) if link != "data:,"]
        assert {f"docs/{name}" for name in FILES} == {link for link in links if link.startswith("docs/")}
        for link in links:
            answer = await client.get(str(page.url.join(link)))
            assert answer.status_code == 200, link
            assert answer.headers["X-Likewise-Bundle"]
        for name, media in FILES.items():
            answer = await client.get(f"/docs/{name}")
            assert answer.headers["Content-Type"].split(";")[0].endswith(media)
            assert answer.content == (ASSETS / "docs" / name).read_bytes()

    ask(scenario)


def test_a_file_is_sent_again_only_where_it_has_changed() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        first = await client.get("/docs/swagger-ui.css")
        assert first.headers["Cache-Control"] == "no-cache"
        known = {"If-None-Match": first.headers["ETag"]}
        again = await client.get("/docs/swagger-ui.css", headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["Cache-Control"] == "no-cache"
        other = await client.get("/docs/start.js", headers=known)
        assert other.status_code == 200

    ask(scenario)


@pytest.mark.parametrize("path", ["/docs/", "/docs/nothing.js", "/docs/..%2fpage.js", "/docs/%2e%2e", "/docs/a%00b"])
def test_there_is_nothing_else_below_it(path: str) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")

    ask(scenario)


def test_it_is_only_read_and_counted_under_one_name() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/docs/start.js")
        assert (answer.status_code, answer.json()["error_code"]) == (405, "BAD_REQUEST")
        assert "GET" in answer.headers["Allow"]
        for name in ("start.js", "nothing", "a/b"):
            await client.get(f"/docs/{name}")
        text = (await client.get("/metrics")).text
        assert set(re.findall(r'route="(/docs[^"]*)"', text)) == {"/docs/{file}"}

    ask(scenario)


def test_the_policy_allows_files_of_this_server_and_no_script_within_the_page() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        page = await client.get("/docs")
        policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'self'",
        }
        assert not re.search(r"<script>|<style|\son\w+=|style=", page.text)
        assert all(not re.match(r"/|\w+:(?!,)", link) for link in LINK.findall(page.text))

    ask(scenario)


def test_every_file_of_it_asks_for_a_token_as_the_description_does(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("one")
    paths = ("/docs", "/openapi.json", *(f"/docs/{name}" for name in FILES))

    async def scenario(client: httpx.AsyncClient) -> None:
        for path in paths:
            refused = await client.get(path)
            assert (refused.status_code, refused.headers["WWW-Authenticate"][:5]) == (401, "Basic")
            assert (await client.get(path, auth=("anybody", "one"))).status_code == 200

    ask(scenario, upper_app(options=ServerOptions(token_file=tokens)))


def test_it_stands_below_a_prefix() -> None:
    inner = upper_app()
    app = Starlette(routes=[Mount("/NAME", inner)], lifespan=lambda _: inner.router.lifespan_context(inner))
    app.state = inner.state

    async def scenario(client: httpx.AsyncClient) -> None:
        page = await client.get("/NAME/docs")
        for link in LINK.findall(page.text):
            if link != "data:,":
                assert (await client.get(str(page.url.join(link)))).status_code == 200, link

    ask(scenario, app)


def test_what_is_vendored_is_of_the_version_that_the_makefile_names() -> None:
    version = re.search(r"^SWAGGER_UI := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert f'PACKAGE_VERSION:"{version[1]}"' in (ASSETS / "docs" / "swagger-ui-bundle.js").read_text()
    assert "SmartBear" in (ASSETS / "docs" / "NOTICE").read_text()
