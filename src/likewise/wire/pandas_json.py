"""pandas' JSON forms: split, records, and by label (`DataFrame.to_json()` without an orient)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from likewise.core.casts import Source
from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.wire.cells import Cells
from likewise.wire.frame import Frame
from likewise.wire.jsontext import SHOWN, shown

_SPLIT = frozenset({"columns", "data", "index"})
_QUOTED = "the quoted document"


def parse_split(value: object, where: str, cells: Cells) -> Frame:
    """Parse `{"columns": […], "data": [[…], …], "index": […]}`; columns and index are optional."""
    if not isinstance(value, dict):
        raise _unexpected(value, where, 'an object {"columns": […], "data": [[…], …]}')
    if unknown := value.keys() - _SPLIT:
        raise BadRequest(
            f"{where}: {sorted(unknown)[0][:SHOWN]!r} is not a field of the split form",
            remedy="send columns, data and index",
        )
    if not isinstance(value.get("data"), list):
        raise _unexpected(value.get("data"), f"{where}.data", "a list of rows")
    data = value["data"]
    names = _names(value.get("columns"), data, where)
    width = len(names)
    regular = all(type(row) is list and len(row) == width for row in data)
    cells.table(len(data), names, len(data) * width if regular else _values(data), where)
    rows = data if regular else [_row(names, row, i, where) for i, row in enumerate(data)]
    index = value.get("index")
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        raise _unexpected(index, f"{where}.index", f"a list of {len(rows)} labels")
    return Frame(names, rows, where)


def parse_records(value: object, where: str, cells: Cells) -> Frame:
    """Parse `[{"column": value, …}, …]`; keys missing from a record are null, as in pandas."""
    if not isinstance(value, list):
        raise _unexpected(value, where, "a list of records")
    for i, record in enumerate(value):
        if not isinstance(record, dict):
            raise _unexpected(record, f"{where}, row {i}", 'a record {"column": value, …}')
    names = tuple(dict.fromkeys(str(key) for record in value for key in record))
    cells.table(len(value), names, _values(value), where)
    return Frame(names, [[record.get(name) for name in names] for record in value], where)


def parse_columns(columns: dict[str, list[object]], where: str, source: Source = Source.TEXT) -> Frame:
    """Parse `{"column": [value, …], …}`; all columns must have the same length."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadRequest(
            f"{where}: the columns differ in length: {_listed(lengths)}",
            remedy="send the same number of values for each column",
        )
    return Frame(tuple(columns), list(zip(*columns.values(), strict=True)), where, source)


def _listed(lengths: dict[str, int]) -> str:
    return ", ".join(f"{name[:SHOWN]!r} has {rows}" for name, rows in islice(lengths.items(), 20))


def parse_by_label(value: dict[str, dict[str, object]], signature: Signature, cells: Cells) -> Frame:
    """Parse `{"column": {"label": value}}`, or `{"label": {"column": value}}` if the inner keys are the columns."""
    columns = set(signature.columns or ())
    inner = {key for member in value.values() for key in member}
    if columns and columns <= inner and not columns & value.keys():
        return parse_records(list(value.values()), _QUOTED, cells)
    labels = dict.fromkeys(label for column in value.values() for label in column)
    cells.table(len(labels), tuple(value), _values(value.values()), _QUOTED)
    rows = [[column.get(label) for column in value.values()] for label in labels]
    return Frame(tuple(value), rows, _QUOTED)


def _values(rows: Iterable[object]) -> int:
    """The number of values in rows, or in columns."""
    return sum(len(row) if isinstance(row, (list, dict)) else 1 for row in rows)


def _names(columns: object, data: list[object], where: str) -> tuple[str, ...]:
    if columns is None:
        first = data[0] if data else []
        return tuple(str(i) for i in range(len(first) if isinstance(first, list) else 1))
    if not isinstance(columns, list) or not all(isinstance(name, (str, int)) for name in columns):
        raise _unexpected(columns, f"{where}.columns", "a list of column names")
    return tuple(map(str, columns))


def _row(names: tuple[str, ...], row: object, i: int, where: str) -> Sequence[object]:
    if isinstance(row, dict):
        return [row.get(name) for name in names]
    values = row if isinstance(row, list) else [row]
    if len(values) != len(names):
        raise BadRequest(
            f"{where}.data, row {i}: {len(values)} values for {len(names)} columns",
            remedy="send one value per column in each row; rows count from 0",
        )
    return values


def _unexpected(value: object, where: str, expected: str) -> BadRequest:
    return BadRequest(f"{where}: expected {expected}, got {shown(value)}", remedy=f"send {expected}")
