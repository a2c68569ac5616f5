"""Tokens from a file: which requests are accepted, and changes of the file while requests are sent."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.support.processes import until_async
from tests.support.service import Service, check_error, client_of, post_texts, served

OPEN = ("/ping", "/health", "/ready", "/v2/health/live", "/v2/health/ready", "/", "/page/page.js")
PAGES = ("/bundle.json", "/openapi.json", "/docs", "/docs/start.js")
CLOSED = (*PAGES, "/version", "/metrics", "/v2", "/v2/models/text", "/v2/models/text/ready")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def guarded(folder: Path, *tokens: str) -> Iterator[tuple[Service, Path]]:
    file = folder / "tokens"
    file.write_text("\n".join(tokens))
    file.chmod(0o600)
    with served(folder / "server.log", token_file=str(file)) as running:
        yield running, file


def test_all_routes_except_health_checks_and_the_page_require_a_token(tmp_path: Path) -> None:
    with guarded(tmp_path, "# of the team", "one", "two") as (running, _), httpx.Client(base_url=running.url) as client:
        for path in OPEN:
            assert client.get(path).status_code == 200
        requests = [client.build_request("GET", path) for path in (*CLOSED, "/nothing")]
        requests += [client.build_request("POST", path) for path in ("/invocations", "/v2/models/text/infer")]
        for request in requests:
            for sent in (
                {},
                bearer("three"),
                {"Authorization": "Bearer"},
                {"Authorization": "one"},
                bearer("# of the team"),
            ):
                request.headers.pop("Authorization", None)
                request.headers.update(sent)
                response = client.send(request)
                check_error(response, 401, "UNAUTHENTICATED", "token")
                assert "Bearer" in response.headers["WWW-Authenticate"]
                basic = "Basic" in response.headers["WWW-Authenticate"]
                assert basic is not sent.get("Authorization", "").startswith("Bearer ")
        body = {"inputs": ["a"]}
        for token in ("one", "two"):
            assert client.post("/invocations", json=body, headers=bearer(token)).status_code == 200
            assert client.post("/invocations", json=body, auth=("anybody", token)).status_code == 200
            for path in CLOSED:
                assert client.get(path, headers=bearer(token)).status_code == 200
        large = client.post("/invocations", content=b"x" * 20_000_000, headers=bearer("three"))
        check_error(large, 401, "UNAUTHENTICATED", "token")
        running.headers = bearer("one")
        assert running.metric("likewise_requests_total", status="401") == 5 * len(requests) + 1


async def flow(running: Service, token: str, statuses: list[int], over: asyncio.Event) -> None:
    """Send requests with `token` continuously."""
    async with client_of(running, headers=bearer(token)) as client:
        while not over.is_set():
            statuses.append((await post_texts(client, "a")).status_code)


def test_tokens_can_be_changed_while_requests_are_sent(tmp_path: Path) -> None:
    async def last(statuses: list[int], expected: int) -> None:
        """Wait until ten responses in a row have this status."""
        before = len(statuses)
        await until_async(lambda: statuses[before:][-10:] == [expected] * 10)

    async def scenario(running: Service, file: Path) -> None:
        kept: list[int] = []
        first: list[int] = []
        second: list[int] = []
        over = asyncio.Event()
        flows = [(kept, "kept"), (first, "first"), (second, "second")]
        tasks = [asyncio.create_task(flow(running, token, statuses, over)) for statuses, token in flows]
        await last(first, 200)
        await last(second, 401)
        new = file.with_name("new")
        new.write_text("second\nkept")
        new.replace(file)
        await last(first, 401)
        await last(second, 200)
        file.write_text("kept\nfirst\n")
        await last(first, 200)
        await last(second, 401)
        file.unlink()
        await last(first, 200)
        await last(second, 401)
        over.set()
        await asyncio.gather(*tasks)
        assert set(kept) == {200}
        assert set(first) | set(second) == {200, 401}

    with guarded(tmp_path, "first", "kept") as (running, file):
        asyncio.run(scenario(running, file))
