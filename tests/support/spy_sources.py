"""Requests and files with given rows, for the spy models.

`specs` maps the names of the fields, or their indices if the signature has no names, to their types.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from starlette.testclient import TestClient
from tests.support.batch.scoring import quarantined, read
from tests.support.oip import body_of, tensor
from tests.support.spy import Refused, Row, Spy, parsed
from tests.support.spy_values import FieldSpec
from tests.support.waiting import until
from tritonclient.http import InferenceServerClient

from likewise import api
from likewise.batch import ScoreOptions
from likewise.container.forms import LineDecoder
from likewise.core.fields import ABSENT
from likewise.core.signature import Signature
from likewise.server import ServedModel
from likewise.server.app import create_app
from likewise.wire import DecodedRequest, Decoder
from likewise.wire.oip import HEADER_LENGTH, decode_infer

JSON, CSV, JSON_LINES, PARQUET = (
    "application/json",
    "text/csv",
    "application/jsonlines",
    "application/vnd.apache.parquet",
)
Specs = Mapping[Any, FieldSpec]
Rows = Sequence[Mapping[Any, Any]]
NESTED = ("array", "object", "map", "any")


class InexpressibleError(Exception):
    """The form has no way to write the value."""


# --- JSON ------------------------------------------------------------------------------------------------------------


def json_value(value: Any, *, ascii_bytes: bool = False) -> Any:
    """A value of a field as JSON: times in ISO 8601, bytes in base64, or as ASCII text as `inputs` has them."""
    if isinstance(value, bytes):
        if not ascii_bytes:
            return base64.b64encode(value).decode()
        if not value.isascii():
            raise InexpressibleError
        return value.decode()
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, list):
        return [json_value(element, ascii_bytes=ascii_bytes) for element in value]
    if isinstance(value, dict):
        return {name: json_value(member, ascii_bytes=ascii_bytes) for name, member in value.items()}
    return value


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _unnamed(specs: Specs) -> bool:
    return any(isinstance(name, int) for name in specs)


def split(specs: Specs, rows: Rows) -> bytes:
    names = list(specs if _unnamed(specs) else rows[0])
    data = [[json_value(row[name]) for name in names] for row in rows]
    return _dumped({"dataframe_split": {"data": data} if _unnamed(specs) else {"columns": names, "data": data}})


def records(specs: Specs, rows: Rows) -> bytes:
    if _unnamed(specs):
        raise InexpressibleError
    return _dumped({"dataframe_records": [json_value(dict(row)) for row in rows]})


def _values(specs: Specs, rows: Rows) -> list[Any]:
    listed = [json_value(dict(row), ascii_bytes=True) for row in rows]
    if not _unnamed(specs):
        return listed
    return [row[0] if len(specs) == 1 else [row[at] for at in specs] for row in listed]


def inputs(specs: Specs, rows: Rows) -> bytes:
    return _dumped({"inputs": _values(specs, rows)})


def instances(specs: Specs, rows: Rows) -> bytes:
    return _dumped({"instances": _values(specs, rows)})


def by_column(specs: Specs, rows: Rows) -> bytes:
    if _unnamed(specs) or any(spec["type"] in NESTED for spec in specs.values()):
        raise InexpressibleError  # MLflow reads lists there as one row
    return _dumped({"inputs": {name: [json_value(row[name], ascii_bytes=True) for row in rows] for name in rows[0]}})


def json_lines(specs: Specs, rows: Rows) -> bytes:
    if _unnamed(specs):
        return b"".join(_dumped(value) + b"\n" for value in _values(specs, rows))
    return b"".join(_dumped(json_value(dict(row))) + b"\n" for row in rows)


# --- CSV -------------------------------------------------------------------------------------------------------------


def csv_cell(spec: FieldSpec, value: Any) -> str:
    """A value of a field as a CSV field. An empty one is the empty text, or null in a column that is not text."""
    kind = spec["type"]
    if value is None and kind == "string":
        raise InexpressibleError
    if value is None:
        return ""
    if kind == "any" and not (isinstance(value, str) and value.isalpha() and value.lower() not in ("true", "false")):
        raise InexpressibleError  # a field of a CSV has no type: MLflow infers one
    if kind in NESTED[:3] or isinstance(value, (list, dict)):
        return json.dumps(json_value(value))
    text = value if isinstance(value, str) else json_value(value) if isinstance(value, (bytes, pd.Timestamp)) else None
    text = text if text is not None else json.dumps(value)
    if kind != "string" and text.strip().lower() in ABSENT:
        raise InexpressibleError
    return str(text)


def csv_text(specs: Specs, rows: Rows, *, header: bool = True) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    if header:
        writer.writerow([f"column {name}" if isinstance(name, int) else name for name in rows[0]])
    names = list(rows[0]) if header else list(specs)
    writer.writerows([csv_cell(specs[name], row[name]) for name in names] for row in rows)
    return out.getvalue().encode()


# --- Open Inference Protocol -----------------------------------------------------------------------------------------

DATATYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}
DTYPES = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}


def _element(spec: FieldSpec, value: Any) -> Any:
    return json.dumps(json_value(value)) if spec["type"] in ("array", "object", "map") else json_value(value)


def _flat(spec: FieldSpec, values: Sequence[Any]) -> tuple[str, list[int], list[Any]]:
    """The element type, the shape and the elements of a field's values, one for each row."""
    kind = spec["type"]
    if kind == "array" and spec["items"]["type"] in (*DATATYPES, "string", "datetime", "binary"):
        sizes = {0 if value is None else len(value) for value in values}
        if len(sizes) > 1 or 0 in sizes:
            raise InexpressibleError  # a tensor is not ragged, and none of its dimensions is 0
        items = spec["items"]
        return items["type"], [len(values), sizes.pop()], [_element(items, e) for value in values for e in value]
    if kind == "any":
        known = {str: "string", bool: "boolean", int: "long", float: "double"}
        types = {known.get(type(value)) for value in values}
        if len(types) > 1 or None in types:
            raise InexpressibleError
        return str(types.pop()), [len(values)], list(values)
    return kind, [len(values)], [None if value is None else _element(spec, value) for value in values]


