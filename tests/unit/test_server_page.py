"""The page at `/`: the shell and its curl commands, and the facts of `/bundle.json`.  Its script: test_page_browser."""

import asyncio
import json
import re
import shlex
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.docs.generated import ROOT
from tests.support.server_app import client_of, upper_app

from likewise.bundles.format import EngineEntry, LoggedEnvironment, Manifest, Reference
from likewise.bundles.open import write_manifest
from likewise.core.signature import Signature
from likewise.engine.accelerate.agreement import Agreement
from likewise.engine.rates import cpu_class, label
from likewise.server import ServedModel, ServerOptions
from likewise.server.pages import ASSETS, CSP, curl_line, facts, landing_page
from likewise.serving import served_model
from likewise.wire import Form, decode
from likewise.wire.oip import decode_infer

EVIL = '<script>alert("1")</script>\'&$name'
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
    return ServedModel(name=name, digest=f"sha256:{EVIL}", signature=of, example=raw, version="6", facts={"bytes": 1})


def landing(of: Signature, *, auth: bool = False, example: object = None, url: str = "http://test/") -> Read:
    return Read(landing_page(model(of, example), url=url, auth=auth))


def stated(of: Signature, example: object = None) -> Any:
    return json.loads(json.dumps(facts(model(of, example), engine="text/fp32", state="ready")))


every_signature = pytest.mark.parametrize("of", [TYPED, TENSOR, ROWS, TEXT, Signature()])


def curl_request(words: list[str]) -> tuple[str, list[str], str]:
    """URL, headers and body of a curl command."""
    assert words[0] == "curl"
    headers = [words[i + 1] for i, word in enumerate(words) if word == "-H"]
    body = words[words.index("-d") + 1] if "-d" in words else ""
    return words[1], headers, body


@every_signature
def test_texts_of_the_model_are_escaped(of: Signature) -> None:
    read = landing(of, example={"inputs": [EVIL]})
    assert [attributes["src"] for attributes in read.all("script")] == ["page/uPlot.iife.min.js", "page/page.js"]
    assert not any(name.startswith("on") or name == "style" for _, attributes in read.tags for name in attributes)
    if of == TEXT:
        assert EVIL in "".join(json.loads(curl_request(shlex.split(read.texts["pre"][0]))[2])["inputs"])


def test_the_policy_allows_only_the_servers_files() -> None:
    assert CSP.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert not re.search("unsafe|sha256|\\*|http", CSP)


def test_links_are_relative_and_have_their_files() -> None:
    read = landing(TYPED)
    targets = [
        attributes[name] for _, attributes in read.tags for name in ("href", "src", "action") if name in attributes
    ]
    assert not [target for target in targets if re.match(r"/|[a-z]+:(?!,)", target) and target != "data:,"]
    files = {target for target in targets if target.startswith("page/")}
    assert files == {f"page/{file.name}" for file in (ASSETS / "page").iterdir()} - {"page/LICENSE"}
    assert all((ASSETS / name).is_file() for name in files)


def test_labels_have_their_targets() -> None:
    read = landing(TYPED)
    identities = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert {attributes["for"] for attributes in read.all("label") if "for" in attributes} <= set(identities)
    named = {attributes["aria-labelledby"] for _, attributes in read.tags if "aria-labelledby" in attributes}
    assert named <= set(identities)


@every_signature
def test_each_curl_command_sends_a_valid_request(of: Signature) -> None:
    read = landing(of, url="http://test/NAME/")
    commands = [shlex.split(text) for text in read.texts["pre"] if text.startswith("curl ")]
    assert len(commands) == (2 if of == Signature() else 3)
    forms = []
    for url, _, body in map(curl_request, commands):
        if url.startswith("http://test/NAME/v2/models/"):
            assert len(decode_infer(body.encode(), None, of).table)
        else:
            assert url == "http://test/NAME/invocations"
            forms.append(decode(body.encode(), "application/json", of).form)
    assert forms == [Form.MLFLOW, Form.LEGACY]


def test_the_page_of_a_server_with_tokens_states_nothing_about_the_model() -> None:
    pages = {landing_page(model(of, {"inputs": ["x"]}), url="http://test/", auth=True) for of in (TYPED, TENSOR)}
    assert len(pages) == 1
    assert Read(pages.pop()).all("body") == [{"data-auth": "yes"}]


