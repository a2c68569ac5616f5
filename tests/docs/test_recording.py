"""The picture of a terminal in the README, and the script that records it."""

from __future__ import annotations

import html
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"
HOST = re.compile(r"(?:https?:)?//([\w.-]+)")


@pytest.fixture(scope="module")
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", DOCS / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picture_shows_the_commands_and_names_no_other_host(record: ModuleType) -> None:
    text = record.OUTPUT.read_text()
    assert set(HOST.findall(text)) <= {"www.w3.org", "127.0.0.1"}
    assert "/tmp/" not in text
    shown = html.unescape(re.sub(r"<[^>]*>", "", text)).replace("\xa0", " ")
    assert all(command in shown for command in record.COMMANDS)


def test_new_picture_names_no_other_host(record: ModuleType) -> None:
    svg = record.picture([("likewise list", "\x1b[1mflowers\x1b[0m <local>")])
    assert set(HOST.findall(svg)) == {"www.w3.org"}
    assert "flowers" in svg
    assert "&lt;local&gt;" in svg


def test_only_what_remains_on_the_terminal_is_recorded(record: ModuleType) -> None:
    output = "one\r\n\x1b[?25l\x1b[32m⠋\x1b[0m loading\r\x1b[2K50 %\r\n\r\x1b[2K\x1b[1A\x1b[2Kready\r\ntwo\r2\r\n"
    assert record.displayed(output) == "one\nready\n2"
