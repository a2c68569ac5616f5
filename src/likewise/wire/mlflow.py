"""Request bodies of MLflow 3's scoring protocol: one of four forms, with params.

Source: mlflow/pyfunc/scoring_server and mlflow/utils/proto_json_utils.py, 3.17.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from itertools import islice

from likewise.core.casts import Source
from likewise.core.errors import BadRequest
from likewise.core.items import Sent, Table
from likewise.core.signature import Signature
from likewise.wire.call import DecodedRequest
from likewise.wire.cells import Cells
from likewise.wire.frame import Fitter, Frame
from likewise.wire.jsontext import COMPARED, SHOWN, shown
from likewise.wire.pandas_json import parse_columns, parse_records, parse_split
from likewise.wire.params import ParamsFitter

FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")
_NESTED = frozenset({"array", "object", "map"})


def parse_call(body: dict[str, object], fit: Fitter, fit_params: ParamsFitter, cells: Cells) -> DecodedRequest:
    """Decode an object with exactly one of FORMS and optional `params`; other keys are ignored, as in MLflow."""
    named = [form for form in FORMS if form in body]
    if len(named) != 1:
        raise _not_one(body, named)
    form = named[0]
    table, params = _table(form, body[form], fit, cells), fit_params(body.get("params"))
    cells.params(len(table), params)
    return DecodedRequest(table, params, ignored=fit_params.unknown(body.get("params")))


def _table(form: str, value: object, fit: Fitter, cells: Cells) -> Table:
    """The table of a form. Without a signature, the model gets the arrays that MLflow makes of what is not rows."""
    signature = fit.signature
    if form == "inputs" and isinstance(value, dict) and _ragged(value):
        if not signature.inputs:
            return Table(None, [(value,)], Sent(form, value))
        if signature.is_tensor and signature.columns is not None:
            return fit.tensors(value, form)
    table = fit(_frame(form, value, signature, cells))
    if form in ("inputs", "instances") and not signature.inputs and not _is_rows(value):
        return replace(table, sent=Sent(form, value))
    return table


def _ragged(columns: dict[str, object]) -> bool:
    return len({len(values) for values in columns.values() if isinstance(values, list)}) > 1


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and not any(isinstance(row, dict) for row in value)


def _frame(form: str, value: object, signature: Signature, cells: Cells) -> Frame:
    if form == "dataframe_split":
        return parse_split(value, form, cells)
    if form == "dataframe_records":
        return parse_records(value, form, cells)
    if signature.from_type_hints:
        return _elements(value, form)
    if isinstance(value, list):
        return _listed(value, form, signature, cells)
    if isinstance(value, dict):
        return _by_column(value, form, signature, cells)
    if signature.columns is not None or signature.is_tensor:
        raise BadRequest(
            f"{form}: expected rows or columns, got {shown(value)}", remedy="send a list of rows, or columns of values"
        )
    return Frame(None, [[value]], form, Source.ARRAYS)


def _elements(value: object, form: str) -> Frame:
    """The elements of a list, as a type hint `list[…]` takes them."""
    if not isinstance(value, list):
        raise BadRequest(f"{form}: expected a list, got {shown(value)}", remedy="send a list of inputs")
    return Frame(None, [[element] for element in value], form, Source.ARRAYS)


def _listed(value: list[object], form: str, signature: Signature, cells: Cells) -> Frame:
    """A list of records, or of unnamed rows, which are values of the only column if the signature has one."""
    if value and isinstance(value[0], dict) and not _holds_one_map(signature):
        records = parse_records(value, form, cells)
        return Frame(records.names, records.rows, form, Source.ARRAYS)
    if not value and len(signature.columns or ()) > 1:
        return Frame((), [], form)
    only = (signature.inputs or ())[0] if len(signature.columns or ()) == 1 else None
    if only is not None and only.kind == "array" and not any(isinstance(element, list) for element in value):
        return Frame(None, [[value]], form, Source.ARRAYS)
    return Frame(None, [[row] for row in value], form, Source.ARRAYS)


def _by_column(value: dict[str, object], form: str, signature: Signature, cells: Cells) -> Frame:
    """Columns of values, where a scalar applies to every row; or one row if a column takes lists or objects.

    It is also one row if columns and cells are indistinguishable: a list of strings in an `any` column is a cell.
    """
    fields = signature.inputs or ()
    anything = {field.name for field in fields if field.kind == "any"}
    lists = {name: column for name, column in value.items() if isinstance(column, list)}
    in_cells = all(name in anything and all(isinstance(value, str) for value in lists[name]) for name in lists)
    if in_cells or any(field.kind in _NESTED for field in fields):
        return Frame(tuple(value), [list(value.values())], form, Source.ARRAYS)
    rows = max(len(column) for column in lists.values())
    cells.table(rows, tuple(value), len(value) + sum(map(len, lists.values())), form)
    columns = {name: lists.get(name, [member] * rows) for name, member in value.items()}
    return parse_columns(columns, form, Source.ARRAYS)


def _holds_one_map(signature: Signature) -> bool:
    """Whether the only column is unnamed and takes objects, so that a list of objects contains its values."""
    fields = signature.inputs or ()
    return len(fields) == 1 and fields[0].name is None and fields[0].kind in ("object", "map", "any")


def _not_one(body: dict[str, object], named: list[str]) -> BadRequest:
    if named:
        return BadRequest(f"the body has both {named[0]} and {named[1]}", remedy="send exactly one of them")
    near = [(key, get_close_matches(key[:SHOWN], FORMS, n=1)) for key in islice(body, COMPARED)]
    meant = next((f"rename {key[:SHOWN]!r} to {close[0]!r}" for key, close in near if close), None)
    keys = ", ".join(repr(key[:40]) for key in list(body)[:10]) or "no fields"
    return BadRequest(
        f"the body has none of {', '.join(FORMS)}; it has: {keys}", remedy=meant or f"send one of: {', '.join(FORMS)}"
    )
