"""Captured requests as Arrow tables, with one row for each row of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from likewise.core.arrow import array_of
from likewise.core.arrow_types import SCALARS, type_of_spec
from likewise.core.errors import LikewiseError, WrongUsage
from likewise.core.extras import need
from likewise.core.items import Table
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Field, Signature
from likewise.core.tagged_json import encode
from likewise.wire import DecodedRequest, Form
from likewise.wire import encode as encode_predictions

MARK, VERSION = b"likewise.capture", b"1"  # in the metadata of a file
JSON_COLUMN = {b"likewise": b"json"}  # in the metadata of a column: JSON of `tagged_json`

INPUT = "input"  # the values of a model whose inputs have no names
PREDICTIONS = "predictions"
OWN = "likewise_"
FACTS = {
    "request_id": "string",
    "row": "int32",
    "time": "timestamp[us, tz=UTC]",
    "seconds": "float64",
    "status": "int32",
    "error_code": "string",
    "route": "string",
    "bundle": "string",
    "engine": "string",
    "form": "string",  # `columns`; in INPUT: `value`, `record` (of undeclared columns); in `sent`: the form of a `Sent`
    "whole": "bool",  # whether the prediction, in row 0, is for all rows of the request together
    "missing": "list<string>",  # optional columns that were not sent
}
JSON_FACTS = ("sent", "params")
AT_ONCE = 64  # rows converted by one call, in which no other thread runs

Record = dict[str, object]


@dataclass(eq=False, slots=True)
class Sample:
    """A decoded request.

    size: of its body and of its predictions, in bytes.  by_row: whether each of its rows has its own result.
    results: empty until there are any.
    """

    call: DecodedRequest
    size: int
    by_row: bool
    results: list[Result] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is recorded of a response.  time: when it was complete, as a Unix time in seconds."""

    request_id: str
    route: str
    status: int
    seconds: float
    error_code: str
    engine: str
    time: float


def records_of(sample: Sample, answer: Answer, bundle: str, signature: Signature) -> list[Record]:
    """One record per row of the request; one for a request that the model gets as it was sent."""
    table, columns = sample.call.table, signature.columns
    shared = {
        "likewise_request_id": answer.request_id,
        "likewise_time": datetime.fromtimestamp(answer.time, UTC),
        "likewise_seconds": answer.seconds,
        "likewise_status": answer.status,
        "likewise_route": answer.route,
        "likewise_bundle": bundle,
        "likewise_engine": answer.engine,
        "likewise_form": _form(table, columns is not None),
        "likewise_whole": not sample.by_row,
        "likewise_params": sample.call.params,
    }
    if table.sent is not None:
        return [{**shared, **_outcome(sample, answer, 0), "likewise_row": 0, "likewise_sent": table.sent.value}]
    sent = table.columns
    if columns is not None and (missing := [name for name in columns if name not in (sent or ())]):
        shared["likewise_missing"] = missing
    return [
        {**shared, "likewise_row": row, **_inputs(sent, values, columns is not None), **_outcome(sample, answer, row)}
        for row, values in enumerate(table.rows)
    ]


def _form(table: Table, named: bool) -> str:
    if table.sent is not None:
        return table.sent.form
    return "value" if table.columns is None else "columns" if named else "record"


def _inputs(sent: Sequence[str] | None, values: Sequence[object], named: bool) -> Record:
    if sent is None:
        return {INPUT: values[0]}
    record = dict(zip(sent, values, strict=True))
    return record if named else {INPUT: record}


def _outcome(sample: Sample, answer: Answer, row: int) -> Record:
    """The prediction for a row, or the code of its error."""
    results = sample.results
    if not results:
        return {"likewise_error_code": answer.error_code or None}
    result = results[row if sample.by_row else 0]
    if isinstance(result, Failed):
        return {"likewise_error_code": result.error.code}
    return {PREDICTIONS: result} if sample.by_row or row == 0 else {}


