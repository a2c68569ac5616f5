"""The landing page: shows the served model, escapes everything, uses no other host, works below any prefix."""

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
    """A parsed page: tags with their attributes, and texts by tag name."""

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


def curl_request(words: list[str]) -> tuple[str, list[str], str]:
    """URL, headers and body of a curl command."""
    assert words[0] == "curl"
    headers = [words[i + 1] for i, word in enumerate(words) if word == "-H"]
    body = words[words.index("-d") + 1] if "-d" in words else ""
    return words[1], headers, body


@every_signature
def test_texts_of_the_model_are_escaped(of: Signature) -> None:
    read = landing(of)
    assert EVIL in "".join(text for texts in read.texts.values() for text in texts)
    assert len(read.all("script")) == 1
    assert not any(name.startswith("on") or name == "style" for _, attributes in read.tags for name in attributes)


def test_the_policy_allows_only_the_pages_own_style_and_script() -> None:
    read = landing(TYPED)
    for tag in ("style", "script"):
        for text in read.texts.get(tag, []):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in CSP
    assert CSP.startswith("default-src 'none'")
    assert "unsafe" not in CSP


def test_links_are_relative_without_other_hosts() -> None:
    read = landing(TYPED)
    targets = [
        attributes[name] for _, attributes in read.tags for name in ("href", "src", "action") if name in attributes
    ]
    assert targets
    assert not [target for target in targets if re.match(r"/|[a-z]+:(?!,)", target) and target != "data:,"]
    assert "url(" not in read.texts["style"][0]
    assert "@import" not in read.texts["style"][0]


def test_labels_and_anchors_have_their_targets() -> None:
    read = landing(TYPED)
    identities = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert {attributes["for"] for attributes in read.all("label")} <= set(identities)
    expected = {attributes["href"][1:] for attributes in read.all("a") if attributes["href"].startswith("#")}
    assert expected <= set(identities)


def test_the_form_has_a_typed_field_for_each_column() -> None:
    read = landing(TYPED)
    expected = {
        "string": ("textarea", "text"),
        **dict.fromkeys(("long", "integer", "double", "float", "temperature"), ("input", "number")),
        "boolean": ("select", "boolean"),
        "datetime": ("input", "date"),
        "binary": ("input", "base64"),
        "ids": ("textarea", "json"),
        EVIL: ("textarea", "json"),
    }
    controls = {name: read.named(name) for name in expected}
    assert {name: (tag, attributes["data-kind"]) for name, (tag, attributes) in controls.items()} == expected
    assert [name for name, (_, attributes) in controls.items() if "data-optional" in attributes] == [
        "temperature",
        "boolean",
    ]
    assert controls["temperature"][1]["value"] == "0.5"
    assert controls["temperature"][1]["data-part"] == "params"


def test_the_form_is_filled_with_the_models_example_including_a_leading_line_break() -> None:
    page = landing_page(model(TEXT, {"inputs": ["\nthe film <b>"]}), engine="e", state="ready", url="http://test/")
    assert "<textarea" in page
    assert ">\n\nthe film &lt;b&gt;</textarea>" in page


@pytest.mark.parametrize("of", [TENSOR, ROWS, Signature(), signature([{"type": "long"}])])
def test_the_form_takes_the_body_if_a_row_cannot_be_entered_by_column(of: Signature) -> None:
    read = landing(of)
    (area,) = read.all("textarea")
    assert area["id"] == "raw"
    assert len(decode(read.texts["textarea"][0].strip().encode(), None, of).table)


@every_signature
@pytest.mark.parametrize("auth", [False, True])
def test_each_curl_command_sends_a_valid_request(of: Signature, auth: bool) -> None:
    read = landing(of, auth=auth, url="http://test/NAME/")
    commands = [shlex.split(text) for text in read.texts["pre"] if text.startswith("curl ")]
    assert len(commands) == (2 if of == Signature() else 3)
    forms = []
    for url, headers, body in map(curl_request, commands):
        assert ("Authorization: Bearer TOKEN" in headers) is auth
        if url.startswith("http://test/NAME/v2/models/"):
            assert len(decode_infer(body.encode(), None, of).table)
        else:
            assert url == "http://test/NAME/invocations"
            forms.append(decode(body.encode(), "application/json", of).form)
    assert forms == [Form.MLFLOW, Form.LEGACY]


def test_the_curl_command_for_the_terminal_is_one_line_with_the_models_example() -> None:
    example = {"inputs": ["it's <b>"]}
    line = curl_line(model(TEXT, example), "http://test/")
    assert "\n" not in line
    assert json.loads(curl_request(shlex.split(line))[2]) == example


@pytest.mark.parametrize("example", [["not a body"], {"inputs": ["x" * 3000]}])
def test_a_long_example_is_shortened(example: object) -> None:
    assert len(curl_line(model(TEXT, example), "http://test")) < 4500


@pytest.mark.parametrize(
    ("state", "label"), [("ready", "ready"), ("loading", "loading the model"), ("draining", "stopping")]
)
def test_the_page_shows_the_state_of_the_service(state: str, label: str) -> None:
    read = Read(landing_page(model(TEXT), engine="loading", state=state, url="http://test/"))
    assert label in read.texts["strong"]
