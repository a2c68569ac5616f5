"""The page at `/`: what is served here, and how to ask it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from html import escape

from likewise.core.signature import Field
from likewise.server.model import ServedModel

_EXAMPLE_SHOWN = 2000
_EXAMPLES = {"string": "some text", "boolean": True, "long": 1, "integer": 1, "double": 1.0, "float": 1.0}

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}}
pre{{background:#8881;padding:1rem;white-space:pre-wrap;overflow-wrap:anywhere}}td,th{{text-align:left;padding-right:2rem}}</style>
<h1>{name}</h1>
<p>Bundle <code>{digest}</code><br>Engine <code>{engine}</code><br>State <strong>{state}</strong></p>
<h2>Input</h2>
{inputs}
<h2>Output</h2>
{outputs}
<h2>Ask it</h2>
<pre>{curl}</pre>
"""


def landing_page(model: ServedModel, *, engine: str, state: str, url: str) -> str:
    """HTML; `url` is the address that the asker used."""
    signature = model.signature
    return _PAGE.format(
        name=escape(model.name),
        digest=escape(model.digest),
        engine=escape(engine),
        state=escape(state),
        inputs=_table(signature.inputs),
        outputs=_table(signature.outputs),
        curl=escape(curl_line(model, url)),
    )


def curl_line(model: ServedModel, url: str) -> str:
    """The command that asks the service at `url` about the model's example, to be pasted into a shell."""
    example = model.example or b""
    try:
        body = json.dumps(json.loads(example), ensure_ascii=False) if len(example) <= _EXAMPLE_SHOWN else ""
    except ValueError:
        body = ""
    address = url.rstrip("/") + "/invocations"
    return shlex.join(["curl", address, "-H", "Content-Type: application/json", "-d", body or _made_up(model)])


def _table(fields: Sequence[Field] | None) -> str:
    if not fields:
        return "<p>The model's signature does not say.</p>"
    rows = "".join(
        f"<tr><td>{escape(f.name or 'unnamed')}<td>{escape(f.kind)}<td>{'' if f.required else 'optional'}"
        for f in fields
    )
    return f"<table><tr><th>Column<th>Type<th>{rows}</table>"


def _made_up(model: ServedModel) -> str:
    record = {f.name or "0": _EXAMPLES.get(f.kind) for f in model.signature.inputs or ()}
    return json.dumps({"dataframe_records": [record]})
