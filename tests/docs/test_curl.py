"""The server can decode what the documentation's curl commands send."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from likewise.core.signature import Signature
from likewise.wire import decode

ROOT = Path(__file__).parents[2]
FORM = "application/x-www-form-urlencoded"  # curl's default for -d


def test_bodies_of_curl_commands_are_decoded() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
    commands = [shlex.split(line) for line in re.findall(r"^curl .*$", pages.replace("\\\n", " "), re.M)]
    bodies = 0
    for words in commands:
        headers = [words[at + 1] for at, word in enumerate(words) if word in ("-H", "--header")]
        types = [
            value.strip() for name, _, value in (each.partition(":") for each in headers) if name == "Content-Type"
        ]
        for at, word in enumerate(words):
            if word in ("-d", "--data", "--data-raw"):
                assert len(decode(words[at + 1].encode(), (types or [FORM])[0], Signature()).table)
                bodies += 1
    assert bodies
