"""The page at `/`: all that is served is said, escaped, asks no other host, and stands under any prefix."""

import base64
import hashlib
import json
import re
import shlex
from html.parser import HTMLParser
from typing import Any

import pytest

from likewise.core.signature import Signature
from likewise.server import ServedModel
from likewise.server.pages import CSP, curl_line, landing_page
from likewise.wire import Form, decode
from likewise.wire.oip import decode_infer

EVIL = '<script>alert("1")</script>\'&'
VOID = {"meta", "link", "input", "br"}


class Read(HTMLParser):
    """What a browser would see: tags with their attributes, the texts of each tag by name, ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def named(self, name: str) -> tuple[str, dict[str, str]]:
        return next((tag, attributes) for tag, attributes in self.tags if attributes.get("name") == name)


def signature(inputs: list[dict[str, Any]] | None, params: list[dict[str, Any]] | None = None) -> Signature:
    parts = {"inputs": inputs, "params": params, "outputs": [{"type": "string", "name": EVIL}]}
    return Signature.parse({name: json.dumps(part) for name, part in parts.items() if part is not None})


KINDS = ("string", "long", "integer", "double", "float", "boolean", "datetime", "binary")
TYPED = signature(
    [
        *({"type": kind, "name": kind, "required": kind != "boolean"} for kind in KINDS),
        {"type": "array", "items": {"type": "long"}, "name": "ids"},
        {"type": "map", "values": {"type": "string"}, "name": EVIL},
    ],
    [{"name": "temperature", "type": "double", "default": 0.5, "shape": None}],
)
TENSOR = signature([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}])
ROWS = signature([{"type": "tensor", "name": "t", "tensor-spec": {"dtype": "float32", "shape": [3, 2]}}])
TEXT = signature([{"type": "string", "name": "text"}])


def model(of: Signature, example: object = None, name: str = f"models:/{EVIL}/6") -> ServedModel:
    raw = None if example is None else json.dumps(example).encode()
    return ServedModel(name=name, digest=f"sha256:{EVIL}", signature=of, example=raw, version="6")


def landing(of: Signature, *, auth: bool = False, example: object = None, url: str = "http://test/") -> Read:
    served = model(of, example)
    return Read(landing_page(served, engine=f"text/{EVIL}", state="ready", url=url, auth=auth))


every_signature = pytest.mark.parametrize("of", [TYPED, TENSOR, ROWS, TEXT, Signature()])


def asked(words: list[str]) -> tuple[str, list[str], str]:
    """URL, headers and body of a curl command."""
    assert words[0] == "curl"
    headers = [words[i + 1] for i, word in enumerate(words) if word == "-H"]
    body = words[words.index("-d") + 1] if "-d" in words else ""
    return words[1], headers, body


@every_signature
def test_nothing_of_the_model_becomes_markup(of: Signature) -> None:
    read = landing(of)
    assert EVIL in "".join(text for texts in read.texts.values() for text in texts)
    assert len(read.all("script")) == 1
    assert not any(name.startswith("on") or name == "style" for _, held in read.tags for name in held)


def test_the_policy_allows_just_the_style_and_the_script_that_are_there() -> None:
    read = landing(TYPED)
    for tag in ("style", "script"):
        for text in read.texts.get(tag, []):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in CSP
    assert CSP.startswith("default-src 'none'")
    assert "unsafe" not in CSP


def test_links_are_relative_and_lead_to_no_other_host() -> None:
    read = landing(TYPED)
    targets = [held[name] for _, held in read.tags for name in ("href", "src", "action") if name in held]
    assert targets
    assert not [target for target in targets if re.match(r"/|[a-z]+:(?!,)", target) and target != "data:,"]
    assert "url(" not in read.texts["style"][0]
    assert "@import" not in read.texts["style"][0]


def test_each_label_and_each_anchor_has_what_it_names() -> None:
    read = landing(TYPED)
    identities = [held["id"] for _, held in read.tags if "id" in held]
    assert len(identities) == len(set(identities))
    assert {held["for"] for held in read.all("label")} <= set(identities)
    wanted = {held["href"][1:] for held in read.all("a") if held["href"].startswith("#")}
    assert wanted <= set(identities)


def test_the_form_has_a_field_a_column_of_its_type() -> None:
    read = landing(TYPED)
    wanted = {
        "string": ("textarea", "text"),
        **dict.fromkeys(("long", "integer", "double", "float", "temperature"), ("input", "number")),
        "boolean": ("select", "boolean"),
        "datetime": ("input", "date"),
        "binary": ("input", "base64"),
        "ids": ("textarea", "json"),
        EVIL: ("textarea", "json"),
    }
    found = {name: read.named(name) for name in wanted}
    assert {name: (tag, held["data-kind"]) for name, (tag, held) in found.items()} == wanted
    assert [name for name, (_, held) in found.items() if "data-optional" in held] == ["temperature", "boolean"]
    assert found["temperature"][1]["value"] == "0.5"
    assert found["temperature"][1]["data-part"] == "params"


def test_the_form_begins_with_the_models_example_and_keeps_its_first_line_break() -> None:
    page = landing_page(model(TEXT, {"inputs": ["\nthe film <b>"]}), engine="e", state="ready", url="http://test/")
    assert "<textarea" in page
    assert ">\n\nthe film &lt;b&gt;</textarea>" in page


@pytest.mark.parametrize("of", [TENSOR, ROWS, Signature(), signature([{"type": "long"}])])
def test_where_a_row_cannot_be_given_by_columns_the_form_takes_the_body(of: Signature) -> None:
    read = landing(of)
    (area,) = read.all("textarea")
    assert area["id"] == "raw"
    assert len(decode(read.texts["textarea"][0].strip().encode(), None, of).table)


@every_signature
@pytest.mark.parametrize("auth", [False, True])
def test_each_curl_line_is_a_request_that_is_taken(of: Signature, auth: bool) -> None:
    read = landing(of, auth=auth, url="http://test/NAME/")
    commands = [shlex.split(text) for text in read.texts["pre"] if text.startswith("curl ")]
    assert len(commands) == (2 if of == Signature() else 3)
    forms = []
    for url, headers, body in map(asked, commands):
        assert ("Authorization: Bearer TOKEN" in headers) is auth
        if url.startswith("http://test/NAME/v2/models/"):
            assert len(decode_infer(body.encode(), None, of).table)
        else:
            assert url == "http://test/NAME/invocations"
            forms.append(decode(body.encode(), "application/json", of).form)
    assert forms == [Form.MLFLOW, Form.LEGACY]


def test_the_command_on_the_terminal_is_one_line_with_the_models_own_example() -> None:
    example = {"inputs": ["it's <b>"]}
    line = curl_line(model(TEXT, example), "http://test/")
    assert "\n" not in line
    assert json.loads(asked(shlex.split(line))[2]) == example


@pytest.mark.parametrize("example", [["not a body"], {"inputs": ["x" * 3000]}])
def test_an_example_that_is_too_long_is_not_shown_whole(example: object) -> None:
    assert len(curl_line(model(TEXT, example), "http://test")) < 4500


@pytest.mark.parametrize(
    ("state", "said"), [("ready", "ready"), ("loading", "loading the model"), ("draining", "stopping")]
)
def test_the_page_says_where_the_service_stands(state: str, said: str) -> None:
    read = Read(landing_page(model(TEXT), engine="loading", state=state, url="http://test/"))
    assert said in read.texts["strong"]