def oip_json(specs: Specs, rows: Rows) -> tuple[bytes, str | None]:
    tensors = []
    for name in rows[0]:
        kind, shape, elements = _flat(specs[name], [row[name] for row in rows])
        more = {"content_type": "base64"} if kind == "binary" else {}
        tensors.append(tensor(str(name), DATATYPES.get(kind, "BYTES"), shape, elements, **more))
    return _dumped({"inputs": tensors}), None


def oip_binary(specs: Specs, rows: Rows) -> tuple[bytes, str | None]:
    arrays = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        kind, shape, elements = _flat(specs[name], values)
        if kind in ("float", "double"):
            elements = [np.nan if element is None else element for element in elements]
        elif None in elements:
            raise InexpressibleError
        if kind == "binary":
            elements = [base64.b64decode(element) for element in elements]
        elif kind not in DTYPES:
            elements = [element.encode() for element in elements]
        arrays[str(name)] = np.array(elements, dtype=DTYPES.get(kind, object)).reshape(shape)
    return body_of(arrays)


# --- forms of requests -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A form of requests.

    `encode` returns a body, and the length of its JSON if binary tensors follow it. arrays: whether arrays are NumPy's
    for the model, because MLflow makes arrays of the form's values.
    """

    encode: Callable[[Specs, Rows], tuple[bytes, str | None]]
    media: str
    decoder: str = "service"
    arrays: bool = False

    def call(self, signature: Signature, specs: Specs, rows: Rows) -> DecodedRequest:
        """The request with these rows, decoded; raises InexpressibleError and BadRequest."""
        body, length = self.encode(specs, rows)
        if self.decoder == "inference protocol":
            return decode_infer(body, length, signature)
        return (LineDecoder if self.decoder == "container" else Decoder)(signature)(body, self.media)


def _headerless(specs: Specs, rows: Rows) -> bytes:
    if set(rows[0]) != set(specs):
        raise InexpressibleError
    return csv_text(specs, rows, header=False)


def _form(
    encode: Callable[[Specs, Rows], bytes], media: str = JSON, decoder: str = "service", *, arrays: bool = False
) -> Form:
    return Form(lambda specs, rows: (encode(specs, rows), None), media, decoder, arrays)


FORMS: dict[str, Form] = {
    "dataframe_split": _form(split),
    "dataframe_records": _form(records),
    "inputs": _form(inputs, arrays=True),
    "instances": _form(instances, arrays=True),
    "inputs by column": _form(by_column),
    "CSV": _form(csv_text, CSV),
    "container CSV": _form(csv_text, f"{CSV}; header=present", "container"),
    "container CSV without a header": _form(_headerless, f"{CSV}; header=absent", "container"),
    "container JSON Lines": _form(json_lines, JSON_LINES, "container"),
    "inference protocol": Form(oip_json, JSON, "inference protocol"),
    "inference protocol, binary": Form(oip_binary, "application/octet-stream", "inference protocol"),
}


@contextmanager
def serving(spy: Spy) -> Iterator[TestClient]:
    """A client of the web service of a spy."""
    served = ServedModel(name="model", digest=spy.bundle.digest, signature=spy.signature)
    with TestClient(create_app(spy.bundle.engine, served)) as client:
        until(lambda: client.get("/ready").status_code == 200)
        yield client


def posted(client: TestClient, form: Form, specs: Specs, rows: Rows) -> list[Row] | Refused:
    """The service's answer to a request; raises InexpressibleError."""
    body, length = form.encode(specs, rows)
    if form.decoder == "service":
        return _answered(client.post("/invocations", content=body, headers={"Content-Type": form.media}))
    headers = {"Content-Type": form.media} | ({} if length is None else {HEADER_LENGTH: length})
    response = client.post("/v2/models/model/infer", content=body, headers=headers)
    if response.status_code != 200:
        return Refused(response.text)
    length = response.headers.get(HEADER_LENGTH)
    result = InferenceServerClient.parse_response_body(response.content, header_length=length and int(length))
    (output,) = result.get_response()["outputs"]
    return parsed(result.as_numpy(output["name"]).tolist())


