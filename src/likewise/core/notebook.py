"""Progress in a notebook: one line of a cell's output, which each message replaces."""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from typing import Any


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def notebook_line() -> NotebookLine | None:
    """A new line of the running cell's output; None outside a notebook."""
    return NotebookLine() if in_notebook() else None


def notebook_report() -> Callable[[str], None] | None:
    """Shows messages in the running cell's output; None outside a notebook."""
    line = notebook_line()
    return None if line is None else line.show


class NotebookLine:
    """A line of the running cell's output; call `show` to replace it."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._text = ""

    def show(self, text: str, fraction: float | None = None) -> None:
        """Display `text`, after a progress bar if a fraction (0 to 1) is given."""
        self._text = text
        display = sys.modules["IPython"].display
        bar = "" if fraction is None else f'<progress max="1" value="{fraction:.4f}"></progress> '
        line = {"text/html": f"<div>{bar}{escape(text)}</div>", "text/plain": text}
        if self._handle is None:
            self._handle = display.display(line, raw=True, display_id=True)
        else:
            self._handle.update(line, raw=True)

    def completed(self, fraction: float) -> None:
        """Display the current text with a progress bar."""
        self.show(self._text, fraction)
