"""docs/models.md: a table of what each interface answers for the models of the zoo, updated row by row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.docs.generated import ROOT
from tests.support.shared import exclusive

PAGE = ROOT / "docs" / "models.md"
COLUMNS = ("model", "bundle", "trust", "engine", "merged", "serve", "score CSV", "score Parquet", "Spark", "verify")
UNKNOWN = "–"
HEAD = """# Models

What Likewise does with a small model of each flavor, in the versions that its tests install. Each answer of an
interface is compared with that of `mlflow.pyfunc.load_model(uri).predict` for the same rows; "yes" means that they are
the same, except for the last digits of numbers. A cell without "yes" has the reason.

- *bundle*: `likewise bundle` builds a bundle that works in isolation.
- *trust*: whether it needs `--trust`, because the model can only be opened by running its code.
- *engine*: the [engine](../architecture/engine.md) that is selected if all that Likewise supports is installed,
  after `likewise bundle --precision fp32`.
- *merged*: whether rows of several callers are predicted together, because they are independent of each other.
- *serve*: `likewise serve`; *score CSV*, *score Parquet*: `likewise score`; *Spark*: `likewise.spark.udf`;
  *verify*: `likewise verify` with plain MLflow, a job and a server, and with a server that changes a value, which it
  finds.

The table is written by `LIKEWISE_WRITE_DOCS=1 make test-all`, or for some models by
`LIKEWISE_WRITE_DOCS=1 pytest tests/models -k NAME`.
"""


def compare(name: str, cells: Mapping[str, str], order: Sequence[str]) -> None:
    """Assert that the page has these cells of the row `name`; write them first if LIKEWISE_WRITE_DOCS is set.

    order: the names of all rows.
    """
    if os.environ.get("LIKEWISE_WRITE_DOCS"):
        with exclusive(PAGE.parent / ".models.lock"):
            rows = read()
            rows[name] = {**rows.get(name, {}), **cells}
            PAGE.write_text(text({each: rows[each] for each in order if each in rows}))
    row = read().get(name, {})
    stale = {column: (row.get(column), cell) for column, cell in cells.items() if row.get(column) != cell}
    assert not stale, f"{PAGE} is stale: LIKEWISE_WRITE_DOCS=1 pytest tests/models -k {name}: {stale}"


def read(page: Path = PAGE) -> dict[str, dict[str, str]]:
    """The rows of the page by name, each by column."""
    lines = page.read_text().splitlines() if page.exists() else []
    table = [_cells(line) for line in lines if line.startswith("| ")]
    return {cells[0]: dict(zip(COLUMNS[1:], cells[1:], strict=True)) for cells in table[1:]}


def text(rows: Mapping[str, Mapping[str, str]]) -> str:
    """The page."""
    cells = [(name, *(row.get(column, UNKNOWN) for column in COLUMNS[1:])) for name, row in rows.items()]
    return "\n".join([HEAD, _line(COLUMNS), "|" + "---|" * len(COLUMNS), *map(_line, cells)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]
