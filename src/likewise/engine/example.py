"""The model's input example, for testing engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from likewise.core.errors import ModelInvalid
from likewise.core.extras import need
from likewise.core.items import Params, Sent, Table
from likewise.engine.model_input import model_input
from likewise.engine.plain_values import plain
from likewise.engine.pyfunc import refused_by_mlflow


@dataclass(frozen=True)
class Example:
    """A valid input, as logged with the model.

    table: its rows, for engines that take items; `sent` is set if they cannot represent it.
    value: the same as `mlflow.pyfunc.PyFuncModel.predict` takes it: a frame, arrays, a sparse matrix, a list, a text, …
    """

    table: Table
    params: Params
    value: Any = field(default=None, repr=False, compare=False)


def read_example(model: Path) -> Example | None:
    """The input example saved with the model in the folder `model`, or None; raises ModelInvalid if unreadable."""
    models = need("mlflow.models", extra="mlflow")
    try:
        meta = models.Model.load(str(model))
        for name in (meta.saved_input_example_info or {}).values():  # among others, of the file
            _check_inside(name)
        value = meta.load_input_example(str(model))
        params = meta.load_input_example_params(str(model)) or None
        schema = meta.get_input_schema()
        if hasattr(value, "toarray") and schema is not None:  # the example's JSON does not have its type
            value = value.astype(schema.numpy_types()[0])
        table = None if value is None else _table(value, signed=schema is not None)
    except Exception as error:
        raise ModelInvalid(
            f"the input example of the model cannot be read: {type(error).__name__}: {str(error)[:300]}",
            remedy="log the model again with an input_example that mlflow.models.validate_serving_input accepts",
        ) from error
    return None if table is None or not table.rows else Example(table, params, value)


def predict_example(model: Any, example: Example) -> Any:
    """The prediction of a `mlflow.pyfunc.PyFuncModel` for the example; raises what the model or MLflow raises.

    If MLflow refuses the value, because the example's JSON does not have all types, the model gets the rows.
    """
    params = None if example.params is None else dict(example.params)
    try:
        return model.predict(example.value, params=params)
    except Exception as error:
        if refused_by_mlflow(error) is None:
            raise
        return model.predict(model_input(model.metadata, example.table), params=params)


def _check_inside(name: object) -> None:
    """Raise ValueError for a path outside the model, which MLflow would follow."""
    if isinstance(name, str) and (name.startswith("/") or ".." in name.split("/")):
        raise ValueError(f"{name} is not in the model's folder")


def _table(value: Any, *, signed: bool) -> Table:
    if hasattr(value, "columns"):
        columns = tuple(map(str, value.columns))
        return Table(columns, [tuple(plain(cell) for cell in row) for row in value.itertuples(index=False, name=None)])
    if hasattr(value, "toarray"):
        value = value.toarray()
    table = _unlabelled(value)
    arrays = hasattr(value, "__array__") or (isinstance(value, list) and not any(isinstance(v, dict) for v in value))
    return table if signed or arrays else replace(table, sent=Sent("inputs", plain(value)))


def _unlabelled(value: Any) -> Table:
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        columns = tuple(value[0])
        return Table(columns, [tuple(plain(record.get(c)) for c in columns) for record in value])
    values = plain(value)
    return Table(None, [(v,) for v in values] if isinstance(values, list) else [(values,)])


def _mapping(value: Mapping[str, Any]) -> Table:
    """Arrays of equal length are columns; anything else is one row."""
    cells = {str(k): plain(v) for k, v in value.items()}
    arrays = all(hasattr(v, "__array__") and getattr(v, "ndim", 0) for v in value.values())
    lists = [c for c in cells.values() if isinstance(c, list)]
    if arrays and len(set(map(len, lists))) == 1:
        return Table(tuple(cells), list(zip(*lists, strict=True)))
    return Table(tuple(cells), [tuple(cells.values())])


def variants(table: Table) -> Iterator[tuple[object, ...]]:
    """Variations of the example's rows: shortened and doubled texts, changed numbers; some may be invalid input."""
    for row in table.rows:
        yield tuple(_shorter(cell) for cell in row)
        yield tuple(_longer(cell) for cell in row)


def _shorter(cell: object) -> object:
    if isinstance(cell, str):
        return cell[: max(1, len(cell) // 2)]
    return cell / 2 if isinstance(cell, float) else cell


def _longer(cell: object) -> object:
    if isinstance(cell, str):
        return f"{cell} {cell}"
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return cell
    return cell + 1
