"""Filters records of batch transform jobs, and joins them with their predictions (DataProcessing).

Source: AWS, "Associate Prediction Results with Corresponding Input Records".
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from likewise.targets.sagemaker.emulator.catalog import RequestParams

CSV, JSON = "text/csv", "application/json"
LINES = frozenset({"application/jsonlines", "application/jsonl", "application/x-ndjson"})
_STEP = re.compile(r"""\.(?P<name>[^.\[\]'*]+)|\.?(?P<any>\*)|\[(?P<items>(?:'[^']*'|[^\]'])+)\]""")
_ITEM = re.compile(r"""'(?P<name>[^']*)'|(?P<any>\*)|(?P<begin>(?:-?\d+)?)(?P<slice>:)?(?P<end>(?:-?\d+)?)""")
_QUOTED_OR_PLAIN = re.compile(r"(?:'[^']*'|[^,'])+")

Select = Callable[[Any], Any]


class RecordError(ValueError):
    """A filter or a join that is not supported, or not possible for a record."""


def selector(path: str) -> Select:
    """The function that a JSONPath describes: names, indexes, slices, `*`; only the last step may select several.

    Raises RecordError for other paths; the function does for a record that lacks what is selected.
    """
    steps: list[list[Any]] = []
    at, whole = 1, path[:1] == "$"
    while whole and at < len(path):
        match = _STEP.match(path, at)
        whole = match is not None
        if match is not None:
            steps.append(_items(match, path))
            at = match.end()
    if not whole or any(len(items) != 1 or _is_plural(items[0]) for items in steps[:-1]):
        raise RecordError(f"the JSONPath {path!r} is not supported by the rehearsal")
    return partial(_select, path, steps)


def _items(step: re.Match[str], path: str) -> list[Any]:
    """What one step selects: names, indexes and slices."""
    if step["items"] is None:
        return [slice(None) if step["any"] else step["name"]]
    items: list[Any] = []
    texts = _QUOTED_OR_PLAIN.findall(step["items"])
    for text in texts:
        match = _ITEM.fullmatch(text.strip())
        if match is None or not text.strip() or ",".join(texts) != step["items"]:
            raise RecordError(f"the JSONPath {path!r} is not supported by the rehearsal")
        if match["name"] is not None:
            items.append(match["name"])
        elif match["any"] or match["slice"]:
            items.append(slice(*(int(each) if each else None for each in (match["begin"], match["end"]))))
        else:
            items.append(int(match["begin"]))
    return items


def _is_plural(item: object) -> bool:
    return isinstance(item, slice)


def _select(path: str, steps: Sequence[list[Any]], value: Any) -> Any:
    for items in steps:
        if len(items) == 1 and not _is_plural(items[0]):
            value = _one(path, value, items[0])
        elif isinstance(value, dict) and items != [slice(None)]:
            value = {name: _one(path, value, name) for name in items}
        else:
            elements = list(value.values()) if isinstance(value, dict) else value
            value = [each for item in items for each in _several(path, elements, item)]
    return value


def _several(path: str, value: Any, item: Any) -> list[Any]:
    found = value[item] if _is_plural(item) and isinstance(value, list) else [_one(path, value, item)]
    if not found:
        raise RecordError(f"the JSONPath {path!r} selects nothing in a record")
    return list(found)


def _one(path: str, value: Any, item: Any) -> Any:
    try:
        if isinstance(value, dict if isinstance(item, str) else list):
            return value[item]
    except LookupError:
        pass
    raise RecordError(f"the JSONPath {path!r} selects nothing in a record")


@dataclass(frozen=True)
class Processing:
    """What a job does with records before and after the model.  None: a filter that selects everything."""

    input_filter: Select | None
    output_filter: Select | None
    join: bool
    content: str
    accept: str

    @classmethod
    def of(cls, params: RequestParams) -> Processing:
        """The processing of a job; params: of CreateTransformJob.  Raises RecordError."""
        given = params.get("DataProcessing", {})
        filters = [given.get(name, "$") for name in ("InputFilter", "OutputFilter")]
        selects = [None if path == "$" else selector(path) for path in filters]
        join = given.get("JoinSource", "None") == "Input"
        content, accept = (
            str(text).partition(";")[0].strip().lower()
            for text in (params["TransformInput"].get("ContentType", ""), params["TransformOutput"].get("Accept", ""))
        )
        used = {content} if selects[0] or join else set()
        used |= {accept} if selects[1] or join else set()
        if unknown := used - {CSV, JSON, *LINES}:
            raise RecordError(f"DataProcessing needs CSV, JSON or JSON Lines, not {', '.join(map(repr, unknown))}")
        if join and (content == CSV) != (accept == CSV):
            raise RecordError(f"JoinSource needs one format for input and output, not {content} and {accept}")
        return cls(selects[0], selects[1], join, content, accept)

    def sent(self, record: bytes) -> bytes:
        """The part of a record, or of the lines of an object, that is sent to the model."""
        if self.input_filter is None:
            return record
        documents = self._documents([record], self.content)
        return b"".join(_dumped(self.input_filter(_loaded(each, self.content)), self.content) for each in documents)

    def written(self, records: Sequence[bytes], response: bytes) -> bytes:
        """The output for the records of one request."""
        if self.output_filter is None and not self.join:
            return response
        outputs = [response] if self.accept == JSON and len(records) == 1 else response.splitlines()
        values = [_loaded(each, self.accept) for each in outputs]
        if self.join:
            inputs = [_loaded(each, self.content) for each in self._documents(records, self.content)]
            if len(inputs) != len(values):
                raise RecordError(f"{len(inputs)} records cannot be joined with the model's {len(values)} results")
            values = [_joined(record, output, self.accept) for record, output in zip(inputs, values, strict=True)]
        kept = values if self.output_filter is None else map(self.output_filter, values)
        return b"".join(_dumped(each, self.accept) for each in kept)

    def _documents(self, records: Sequence[bytes], media: str) -> list[bytes]:
        """A JSON record is one document; the others consist of lines."""
        return list(records) if media == JSON else [line for record in records for line in record.splitlines()]


def _loaded(record: bytes, media: str) -> Any:
    try:
        text = record.decode()
        return next(csv.reader([text], strict=True), []) if media == CSV else json.loads(text)
    except (ValueError, csv.Error) as error:
        raise RecordError(f"a record is not valid {media}: {error}") from error


def _dumped(value: Any, media: str) -> bytes:
    if media != CSV:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(value if isinstance(value, list) else [value])
    return out.getvalue().encode()


def _joined(record: Any, output: Any, media: str) -> Any:
    if media == CSV:
        return [*record, *output]
    return {**(record if isinstance(record, dict) else {"SageMakerInput": record}), "SageMakerOutput": output}
