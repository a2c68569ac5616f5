"""The landing page at `/`: the served model, a form to try it, and curl commands."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from likewise.core.signature import Field
from likewise.core.tensors import shape_of
from likewise.server.description.examples import Example, example_of
from likewise.server.model import ServedModel

ASSETS = Path(__file__).with_name("assets")
DOCS = (ASSETS / "docs.html").read_text()
"""The page at `/docs`, the same for every model: Swagger UI, which reads `/openapi.json`."""

_STYLE = (ASSETS / "style.css").read_text()
_SCRIPT = (ASSETS / "page.js").read_text()


def _policy(script: str, style: str) -> str:
    """A Content-Security-Policy that allows `script`, `style` and requests to this server."""
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CSP = _policy(_allowed(_SCRIPT), _allowed(_STYLE))
"""The Content-Security-Policy header of `/`: only its own script and style."""

DOCS_CSP = _policy("'self'", "'self'")
"""The Content-Security-Policy header of `/docs`: only the files below it."""

_EXAMPLE_SHOWN = 2000
_SHELL_BREAK = " \\\n  "
_LONG = 60  # characters; longer texts get a taller field
_JSON_TYPE = "Content-Type: application/json"
_BEARER = "Authorization: Bearer TOKEN"
_KINDS = {"string": "text", "boolean": "boolean", "datetime": "date", "binary": "base64"} | dict.fromkeys(
    ("integer", "long", "float", "double"), "number"
)
_STATES = {"ready": ("good", "ready"), "loading": ("warn", "loading the model"), "draining": ("warn", "stopping")}
_ANSWER = (
    '<section id="answer" aria-live="polite" hidden><p><strong id="status"></strong> '
    '<small id="request" class="faint"></small></p><div id="why"></div>'
    '<pre id="body"></pre><details><summary>Request body</summary><pre id="sent"></pre></details></section>'
)
_LINKS = (("docs", "API"), ("openapi.json", "openapi.json"), ("metrics", "Metrics"), ("ready", "Readiness"))


def landing_page(model: ServedModel, *, engine: str, state: str, url: str, auth: bool = False) -> str:
    """The page as HTML; send it with the header `CSP`.

    url: the address that the client used; auth: whether the curl commands need a token.
    """
    example = example_of(model)
    links = "".join(f'<a data-here href="{href}">{text}</a>' for href, text in _LINKS)
    parts = (
        f"<header><h1>{escape(model.model_name)}</h1>{_facts(model, engine, state)}</header>",
        f"<main><h2>Try it</h2>{_form(model, example)}{_ANSWER}",
        f"<h2>Signature</h2>{_signature(model)}",
        f"<h2>From a shell</h2>{_shell(model, example, url, auth=auth)}</main>",
        f"<footer>{links}</footer>",
    )
    return _framed(model.model_name, "\n".join(parts))


def curl_line(model: ServedModel, url: str) -> str:
    """A shell command that sends the model's example to the service at `url`."""
    return " ".join(_curl(url, "invocations", _own_example(model), auth=False))


def _facts(model: ServedModel, engine: str, state: str) -> str:
    kind, words = _STATES.get(state, ("warn", state))
    facts = [
        ("State", f'<strong class="{kind}">{escape(words)}</strong>'),
        ("Model", _code(model.name)),
        *([("Version", _code(model.version))] if model.version else []),
        ("Model digest", _code(model.digest)),
        ("Build digest", _code(model.build)),
        ("Engine", _code(engine)),
    ]
    return f'<dl class="facts">{"".join(f"<dt>{name}<dd>{value}" for name, value in facts)}</dl>'


def _signature(model: ServedModel) -> str:
    signature = model.signature
    params = [
        (_code(field.name), escape(_type(field.raw)), _code(_shown(field.raw.get("default"))))
        for field in signature.params or ()
    ]
    parameters = f"<h3>Parameters</h3>{_table(('Name', 'Type', 'Default'), params)}" if params else ""
    return f"<h3>Input</h3>{_fields(signature.inputs)}{parameters}<h3>Output</h3>{_fields(signature.outputs)}"


def _fields(fields: Sequence[Field] | None) -> str:
    if not fields:
        return '<p class="faint">Not specified by the model.</p>'
    rows = [
        (escape(field.name or "unnamed"), escape(_type(field.raw)), "" if field.required else "optional")
        for field in fields
    ]
    return _table(("Column", "Type", ""), rows)


def _type(spec: Mapping[str, Any]) -> str:
    """The type in words, including nested types."""
    kind = str(spec.get("type", spec.get("dtype")))
    if kind == "tensor":
        tensor = spec.get("tensor-spec") or {}
        return f"tensor of {tensor.get('dtype')} {list(tensor.get('shape') or [])}"
    if kind == "array":
        return f"list of {_type(spec.get('items') or {})}"
    if kind == "map":
        return f"map to {_type(spec.get('values') or {})}"
    if kind == "object":
        members = (spec.get("properties") or {}).items()
        return f"object {{{', '.join(f'{name}: {_type(member)}' for name, member in members)}}}"
    return f"list of {kind}" if spec.get("shape") else kind


