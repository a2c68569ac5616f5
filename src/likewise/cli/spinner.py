"""The line of a step that is running: a spinner, its completed percentage and the time left, and the time since."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text


def spinner(console: Console) -> Progress:
    """A line for each task, which disappears when the task is removed."""
    text = TextColumn("{task.description}", table_column=Column(ratio=1))
    return Progress(SpinnerColumn(), text, _Left(), TimeElapsedColumn(), console=console, transient=True, expand=True)


class _Left(ProgressColumn):
    """The percentage and the time left of a task whose total is known."""

    max_refresh = 0.5  # seconds

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text("")
        left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
        return Text(f"{task.percentage:.0f} %{left}", style="progress.remaining")
