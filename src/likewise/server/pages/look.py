"""What the pages share: style, frame, and the policy that keeps everything else out of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

_ASSETS = Path(__file__).with_name("assets")
_STYLE = (_ASSETS / "style.css").read_text()
_SCRIPT = (_ASSETS / "page.js").read_text()


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_allowed(_SCRIPT)}",
        f"style-src {_allowed(_STYLE)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
"""Content-Security-Policy of the pages: their own style and script, and requests to this server."""


def framed(title: str, body: str, *, script: bool = False) -> str:
    """A whole HTML document; `body` is HTML, `title` plain text."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n'
        f"<body>\n{body}\n{f'<script>{_SCRIPT}</script>' if script else ''}\n</body>\n</html>\n"
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of HTML cells under plain heads."""
    head = "".join(f"<th scope=col>{escape(name)}" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}" for row in rows)
    return f'<div class="wide"><table><tr>{head}{body}</table></div>'


def code(text: object) -> str:
    """Escaped, in the font of code."""
    return f"<code>{escape(str(text))}</code>"
