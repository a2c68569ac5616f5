"""The input of `predict` for a table: the frame, arrays or document that MLflow would hand to the model's code.

The values of a table have been converted by `core.casts`, so every column is built with its final dtype at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from likewise.core.arrow import array_of
from likewise.core.casts import Nanoseconds, epoch_nanoseconds
from likewise.core.extras import need
from likewise.core.items import ARRAYS, Table

_DTYPES = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
_MISSING = -(2**63)  # NumPy's missing datetime
_INT64 = range(-(2**63), 2**63)
_ALIKE = frozenset({int, float, bool, str})


def model_input(metadata: Any, table: Table) -> Any:
    """The input for `mlflow.pyfunc.PyFuncModel.predict`; the model may change it.

    Columns become a data frame; arrays by name if the signature has named tensors (MLflow's `instances`); unnamed
    tensors an array (`inputs`).  A model whose signature is a type hint gets a plain list.  If the table has a `sent`
    value, that is passed instead.
    """
    convert = need("mlflow.utils.proto_json_utils", extra="mlflow")
    schema = metadata.get_input_schema()
    if (sent := table.sent) is not None:
        if sent.form == "document":
            return copied(sent.value)
        return convert.parse_tf_serving_input({sent.form: sent.value}, schema=schema)
    if _from_type_hint(metadata):
        return [_hinted(element, schema.inputs[0].type) for element in _records(table)]
    if schema is not None and schema.is_tensor_spec():
        form = "instances" if schema.has_input_names() else "inputs"
        if table.columns is None or form == "instances":
            return convert.parse_tf_serving_input({form: _records(table)}, schema=schema)
    if schema is None and table.columns is None:
        return convert.parse_tf_serving_input({"inputs": _records(table)})
    return _frame(table, None if schema is None or schema.is_tensor_spec() else schema)


def is_final(metadata: Any) -> bool:
    """Whether a frame of `model_input` is what the model gets, so that MLflow need not convert it again."""
    schema = metadata.get_input_schema()
    if schema is None or schema.is_tensor_spec() or _from_type_hint(metadata):
        return False
    return not getattr(metadata, "_is_type_hint_from_example", bool)()


def _from_type_hint(metadata: Any) -> bool:
    """Whether the signature is a type hint; MLflow before 2.20 has none."""
    return bool(getattr(metadata, "_is_signature_from_type_hint", bool)())


def copied(value: Any) -> Any:
    """`value` with copies of its lists and objects, which a model may change."""
    if isinstance(value, list):
        return [copied(element) for element in value]
    if isinstance(value, dict):
        return {key: copied(member) for key, member in value.items()}
    return value if type(value) is not Nanoseconds else _timestamp(value)


def _timestamp(value: Any) -> Any:
    return need("pandas", extra="mlflow").Timestamp(epoch_nanoseconds(value), unit="ns")


def _hinted(value: Any, kind: Any) -> Any:
    """A copy of an element of a type hint `list[…]`, whose type in the signature is `kind`."""
    name = kind_of(kind)
    if name == "array" and isinstance(value, list):
        return [_hinted(element, kind.dtype) for element in value]
    return float("nan") if value is None and name == "double" else copied(value)


def _records(table: Table) -> list[Any]:
    if table.columns is None:
        return [row[0] for row in table.rows]
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _frame(table: Table, schema: Any) -> Any:
    pandas = need("pandas", extra="mlflow")
    if schema is None and not table.arrow:
        return _inferred(pandas, table)
    names = table.columns
    rows: Sequence[Sequence[Any]] = table.rows
    if names is None and len(schema.inputs) > 1:  # unnamed columns: each row is a list
        rows = [list[Any](row[0]) for row in table.rows]  # type: ignore[call-overload]
    width = len(schema.inputs) if names is None else len(names)
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * width
    arrow = _arrow_schema(table.arrow) if table.arrow else None
    if schema is None:
        return _of_arrow(names or (), columns, arrow)
    named, arrays = schema.has_input_names(), table.arrow == ARRAYS
    declared: Sequence[Any] = schema.input_names() if named or names is None else names
    labels = declared if names is None else names
    # names may be numbers, those of a frame that was made of an array
    specs = {str(label): (label, spec) for label, spec in zip(declared, schema.inputs, strict=False)}
    built = {
        specs[label][0]: _column(values, specs[label][1], label, arrow, arrays)
        for label, values in zip(map(str, labels), columns, strict=True)
        if label in specs  # MLflow drops the others
    }
    return pandas.DataFrame(built, index=range(len(table.rows)))


def _column(values: Sequence[Any], spec: Any, label: object, arrow: Any, arrays: bool) -> Any:
    """One column with the dtype of its type in the signature. arrays: whether lists become arrays, see `core.items`."""
    numpy, pandas = need("numpy", extra="mlflow"), need("pandas", extra="mlflow")
    kind = getattr(spec.type, "name", "")
    if kind in _DTYPES:
        return numpy.array(values, _DTYPES[kind])
    if kind == "datetime":
        ticks = [_MISSING if value is None else epoch_nanoseconds(value) for value in values]
        return numpy.array(ticks, "int64").view("datetime64[ns]")
    if kind == "boolean" and None not in values:
        return numpy.array(values, bool)
    if kind == "string" and None not in values:
        return pandas.Series(values, dtype=None if values else object)
    if kind:  # of objects, so that null stays null in any company
        return pandas.Series(values, dtype=object)
    cells = [copied(value) for value in values]
    typed = arrow is not None and label in arrow.names
    if kind_of(spec.type) != "any":
        if typed or (arrays and kind_of(spec.type) == "array"):
            cells = [_as_tuples(cell, deep=typed) for cell in cells]
        return pandas.Series([nested(cell, spec.type) for cell in cells], dtype=object)
    if typed:
        cells = _as_arrays(cells, arrow.field(label).type)
    alike = len(set(map(type, cells))) == 1 and type(cells[0]) in _ALIKE
    return pandas.Series(cells, dtype=None if alike else object)


def nested(value: Any, kind: Any, *, member: bool = False) -> Any:
    """A value of an array, object or map as `mlflow.models.utils._enforce_type` hands it to the model.

    A list stays one, a tuple becomes an array.  Scalar properties and map values are NumPy scalars; elements of a list
    are Python's, unless `member` is set.
    """
    name = kind_of(kind)
    if value is None and name not in ("float", "double"):
        return None
    if name == "array":
        return _array(value, kind.dtype)
    if name == "object":
        properties = {each.name: each for each in kind.properties}
        absent = {key for key in value if value[key] is None and not properties[key].required}
        return {key: None if key in absent else nested(value[key], properties[key].dtype, member=True) for key in value}
    if name == "map":
        return {key: nested(each, kind.value_type, member=True) for key, each in value.items()}
    if name == "datetime":
        return _timestamp(value)
    numpy = need("numpy", extra="mlflow")
    if name == "any" or not member or name in ("string", "binary"):
        return float("nan") if value is None else value
    return numpy.dtype(_DTYPES.get(name, "bool")).type(numpy.nan if value is None else value)


def kind_of(kind: Any) -> str:
    """The lower-case name of a type of MLflow's signature."""
    return str(getattr(kind, "name", None) or type(kind).__name__.removesuffix("Type").lower())


def _array(value: Any, element: Any) -> Any:
    """A list, or an array if `value` is a tuple."""
    numpy = need("numpy", extra="mlflow")
    name = kind_of(element)
    if isinstance(value, list):
        return [nested(each, element) for each in value]
    elements = [nested(_as_tuples(each, deep=False) if name == "array" else each, element) for each in value]
    if name in _DTYPES or name == "boolean":
        return numpy.array(elements, _DTYPES.get(name, "bool"))
    if name == "datetime":
        return numpy.array([each.to_datetime64() for each in elements], "datetime64[ns]")
    if name in ("string", "binary"):
        zero = "\0" if name == "string" else b"\0"
        inexact = not elements or any(each.endswith(zero) for each in elements)  # NumPy's text loses a zero at its end
        return numpy.array(elements, object if inexact else None)
    if name == "any":
        kinds = set(map(type, elements))
        return numpy.array(elements, None if len(kinds) == 1 and kinds <= {bool, int, float} else object)
    try:
        return numpy.array(elements, None if elements else object)
    except ValueError:  # of different lengths
        made = numpy.empty(len(elements), object)
        made[:] = elements
        return made


def _as_tuples(value: Any, *, deep: bool) -> Any:
    """A list as a tuple, which `nested` makes an array; deep: also those inside, as pandas reads Arrow's lists."""
    if isinstance(value, list):
        return tuple(_as_tuples(each, deep=True) for each in value) if deep else tuple(value)
    if deep and isinstance(value, dict):
        return {key: _as_tuples(each, deep=True) for key, each in value.items()}
    return value


def _as_arrays(cells: list[Any], kind: Any) -> list[Any]:
    """Values of any type as pandas reads those of the Arrow type: lists are NumPy arrays."""
    types = need("pyarrow", extra="mlflow").types
    if not types.is_nested(kind):
        return cells
    try:
        return list(array_of(cells, kind).to_pandas(maps_as_pydicts="strict"))
    except (need("pyarrow", extra="mlflow").ArrowException, TypeError, ValueError):  # --column has mapped another one
        return cells


def _inferred(pandas: Any, table: Table) -> Any:
    """A frame with the dtypes that pandas infers, except where that would change an integer."""
    names = list(table.columns or ())
    columns = list(zip(*table.rows, strict=True))
    types = [set(map(type, values)) for values in columns]
    if columns and all(len(kinds) == 1 and kinds <= _ALIKE for kinds in types):  # the same, but several times faster
        return pandas.DataFrame(dict(zip(names, map(list, columns), strict=True)))
    if any(kinds & {list, dict} for kinds in types):
        frame = pandas.DataFrame([tuple(map(copied, row)) for row in table.rows], columns=names)
    else:
        frame = pandas.DataFrame(list(table.rows), columns=names)
    return _with_exact_integers(frame, columns)


def _of_arrow(names: Sequence[str], columns: Sequence[Sequence[Any]], arrow: Any) -> Any:
    """A frame with the dtypes with which pandas reads the Arrow types."""
    pa = need("pyarrow", extra="mlflow")
    fields = [arrow.field(name) for name in names]
    arrays = [array_of(values, field.type) for field, values in zip(fields, columns, strict=True)]
    frame = pa.Table.from_arrays(arrays, schema=pa.schema(fields, arrow.metadata)).to_pandas(maps_as_pydicts="strict")
    return _with_exact_integers(frame, columns)


def _with_exact_integers(frame: Any, columns: Sequence[Sequence[Any]]) -> Any:
    """The frame with objects in columns where pandas has made other numbers of integers, which it does next to null."""
    pandas = need("pandas", extra="mlflow")
    for at, (values, dtype) in enumerate(zip(columns, frame.dtypes, strict=True)):
        if dtype.kind == "f" and any(type(value) is int and int(float(value)) != value for value in values):
            frame.isetitem(at, pandas.Series(list(values), dtype=object))
    return frame


@lru_cache(maxsize=16)
def _arrow_schema(data: bytes) -> Any:
    pa = need("pyarrow", extra="mlflow")
    return pa.ipc.read_schema(pa.py_buffer(data))


def row_types(values: Sequence[object]) -> tuple[object, ...]:
    """What pandas' dtype of each value depends on: rows with equal types may share a frame."""
    return tuple(_BIG if type(value) is int and value not in _INT64 else type(value) for value in values)


_BIG = object()