def _form(model: ServedModel, example: Example | None) -> str:
    """One form field per column if there are columns, else one for the body; the script shows the form."""
    fields = model.signature.inputs or ()
    if _by_field(model):
        values = (example.records or [{}])[0] if example else {}
        columns = "".join(_control(field, values.get(str(field.name)), "columns") for field in fields)
        inner = f'<div class="{"" if len(fields) == 1 else "pair"}">{columns}</div>{_params_form(model)}'
    else:
        text = _dumped({"inputs": example.inputs}) if example else ""
        area = f'<textarea id="raw" data-kind="json" rows="8" spellcheck="false">\n{escape(text)}</textarea>'
        inner = f'<div><label for="raw">Body<span>JSON</span></label>{area}</div>'
    return (
        "<noscript><p>The form needs JavaScript; the curl commands below work without it.</p></noscript>"
        f'<form id="try" hidden autocomplete="off">{inner}<button>Send</button></form>'
    )


def _by_field(model: ServedModel) -> bool:
    """Whether one row can be entered column by column."""
    fields = model.signature.inputs or ()
    fixed = any(field.kind == "tensor" and shape_of(field)[0] not in (-1, 1) for field in fields)
    return model.signature.columns is not None and not fixed


def _params_form(model: ServedModel) -> str:
    params = model.signature.params
    if not params:
        return ""
    fields = "".join(_control(field, field.raw.get("default"), "params") for field in params)
    legend = "Parameters; the default if left empty"
    return f'<fieldset><legend>{legend}</legend><div class="pair">{fields}</div></fieldset>'


def _control(field: Field, value: object, part: str) -> str:
    """A label and the control for the field's type."""
    name, optional = str(field.name), part == "params" or not field.required
    kind = "json" if field.raw.get("shape") else _KINDS.get(field.kind, "json")
    identity = f"{part}-{name}"
    text = "" if value is None else value if kind != "json" and isinstance(value, str) else _shown(value)
    type_text = escape(_type(field.raw) + (", optional" if optional and part == "columns" else ""))
    label = f'<label for="{escape(identity)}">{escape(name)}<span>{type_text}</span></label>'
    attributes = f'id="{escape(identity)}" name="{escape(name)}" data-part="{part}" data-kind="{kind}"'
    attributes += ' data-optional="1"' if optional else ""
    if kind == "boolean":
        return f"<div>{label}{_choice(attributes, text, optional=optional)}</div>"
    if kind in ("text", "json"):
        rows = 6 if len(text) > _LONG * 4 else 3 if len(text) > _LONG or part == "columns" else 1
        return f'<div>{label}<textarea {attributes} rows="{rows}">\n{escape(text)}</textarea></div>'
    hint = {"number": ' inputmode="decimal"', "date": ' placeholder="2026-01-31T09:30:00"'}.get(kind, "")
    return f'<div>{label}<input {attributes}{hint} value="{escape(text)}"></div>'


def _choice(attributes: str, value: str, *, optional: bool) -> str:
    options = [*([""] if optional else []), "true", "false"]
    shown = "".join(f"<option{' selected' if option == value else ''}>{option}" for option in options)
    return f"<select {attributes}>{shown}</select>"


def _shell(model: ServedModel, example: Example | None, url: str, *, auth: bool) -> str:
    commands = [("MLflow 2 and 3", "invocations", _own_example(model))]
    if example is not None:
        legacy, infer = example.records or example.split, example.infer
        commands += [("MLflow 1, bare predictions", "invocations", _dumped(legacy))] if legacy is not None else []
        path = f"v2/models/{model.model_name}/infer"
        commands += [("Open Inference Protocol v2", path, _dumped(infer))] if infer is not None else []
    token = '<p class="faint">Replace TOKEN with one of the server\'s tokens.</p>' if auth else ""
    base = escape(url.rstrip("/"))
    return token + "".join(
        f'<h4>{name}</h4><pre data-url="{base}">{escape(_SHELL_BREAK.join(_curl(url, path, body, auth=auth)))}</pre>'
        for name, path, body in commands
    )


def _curl(url: str, path: str, body: str, *, auth: bool) -> list[str]:
    """The parts of a curl command, quoted for a shell; line breaks are possible between them."""
    token = [["-H", _BEARER]] if auth else []
    parts = [["curl", f"{url.rstrip('/')}/{path}"], *token, ["-H", _JSON_TYPE], ["-d", body]]
    return [shlex.join(part) for part in parts]


def _own_example(model: ServedModel) -> str:
    """The model's own example if it is short, else a shortened or generated one."""
    with suppress(ValueError):
        if model.example and len(model.example) <= _EXAMPLE_SHOWN:
            return _dumped(json.loads(model.example))
    example = example_of(model)
    return _dumped({"dataframe_records": [{}]} if example is None else next(iter(example.bodies().values())))


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _shown(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _framed(title: str, body: str) -> str:
    """A complete HTML document; `body` is HTML, `title` plain text."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n'
        f"<body>\n{body}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; `rows` are HTML cells, `heads` plain text."""
    head = "".join(f"<th scope=col>{escape(name)}" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}" for row in rows)
    return f'<div class="wide"><table><tr>{head}{body}</table></div>'


def _code(text: object) -> str:
    """Escaped text in a `code` element."""
    return f"<code>{escape(str(text))}</code>"