def posted_parquet(client: TestClient, columns: Any) -> list[Row] | Refused:
    """The service's answer to a Parquet body with an Arrow table."""
    stream = io.BytesIO()
    pq.write_table(columns, stream)
    return _answered(client.post("/invocations", content=stream.getvalue(), headers={"Content-Type": PARQUET}))


def _answered(response: Any) -> list[Row] | Refused:
    return parsed(response.json()["predictions"]) if response.status_code == 200 else Refused(response.text)


# --- jobs ------------------------------------------------------------------------------------------------------------


def scored(spy: Spy, source: Path, output: Path, **options: Any) -> list[Row | Refused]:
    """What the spy got in a job that scores the file `source`: one entry for each of its rows."""
    report = api.score(spy.bundle, source, output, options=ScoreOptions(format="jsonl", allow_empty=True, **options))
    errors = {int(str(entry["row"])): Refused(f"row {entry['row']}: {entry['cause']}") for entry in quarantined(output)}
    answers = (json.loads(str(row["predictions"])) for row in read(output))
    rows = [errors[row] if row in errors else next(answers) for row in range(1, report.rows_in + 1)]
    assert next(answers, None) is None
    return rows


def parquet_file(path: Path, columns: Any) -> Path:
    """A Parquet file of an Arrow table."""
    pq.write_table(columns, path)
    return path
