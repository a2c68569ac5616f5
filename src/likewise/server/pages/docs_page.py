"""The page at `/docs`: the OpenAPI document as plain HTML, read without JavaScript."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

from likewise.server.pages.look import code, framed, table

_Json = Mapping[str, Any]
_TICKED = re.compile(r"`([^`]+)`")
_BOUNDS = (("minimum", "at least"), ("maximum", "at most"), ("minItems", "at least"), ("maxItems", "at most"))


class _Operation(NamedTuple):
    method: str
    path: str
    held: _Json
    parameters: list[_Json]

    @property
    def anchor(self) -> str:
        return f"op-{self.held['operationId']}"


def docs_page(description: _Json) -> str:
    """HTML of the OpenAPI document `description`, to be sent with `page.CSP`; it asks no other host for anything."""
    info = description["info"]
    parts = (
        f"<header><h1>{escape(info['title'])}: the API</h1><p>{_prose(info.get('description', ''))}</p></header>",
        f'<nav aria-label="Routes"><h2>Routes</h2>{_contents(description)}</nav>',
        f"<main>{''.join(_tagged(description))}",
        f"<h2 id=errors>Errors</h2>{_errors(description)}",
        f"<h2 id=schemas>Schemas</h2>{''.join(_schemas(description))}</main>",
        '<footer><a href="./">The model</a><a href="openapi.json">openapi.json</a></footer>',
    )
    return framed(f"{info['title']}: the API", "\n".join(parts))


def _operations(description: _Json) -> Iterator[_Operation]:
    for path, item in description["paths"].items():
        for method, held in item.items():
            if method != "parameters":
                yield _Operation(method, path, held, [*item.get("parameters", []), *held.get("parameters", [])])


def _contents(description: _Json) -> str:
    entries = "".join(f'<li><a href="#{op.anchor}">{_title(op)}</a>' for op in _operations(description))
    return f'<ul>{entries}<li><a href="#errors">Errors</a><li><a href="#schemas">Schemas</a></ul>'


def _title(op: _Operation) -> str:
    return f'<span class="method">{op.method.upper()}</span><span>{escape(op.path)}</span>'


def _tagged(description: _Json) -> Iterator[str]:
    """A section a tag, with its operations."""
    operations = list(_operations(description))
    for tag in description.get("tags", []):
        yield f"<h2>{escape(tag['description'])}</h2>"
        yield from (_operation(op, description) for op in operations if tag["name"] in op.held.get("tags", []))


def _operation(op: _Operation, description: _Json) -> str:
    text = op.held.get("description", "")
    prose = "".join(f"<p>{_prose(one)}</p>" for one in (op.held.get("summary", ""), text) if one)
    return (
        f"<section><h3 id={op.anchor}>{_title(op)}</h3>{prose}{_parameters(op)}{_body(op)}"
        f"<h4>From a shell</h4><pre>{escape(_curl(op, description))}</pre>{_responses(op, description)}</section>"
    )


def _parameters(op: _Operation) -> str:
    if not op.parameters:
        return ""
    rows = [(code(one["name"]), escape(one["in"]), _type(one["schema"]), _text(one)) for one in op.parameters]
    return f"<h4>Parameters</h4>{table(('Name', 'In', 'Type', ''), rows)}"


def _body(op: _Operation) -> str:
    contents = op.held.get("requestBody", {}).get("content", {})
    parts = [
        f"<p>{code(kind)}: {_type(media['schema'])} {_text(media['schema'])}</p>{_examples(media)}"
        for kind, media in contents.items()
    ]
    return f"<h4>Body</h4>{''.join(parts)}" if parts else ""


def _examples(media: _Json) -> str:
    return "".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(_written(example['value']))}</pre></details>"
        for name, example in media.get("examples", {}).items()
    )


def _responses(op: _Operation, description: _Json) -> str:
    rows = [_response(status, held, description) for status, held in op.held["responses"].items()]
    return f"<h4>Answers</h4>{table(('Status', 'Means', 'Body'), rows)}"


def _response(status: str, held: _Json, description: _Json) -> tuple[str, str, str]:
    found = _resolved(held, description)
    bodies = [
        _type(media["schema"]) if kind == "application/json" and "schema" in media else code(kind)
        for kind, media in found.get("content", {}).items()
    ]
    return escape(status), _text(found), "<br>".join(bodies)


def _errors(description: _Json) -> str:
    """Every error with its statuses, and the body of one of them."""
    components = description["components"]["responses"]
    statuses: dict[str, str] = {}
    for op in _operations(description):
        statuses |= {held.get("$ref", "").rpartition("/")[2]: status for status, held in op.held["responses"].items()}
    rows = [(statuses.get(name, ""), escape(name), _error_text(held)) for name, held in components.items()]
    media = [held["content"]["application/json"] for held in components.values()]
    shown = next((_written(one["example"]) for one in media if "example" in one), "")
    return f"{table(('Status', 'Name', 'Means'), rows)}<h4>The body of one</h4><pre>{escape(shown)}</pre>"


def _error_text(held: _Json) -> str:
    own = [code(name) for name, header in held["headers"].items() if "$ref" not in header]
    return " ".join([_text(held), *(f"Header: {name}." for name in own)])


def _schemas(description: _Json) -> Iterator[str]:
    for name, schema in description["components"]["schemas"].items():
        members = [(code(one), _type(held), _text(held)) for one, held in schema.get("properties", {}).items() if held]
        held = table(("Member", "Type", ""), members) if members else f"<p>{_type(schema)}</p>"
        yield (
            f'<section><h3 id="schema-{escape(name)}">{escape(name)}</h3><p>{_text(schema)}</p>{held}'
            f"<details><summary>JSON Schema</summary><pre>{escape(_written(schema))}</pre></details></section>"
        )


def _type(schema: Any) -> str:
    """A schema in a few words of HTML."""
    if not isinstance(schema, Mapping):
        return "nothing" if schema is False else "anything"
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return " or ".join(code(json.dumps(one)) for one in schema.get("enum", [schema.get("const")]))
    kinds = schema.get("type", "anything")
    return " or ".join(_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _kind(kind: str, schema: _Json) -> str:
    if kind == "array":
        return _list(schema)
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    if kind == "object" and schema.get("properties"):
        names = [code(name) for name, held in schema["properties"].items() if held is not False]
        return f"object with {', '.join(names)}"
    bounds = [f"{words} {schema[key]:,}" for key, words in _BOUNDS[:2] if key in schema and kind == "integer"]
    return f"{escape(kind)} ({', '.join(bounds)})" if bounds else escape(kind)


def _list(schema: _Json) -> str:
    bounds = [f"{words} {schema[key]}" for key, words in _BOUNDS[2:] if key in schema]
    if "prefixItems" in schema:
        return f"list of ({', '.join(_type(one) for one in schema['prefixItems'])})"
    size = f" ({', '.join(bounds)})" if bounds else ""
    element = _type(schema["items"]) if schema.get("items") else ""
    return f"list of {f'({element})' if ' or ' in element else element}{size}" if element else f"list{size}"


def _curl(op: _Operation, description: _Json) -> str:
    """The command that asks the route, with the first example that there is."""
    path = op.path
    for one in op.parameters:
        if one["in"] == "path":
            path = path.replace(f"{{{one['name']}}}", str(one["schema"].get("enum", ["1"])[0]))
    words = ["curl", f"{description['servers'][0]['url'].rstrip('/')}{path}"]
    if op.held.get("security", description.get("security")):
        words += ["-H", "Authorization: Bearer TOKEN"]
    for kind, media in op.held.get("requestBody", {}).get("content", {}).items():
        if examples := media.get("examples"):
            value = next(iter(examples.values()))["value"]
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            return shlex.join([*words, "-H", f"Content-Type: {kind}", "-d", text])
    return shlex.join(words)


def _resolved(held: _Json, description: _Json) -> _Json:
    if "$ref" not in held:
        return held
    found: Any = description
    for key in held["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return found if isinstance(found, Mapping) else {}


def _text(held: Any) -> str:
    if not isinstance(held, Mapping):
        return ""
    default = f" Default: {code(json.dumps(held['default']))}." if "default" in held else ""
    return f"{_prose(held.get('description', ''))}{default}"


def _prose(text: str) -> str:
    """Escaped, with `ticks` as code."""
    return _TICKED.sub(r"<code>\1</code>", escape(text))


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
