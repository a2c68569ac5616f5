"""The page at `/docs`: complete, without other hosts, and protected like the OpenAPI document that it shows."""

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
from likewise.server.auth import OPEN_PATHS
from likewise.server.pages import ASSETS

LINK = re.compile(r'(?:href|src)="([^"]+)"')
FILES = {"swagger-ui-bundle.js": "javascript", "swagger-ui.css": "css", "start.js": "javascript"}


def run_scenario(
    scenario: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]], app: Starlette | None = None
) -> None:
    async def main() -> None:
        async with client_of(app or upper_app()) as client:
            await scenario(client)

    asyncio.run(main())


def test_the_page_and_its_files_are_served() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        page = await client.get("/docs")
        assert page.headers["Content-Type"].startswith("text/html")
        links = [link for link in LINK.findall(page.text) if link != "data:,"]
        assert {f"docs/{name}" for name in FILES} == {link for link in links if link.startswith("docs/")}
        for link in links:
            response = await client.get(str(page.url.join(link)))
            assert response.status_code == 200, link
            assert response.headers["X-Likewise-Bundle"]
        for name, media in FILES.items():
            response = await client.get(f"/docs/{name}")
            assert response.headers["Content-Type"].split(";")[0].endswith(media)
            assert response.content == (ASSETS / "docs" / name).read_bytes()

    run_scenario(scenario)


def test_unchanged_files_are_not_sent_again() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        first = await client.get("/docs/swagger-ui.css")
        assert first.headers["Cache-Control"] == "no-cache"
        known = {"If-None-Match": first.headers["ETag"]}
        again = await client.get("/docs/swagger-ui.css", headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["Cache-Control"] == "no-cache"
        other = await client.get("/docs/start.js", headers=known)
        assert other.status_code == 200

    run_scenario(scenario)


@pytest.mark.parametrize("path", ["/docs/", "/docs/nothing.js", "/docs/..%2fpage.js", "/docs/%2e%2e", "/docs/a%00b"])
def test_other_paths_below_docs_are_404(path: str) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        response = await client.get(path)
        assert (response.status_code, response.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")

    run_scenario(scenario)


def test_docs_files_are_read_only_and_share_one_metrics_route() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        response = await client.post("/docs/start.js")
        assert (response.status_code, response.json()["error_code"]) == (405, "BAD_REQUEST")
        assert "GET" in response.headers["Allow"]
        for name in ("start.js", "nothing", "a/b"):
            await client.get(f"/docs/{name}")
        text = (await client.get("/metrics")).text
        assert set(re.findall(r'route="(/docs[^"]*)"', text)) == {"/docs/{file}"}

    run_scenario(scenario)


def test_the_policy_allows_only_this_servers_files_and_no_inline_script() -> None:
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

    run_scenario(scenario)


def test_docs_files_require_a_token_like_the_openapi_document(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("one")
    paths = ("/docs", "/openapi.json", *(f"/docs/{name}" for name in FILES))

    async def scenario(client: httpx.AsyncClient) -> None:
        for path in paths:
            refused = await client.get(path)
            assert (refused.status_code, refused.headers["WWW-Authenticate"][:5]) == (401, "Basic")
            assert (await client.get(path, auth=("anybody", "one"))).status_code == 200

    run_scenario(scenario, upper_app(options=ServerOptions(token_file=tokens)))


def test_only_responses_to_requests_with_a_token_name_the_model(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("one")
    names = {"x-likewise-bundle", "x-likewise-build", "x-likewise-engine"}

    async def scenario(client: httpx.AsyncClient) -> None:
        for path in (*OPEN_PATHS, "/page/page.js", "/page/missing", "/version", "/metrics", "/missing"):
            response = await client.get(path)
            assert not names & response.headers.keys(), path
            assert "sha256:abc" not in response.text, path
            assert response.headers["X-Request-Id"]
        for path in ("/version", "/metrics", "/missing"):
            assert names <= (await client.get(path, auth=("anybody", "one"))).headers.keys(), path

    run_scenario(scenario, upper_app(options=ServerOptions(token_file=tokens)))


def test_docs_work_below_a_path_prefix() -> None:
    inner = upper_app()
    app = Starlette(routes=[Mount("/NAME", inner)], lifespan=lambda _: inner.router.lifespan_context(inner))
    app.state = inner.state

    async def scenario(client: httpx.AsyncClient) -> None:
        page = await client.get("/NAME/docs")
        for link in LINK.findall(page.text):
            if link != "data:,":
                assert (await client.get(str(page.url.join(link)))).status_code == 200, link

    run_scenario(scenario, app)


def test_the_vendored_files_have_the_version_in_the_makefile() -> None:
    version = re.search(r"^SWAGGER_UI := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert f'PACKAGE_VERSION:"{version[1]}"' in (ASSETS / "docs" / "swagger-ui-bundle.js").read_text()
    assert "SmartBear" in (ASSETS / "docs" / "NOTICE").read_text()
