"""The page at `/`: a static shell with curl commands, and the facts of the model that its script shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from string import Template

from likewise.core.errors import LikewiseError
from likewise.core.signature import Field
from likewise.core.tensors import shape_of
from likewise.server.description.examples import Example, example_of
from likewise.server.model import ServedModel

ASSETS = Path(__file__).with_name("assets")
DOCS = (ASSETS / "docs.html").read_text()
"""The page at `/docs`, the same for every model: Swagger UI, which reads `/openapi.json`."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""The Content-Security-Policy header of both pages: only this server's files, and requests to this server."""

_PAGE = Template((ASSETS / "page.html").read_text())
_EXAMPLE_SHOWN = 2000
_SHELL_BREAK = " \\\n  "
_JSON_TYPE = "Content-Type: application/json"
_LOCKED = "The curl commands of the model need one of the server's tokens: read them in openapi.json."


def landing_page(model: ServedModel, *, url: str, auth: bool = False) -> str:
    """The page as HTML; send it with the header `CSP`.

    url: the address that the client used.  auth: whether requests need a token; the page is sent without one, and
    therefore states nothing about the model then.
    """
    commands = f"<p>{_LOCKED}</p>" if auth else _commands(model, example_of(model), url)
    title = "Model server" if auth else escape(model.model_name)
    return _PAGE.substitute(title=title, commands=commands, auth="yes" if auth else "no")


def facts(model: ServedModel, *, engine: str, state: str, trouble: LikewiseError | None = None) -> dict[str, object]:
    """What `/bundle.json` states, as plain JSON: the model, its signature and example, and facts of its bundle.

    trouble: why the model cannot be used.
    """
    signature, example = model.signature, example_of(model)
    parts = {"inputs": signature.inputs, "outputs": signature.outputs, "params": signature.params}
    stated = {
        "name": model.model_name,
        "uri": model.name,
        "version": model.version,
        "digest": model.digest,
        "build": model.build,
        "engine": engine,
        "state": state,
        "trouble": None if trouble is None else f"{trouble.cause}. Remedy: {trouble.remedy}",
        "signature": {name: _fields(fields) for name, fields in parts.items() if fields},
        "by_column": _by_column(model),
        "example": {"record": next(iter(example.records or ()), None), "body": {"inputs": example.inputs}}
        if example
        else None,
        **model.facts,
    }
    return {name: value for name, value in stated.items() if value not in ("", None)}


def curl_line(model: ServedModel, url: str) -> str:
    """A shell command that sends the model's example to the service at `url`."""
    example = example_of(model)
    record = next(iter(example.records or ()), None) if example else None
    body = _own_example(model) if record is None else _dumped({"dataframe_records": [record]})
    return " ".join(_curl(url, "invocations", body))


def _fields(fields: Sequence[Field]) -> list[Mapping[str, object]]:
    return [{**field.raw, "required": field.required} for field in fields]


def _by_column(model: ServedModel) -> bool:
    """Whether one row can be entered column by column."""
    fields = model.signature.inputs or ()
    fixed = any(field.kind == "tensor" and shape_of(field)[0] not in (-1, 1) for field in fields)
    return model.signature.columns is not None and not fixed


def _commands(model: ServedModel, example: Example | None, url: str) -> str:
    commands = [("MLflow 2 and 3", "invocations", _own_example(model))]
    if example is not None:
        legacy, infer = example.records or example.split, example.infer
        commands += [("MLflow 1, bare predictions", "invocations", _dumped(legacy))] if legacy is not None else []
        path = f"v2/models/{model.model_name}/infer"
        commands += [("Open Inference Protocol v2", path, _dumped(infer))] if infer is not None else []
    return "\n".join(
        f"<h3>{name}</h3><pre>{escape(_SHELL_BREAK.join(_curl(url, path, body)))}</pre>"
        for name, path, body in commands
    )


def _curl(url: str, path: str, body: str) -> list[str]:
    """The parts of a curl command, quoted for a shell; line breaks are possible between them."""
    return [shlex.join(part) for part in (["curl", f"{url.rstrip('/')}/{path}"], ["-H", _JSON_TYPE], ["-d", body])]


def _own_example(model: ServedModel) -> str:
    """The model's own example if it is short, else a shortened or generated one."""
    with suppress(ValueError):
        if model.example and len(model.example) <= _EXAMPLE_SHOWN:
            return _dumped(json.loads(model.example))
    example = example_of(model)
    return _dumped({"dataframe_records": [{}]} if example is None else next(iter(example.bodies().values())))


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