@every_signature
def test_facts_are_complete_and_plain(of: Signature) -> None:
    document = stated(of)
    assert {"name", "uri", "version", "digest", "engine", "state", "by_column", "example", "bytes"} <= set(document)
    assert document["by_column"] is (of in (TYPED, TEXT))
    assert "build" not in document
    for part, fields in document["signature"].items():
        assert [(each.get("name"), each["required"]) for each in fields] == [
            (field.name, field.required) for field in getattr(of, part)
        ]
    assert len(decode(json.dumps(document["example"]["body"]).encode(), None, of).table)


def test_facts_have_the_models_own_example() -> None:
    assert stated(TEXT, {"inputs": ["\nthe film <b>"]})["example"]["record"] == {"text": "\nthe film <b>"}


def test_the_page_and_its_files_need_no_token_and_the_facts_do(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("one")

    async def main() -> None:
        async with client_of(upper_app(options=ServerOptions(token_file=tmp_path / "tokens"))) as client:
            page = await client.get("/")
            assert (page.status_code, page.headers["Content-Security-Policy"]) == (200, CSP)
            assert "upper" not in page.text
            for file in (ASSETS / "page").iterdir():
                response = await client.get(f"/page/{file.name}")
                assert (response.content, response.headers["Cache-Control"]) == (file.read_bytes(), "no-cache")
            for path in ("/page/../page.html", "/page/nothing"):
                assert (await client.get(path)).status_code in (401, 404)
            refused = await client.get("/bundle.json", headers={"Authorization": "Bearer two"})
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="likewise"')
            known = await client.get("/bundle.json", headers={"Authorization": "Bearer one"})
            assert (known.json()["name"], known.json()["state"]) == ("upper", "ready")
            routes = (await client.get("/metrics", headers={"Authorization": "Bearer one"})).text
            assert set(re.findall(r'route="(/page[^"]*)"', routes)) == {"/page/{file}"}

    asyncio.run(main())


def test_the_curl_command_for_the_terminal_is_one_line_with_the_models_example() -> None:
    example = {"inputs": ["it's <b>"]}
    line = curl_line(model(TEXT, example), "http://test/")
    assert "\n" not in line
    assert json.loads(curl_request(shlex.split(line))[2]) == {"dataframe_records": [{"text": "it's <b>"}]}


@pytest.mark.parametrize("example", [["not a body"], {"inputs": ["x" * 3000]}])
def test_a_long_example_is_shortened(example: object) -> None:
    assert len(curl_line(model(TEXT, example), "http://test")) < 4500


def test_the_vendored_files_have_the_version_in_the_makefile() -> None:
    version = re.search(r"^UPLOT := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert f"uPlot (v{version[1]})" in (ASSETS / "page" / "uPlot.iife.min.js").read_text()
    assert "Leon Sorokin" in (ASSETS / "page" / "LICENSE").read_text()


def test_facts_of_a_bundle_are_stated_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    fast, code = EngineEntry("openvino", "bf16"), EngineEntry("pyfunc", "native")
    manifest = Manifest(
        {},
        pipeline={"steps": [{"step": "cache"}]},
        references=(Reference("runs:/abc/model", "references/0-model", "declared"),),
        environment=LoggedEnvironment("3.11.4", ("a==1", "b @ https://user:secret@host/b.whl")),
        engines=(code, fast),
        rates={cpu_class(): {label(fast): 50.0}},
        measured={"agreement": {label(fast): asdict(Agreement(10, 0, 0.001, 0.02, 1e-3, "example"))}},
    )
    facts_of_it = dict(served_model(write_manifest(tmp_path, manifest)).facts)
    first, second = facts_of_it.pop("engines")
    assert (first["name"], first["rows_per_second"], first["runs_code"]) == (label(fast), 50.0, False)
    assert first["agreement"].startswith("the same predictions as load_model's on 10 rows")
    assert (second["agreement"], second["rows_per_second"], second["runs_code"]) == (None, None, True)
    assert facts_of_it.pop("bytes") > 0
    assert facts_of_it == {
        "row_wise": False,
        "steps": [{"step": "cache"}],
        "references": ["runs:/abc/model"],
        "python": "3.11.4",
        "requirements": ["a==1", "b @ https://host/b.whl"],
    }
