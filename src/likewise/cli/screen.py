"""Terminal output: rich tables on a terminal, plain lines in a pipe, one JSON document with `--json`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import orjson
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from likewise.core.errors import LikewiseError
from likewise.core.json_log import write_json_lines, write_line
from likewise.core.option_fields import option
from likewise.core.stdout import stdout

if TYPE_CHECKING:
    from rich.progress import Progress

err = Console(stderr=True, highlight=False)
WIDEST, NARROWEST, PADDING = 32, 8, 2  # characters of a whole and of a shortened column, and between columns
SHOWN = 5  # names in a note
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """`text` with control characters as escape sequences: a model's texts must not control the terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


@dataclass
class Screen:
    """Output of one command. Results go to stdout, everything else to stderr."""

    as_json: bool = option(False, "Print the result as a single JSON document on stdout.", "--json")
    printed: ClassVar[bool] = False  # whether this process has printed its JSON document
    json_lines: ClassVar[bool] = False  # whether what goes to stderr are lines of JSON

    def __post_init__(self) -> None:
        self.out = Console(file=stdout(), highlight=False)
        self._work: Progress | None = None

    def result(self, document: Mapping[str, object], title: str, facts: Iterable[tuple[str, str]]) -> None:
        """Print `document` if `--json` was given, else the table `facts`, each a pair of a name and a value."""
        if self.as_json:
            self.json(document)
        else:
            self.table(title, ("", ""), list(facts))

    def json(self, document: object) -> None:
        """Print the JSON document on stdout; only once, because readers expect a single one."""
        Screen.printed = True
        stdout().write(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
        stdout().flush()

    def table(
        self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, whole: int | None = None
    ) -> None:
        """Print a table on a terminal, tab-separated lines in a pipe.

        whole: if given, each row takes one line on the terminal: columns are shortened if necessary, last the first
        `whole` ones; those for which no width is left are omitted, which a note reports, and so are empty ones.
        """
        rows = [[visible(cell) for cell in row] for row in rows]
        if not self.out.is_terminal:
            for row in (header, *rows) if any(header) else rows:
                stdout().write("\t".join(cell.replace("\n", " ") for cell in row) + "\n")
            return
        header = [visible(name) for name in header]
        fit, widths, omitted = whole is not None, [], []
        if whole is not None:
            rows = [[" ".join(cell.split()) for cell in row] for row in rows]
            columns = _fitting(header, rows, self.out.width, whole)
            omitted = [name for at, name in enumerate(header) if at not in columns and any(row[at] for row in rows)]
            widths = list(columns.values())
            header, *rows = [[row[column] for column in columns] for row in (header, *rows)]
        table = Table(title=title, title_style="bold", title_justify="left", box=None, show_header=any(header))
        short = max((len(row[0]) for row in rows), default=0) <= self.out.width // 3
        for index, name in enumerate(header):
            first = index == 0
            width = widths[index] if fit else None
            table.add_column(
                escape(name),
                style="cyan" if first else None,
                no_wrap=fit or (first and short),
                overflow="ellipsis" if fit else "fold",
                min_width=width,
                max_width=width,
            )
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.out.print(table)
        if omitted:
            more = f" and {len(omitted) - SHOWN} more" if len(omitted) > SHOWN else ""
            self.note(f"columns that do not fit: {', '.join(omitted[:SHOWN])}{more}; --json has them")

    def options(self, title: str, options: Sequence[tuple[str, str, str]]) -> None:
        """Print the name, default and help text of each option."""
        if self.as_json:
            self.json({"options": [dict(zip(("name", "default", "help"), each, strict=True)) for each in options]})
        else:
            self.table(title, ("option", "default", "description"), options)

    @contextmanager
    def working(self) -> Iterator[None]:
        """On a terminal, show the last note of the block with a spinner and the time since, until the next one."""
        if not err.is_terminal:
            yield
            return
        from likewise.cli.spinner import spinner  # few commands need it

        with spinner(err) as self._work:
            try:
                yield
            finally:
                self._end_note()
                self._work = None

    def log_as_json(self) -> None:
        """Write lines of JSON to stderr from now on: notes, errors and log records."""
        Screen.json_lines = True
        write_json_lines()

    def note(self, text: str, command: str = "") -> None:
        """Print a progress message on stderr.  command: a line below, which can be copied."""
        if Screen.json_lines:
            write_line(f"{text} {command}" if command else text)
            return
        self._end_note()
        if self._work is not None:
            self._work.add_task(escape(visible(text)), total=None)
            return
        err.print(f"[dim]·[/dim] {escape(visible(text))}", soft_wrap=not err.is_terminal)
        if command:
            err.print(f"  {visible(command)}", markup=False, soft_wrap=True)

    def completed(self, fraction: float) -> None:
        """Show the completed fraction of what the last note reports, and the time left."""
        work = self._work
        if work is not None and (tasks := work.tasks):
            with suppress(KeyError):  # the note has just ended, in another thread
                work.update(tasks[-1].id, total=1.0, completed=fraction)

    def _end_note(self) -> None:
        """Print the note that is shown with a spinner, with its duration."""
        if self._work is None:
            return
        for task in list(self._work.tasks):
            seconds = task.elapsed or 0.0
            took = f" [dim]{seconds:.0f} s[/dim]" if seconds >= 1 else ""
            err.print(f"[dim]·[/dim] {task.description}{took}")
            self._work.remove_task(task.id)


def _fitting(header: Sequence[str], rows: Sequence[Sequence[str]], width: int, whole: int) -> dict[int, int]:
    """The columns that fit into `width`, and their widths; the first ones are preferred.

    The first `whole` ones get all their characters, at most WIDEST, or what is left, the others only NARROWEST, until
    less is left.  The rest is divided among those that need more.
    """
    needed = [max(map(cell_len, cells)) for cells in zip(header, *rows, strict=True)]
    chosen: dict[int, int] = {}
    for column, most in enumerate(needed):
        least = min(most, WIDEST if column < whole else NARROWEST, width - PADDING)
        filled = not rows or any(row[column] for row in rows)
        if filled and least >= min(most, NARROWEST):
            chosen[column] = least
            width -= least + PADDING
    lacking = {column: needed[column] - least for column, least in chosen.items()}
    for at, column in enumerate(sorted(lacking, key=lacking.__getitem__)):
        more = min(lacking[column], width // (len(lacking) - at))
        chosen[column] += more
        width -= more
    return chosen


def show_error(error: LikewiseError, *, as_json: bool) -> None:
    """Print code, cause and remedy of an error: as JSON on stdout, else or after another JSON document on stderr."""
    if as_json and not Screen.printed:
        Screen(as_json=True).json({"error": error.as_dict(), **error.details})
        return
    if Screen.json_lines:
        write_line(error.cause, "error", error_code=error.code, remedy=error.remedy)
        return
    cause, remedy = visible(error.cause), visible(error.remedy)
    if not err.is_terminal:
        err.print(f"{error.code}: {cause}\nremedy: {remedy}", markup=False, soft_wrap=True)
        return
    body = f"{escape(cause)}\n\n[bold]What to do:[/bold] {escape(remedy)}"
    err.print(Panel(body, title=f"[bold red]{error.code}[/bold red]", title_align="left", border_style="red"))
