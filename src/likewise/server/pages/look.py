"""What the pages are made of: files, frame, and the policies that keep everything else out of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

ASSETS = Path(__file__).with_name("assets")
DOCS = (ASSETS / "docs.html").read_text()
"""The page at `/docs`, the same for every model: Swagger UI, which reads `/openapi.json`."""

_STYLE = (ASSETS / "style.css").read_text()
_SCRIPT = (ASSETS / "page.js").read_text()


def _policy(script: str, style: str) -> str:
    """A Content-Security-Policy: what it names, and requests to this server."""
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CSP = _policy(_allowed(_SCRIPT), _allowed(_STYLE))
"""The header Content-Security-Policy of `/`: its own script and style alone."""

DOCS_CSP = _policy("'self'", "'self' 'unsafe-inline'")
"""That of `/docs`: the files below it; Swagger UI writes styles into its elements."""


def framed(title: str, body: str) -> str:
    """A whole HTML document; `body` is HTML, `title` plain text."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n'
        f"<body>\n{body}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of HTML cells under plain heads."""
    head = "".join(f"<th scope=col>{escape(name)}" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}" for row in rows)
    return f'<div class="wide"><table><tr>{head}{body}</table></div>'


def code(text: object) -> str:
    """Escaped, in the font of code."""
    return f"<code>{escape(str(text))}</code>"
