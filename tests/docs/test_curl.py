"""The curl commands of the documentation: the server decodes all bodies, and answers the first one of each page."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from tests.docs.pages import PAGES, commands
from tests.support.processes import LIKEWISE, running
from tests.support.sentiment_store import Store

from likewise.core.signature import Signature
from likewise.wire import decode

FORM = "application/x-www-form-urlencoded"  # curl's default for -d
IRIS = ("five-minutes.md", "migration.md")  # of another model: tests/docs/test_tutorials.py runs their commands
FIRST = {page.name: curls[0] for page in PAGES if page.name not in IRIS and (curls := list(commands(page, "curl")))}


def test_bodies_of_curl_commands_are_decoded() -> None:
    bodies = 0
    for words in (words for page in PAGES for words in commands(page, "curl")):
        headers = [words[at + 1] for at, word in enumerate(words) if word in ("-H", "--header")]
        types = [
            value.strip() for name, _, value in (each.partition(":") for each in headers) if name == "Content-Type"
        ]
        for at, word in enumerate(words):
            if word in ("-d", "--data", "--data-raw"):
                body = words[at + 1].encode()
                if "/v2/models/" not in " ".join(words):
                    assert len(decode(body, (types or [FORM])[0], Signature()).table)
                bodies += 1
    assert bodies


@pytest.fixture(scope="module")
def url(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the demo's pipeline."""
    log = tmp_path_factory.mktemp("curl") / "log"
    with running([*LIKEWISE, "serve", store.bundle, "--port", "0", "--json"], log, env=store.env) as server:
        address = server.document()["url"]
        server.wait_for_response(f"{address}/ready")
        yield address


@pytest.mark.parametrize("page", FIRST)
def test_the_first_curl_command_of_a_page_is_answered(url: str, page: str) -> None:
    """On the server's own route: the page's may be that of another target."""
    words = [f"{url}/invocations" if word.startswith("http://") else word for word in FIRST[page]]
    done = subprocess.run([*words, "--fail-with-body", "--silent"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "prediction_label" in done.stdout