class Columns:
    """The columns of one model's files; MissingExtra without pyarrow, WrongUsage if the model has one of their names.

    The values of inputs have the types that the signature declares.  Records, maps and values of undeclared types are
    JSON, so that absent entries stay absent and all files of a model have the same types.
    """

    def __init__(self, signature: Signature) -> None:
        self._pa = pa = need("pyarrow", extra="batch")
        need("pyarrow.parquet", extra="batch")
        inputs = signature.inputs or ()
        kinds = {str(f.name): _kind(pa, f, signature) for f in inputs} if signature.columns is not None else None
        if kinds is None:
            kinds = {INPUT: _kind(pa, inputs[0], signature) if len(inputs) == 1 else None}
        facts = {OWN + name: _type(pa, text) for name, text in FACTS.items()}
        facts |= dict.fromkeys(OWN + name for name in JSON_FACTS)
        if taken := (facts.keys() | {PREDICTIONS}) & kinds.keys():
            raise WrongUsage(
                f"requests cannot be captured: the model has an input named `{min(taken)}`, as the files have",
                remedy="omit --capture, or rename the input",
            )
        self._kinds = {**facts, **kinds}

    def ready(self, records: Sequence[Record]) -> list[Record]:
        """The records with the values of open types as JSON, without those that have a value with no such form."""
        lost: set[int] = set()
        for name in (name for name, kind in self._kinds.items() if kind is None):
            for record, text in zip(records, _texts(_text, [each.get(name) for each in records], lost), strict=True):
                record[name] = text
        return _without(records, lost)

    def parquet(self, records: Sequence[Record]) -> tuple[bytes, int]:
        """The records, which are `ready`, as a Parquet file, and how many it has: all that have a form in it."""
        pa, pq = self._pa, need("pyarrow.parquet", extra="batch")
        lost: set[int] = set()
        columns = [self._column(name, kind, records, lost) for name, kind in self._kinds.items()]
        texts = _texts(_prediction, [each.get(PREDICTIONS) for each in records], lost)
        if lost:
            return self.parquet(_without(records, lost))
        columns.append((pa.field(PREDICTIONS, pa.string(), metadata=JSON_COLUMN), pa.array(texts, pa.string())))
        schema = pa.schema([each for each, _ in columns], metadata={MARK: VERSION})
        stream = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_arrays([array for _, array in columns], schema=schema), stream, compression="zstd")
        data: bytes = stream.getvalue().to_pybytes()
        return data, len(records)

    def _column(self, name: str, kind: Any, records: Sequence[Record], lost: set[int]) -> tuple[Any, Any]:
        """The field and the values of a column: JSON if its type is open, or one of the values does not fit it."""
        pa, values = self._pa, [each.get(name) for each in records]
        if kind is not None:
            convert = pa.array if name.startswith(OWN) else array_of
            slices = (values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE))
            try:
                return pa.field(name, kind), pa.chunked_array([convert(each, kind) for each in slices], kind)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                values = list(_texts(_text, values, lost))
        return pa.field(name, pa.string(), metadata=JSON_COLUMN), pa.array(values, pa.string())


def _texts(form: Callable[[object], str | None], values: Sequence[object], lost: set[int]) -> list[str | None]:
    """The values' forms, None for None; the indices of values that have none are added to `lost`."""
    texts: list[str | None] = []
    for index, value in enumerate(values):
        try:
            texts.append(None if value is None else form(value))
        except Exception:  # noqa: BLE001  values of any type; the other rows do not depend on them
            texts.append(None)
            lost.add(index)
    return texts


def _without(records: Sequence[Record], lost: set[int]) -> list[Record]:
    return [record for index, record in enumerate(records) if index not in lost]


def _kind(pa: Any, declared: Field, signature: Signature) -> Any:
    """The Arrow type that keeps the field's values exactly; None if none does."""
    spec: Mapping[str, Any] = declared.raw
    if signature.from_type_hints:  # such values are checked by the model only
        return None
    if spec.get("type") == "datetime":
        return pa.timestamp("ns")
    while spec.get("type") == "array":
        spec = spec.get("items") or {}
    if spec.get("type") == "datetime":  # Arrow cuts the nanoseconds of those in lists
        return None
    return type_of_spec(pa, declared.raw) if spec.get("type") in {*SCALARS, "tensor"} else None


def _type(pa: Any, name: str) -> Any:
    return {
        "list<string>": pa.list_(pa.string()),
        "timestamp[us, tz=UTC]": pa.timestamp("us", "UTC"),
    }.get(name) or pa.type_for_alias(name)


def _text(value: object) -> str:
    """The value as JSON; a lone surrogate, which UTF-8 lacks, is escaped."""
    return encode(value).encode(errors="backslashreplace").decode()


def _prediction(result: object) -> str | None:
    """A prediction as the response has it; None if there is none, or it has no JSON form."""
    if not isinstance(result, Ok):
        return None
    try:
        return encode_predictions(Form.LEGACY, result.value).decode()
    except LikewiseError:
        return None
