"""The spy model behind Likewise and behind plain MLflow, and the comparison of what its code got.

The model (spy_model.py) describes each row that it gets. `Spy.reference` is the description from
`mlflow.pyfunc.load_model(…).predict(…)`, the other methods give those through Likewise's interfaces.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema
from tests.support import spy_model
from tests.support.models import save_code, seal

from likewise import api
from likewise.core.engine import Engine, predict_items
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.core.signature import Signature
from likewise.wire import DecodedRequest

CODE = Path(spy_model.__file__)
Row = Mapping[str, Any]  # a row as the spy describes it
Seen = "Row | Refused"


@dataclass(frozen=True)
class Refused:
    """A row that was refused, and why."""

    cause: str


# --- models ----------------------------------------------------------------------------------------------------------


class SpyFolder:
    """Makes spy models in a folder: MLflow saves the first one, the others are copies with other signatures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Spy] = {}

    def signed(self, name: str, inputs: Schema | None) -> Spy:
        """The spy with these inputs; `name` identifies it."""
        if name not in self._made:
            if not (plain := self._folder / "plain").exists():
                save_code(plain, CODE.read_text())
            model = self._folder / str(len(self._made)) / "model"
            shutil.copytree(plain, model)
            facts = Model.load(str(model))
            facts.signature = ModelSignature(inputs) if inputs else None
            facts.save(str(model / "MLmodel"))
            self._made[name] = Spy(model)
        return self._made[name]

    def hinted(self, hint: str) -> Spy:
        """The spy whose input has the type hint `hint`."""
        if hint not in self._made:
            code = CODE.read_text().replace("model_input, params", f"model_input: {hint}, params")
            self._made[hint] = Spy(save_code(self._folder / str(len(self._made)) / "model", code))
        return self._made[hint]

    def close(self) -> None:
        for made in self._made.values():
            made.close()


class Spy:
    """A spy model: `model` is its MLflow folder, next to which a bundle is made."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self.bundle = api.open_bundle(seal(model.parent).path, trust=True)

    def close(self) -> None:
        self.bundle.close()
        if "engine" in self.__dict__:
            self.engine.close()

    @property
    def signature(self) -> Signature:
        return self.bundle.signature

    @cached_property
    def engine(self) -> Engine:
        return self.bundle.engine()

    @cached_property
    def _plain(self) -> Any:
        return mlflow.pyfunc.load_model(str(self.model))

    def reference(self, data: Any, params: Mapping[str, object] | None = None) -> list[Row] | Refused:
        """What the model's code gets from plain MLflow for `data`: a row each, or the error."""
        try:
            return parsed(self._plain.predict(data, params=None if params is None else dict(params)))
        except Exception as error:  # noqa: BLE001  MLflow raises many types
            return Refused(str(error))

    def reference_row(self, data: Any) -> Row | Refused:
        """The same for data of one row."""
        got = self.reference(data)
        if isinstance(got, Refused):
            return got
        (row,) = got
        return row

    def predicted(self, data: Any) -> list[Row] | Refused:
        """What the model's code gets from `Bundle.predict`."""
        try:
            return parsed(self.bundle.predict(data))
        except Exception as error:  # noqa: BLE001  the model's own errors too
            return Refused(str(error))

    def run(self, items: Sequence[Item]) -> list[Row | Refused]:
        """The engine's answers to row items."""
        return [_row(result) for result in predict_items(self.engine, items)]

    def called(self, call: DecodedRequest) -> list[Row | Refused]:
        """The answers to a decoded request; a request that is not split into rows fails as a whole."""
        results = predict_items(self.engine, call.items(True))
        if call.by_row(True):
            return [_row(result) for result in results]
        (result,) = results
        if isinstance(result, Failed):
            return [Refused(result.error.cause)] * max(1, len(call.table))
        assert isinstance(result.value, list)
        return list(parsed(result.value))


def parsed(predictions: Any) -> list[Row]:
    """The descriptions in a model's predictions."""
    return [json.loads(text) for text in predictions]


def _row(result: Result) -> Row | Refused:
    if isinstance(result, Failed):
        return Refused(result.error.cause)
    assert isinstance(result.value, str), result.value
    row: Row = json.loads(result.value)
    return row


# --- comparison ------------------------------------------------------------------------------------------------------


def difference(
    ours: Row | Refused,
    reference: Row | Refused,
    exact: Mapping[str, object],
    kinds: Mapping[str, str],
    *,
    refusable: bool = False,
    named: str | None = None,
) -> str | None:
    """Why `ours` is wrong, or None if it is right.

    reference: the row as plain MLflow hands it to the model, for the same values.  exact: the value of each field, as
    Python has it, or UNFIT for a value that has no lossless form in the field's type.  kinds: type of each field.
    refusable: whether the row may be refused though the reference takes it.  named: the field that a refusal must name.

    A row is right if each field equals the reference's in value, type and dtype; where the reference refuses or changes
    the value, if the value is exact, whatever its type; and a refusal is right where the reference is not exact.
    """
    unfit = [name for name, value in exact.items() if value is UNFIT]
    faithful = (
        not unfit
        and not isinstance(reference, Refused)
        and all(content(cell) == content_of(exact[name]) for name, _, cell in fields(reference) if name in exact)
    )
    if isinstance(ours, Refused):
        if faithful and not refusable:
            return f"refused, but MLflow takes it: {ours.cause}"
        return f"the refusal does not name {named}: {ours.cause}" if named and named not in ours.cause else None
    if unfit:
        return f"{', '.join(unfit)} has no lossless form, but is not refused: {ours}"
    got = {name: (dtype, cell) for name, dtype, cell in fields(ours)}
    if not isinstance(reference, Refused) and list(got) != [name for name, _, _ in fields(reference)]:
        return f"the fields are {list(got)}, the reference has {[name for name, _, _ in fields(reference)]}"
    theirs = {} if isinstance(reference, Refused) else {name: (d, cell) for name, d, cell in fields(reference)}
    for name, (dtype, cell) in got.items():
        value = content_of(exact[name])
        if name in theirs and content(theirs[name][1]) == value:
            if normal(kinds.get(name, ""), dtype, cell) != normal(kinds.get(name, ""), *theirs[name]):
                return f"{name}: {dtype} {cell}, but the reference has {theirs[name][0]} {theirs[name][1]}"
        elif content(cell) != value:
            return f"{name}: {dtype} {cell} is not {exact[name]!r}"
    return None


UNFIT = object()


class Faults(dict[tuple[str, ...], str]):
    """The first fault of each kind, so that a failing test shows all kinds of faults and an example of each."""

    def add(self, fault: str | None, *kind: str) -> None:
        """Keep `fault`, if there is one and none of its kind is known."""
        if fault:
            self.setdefault(kind, fault)

    def check(self) -> None:
        """Fail with all faults, if there are any."""
        assert not self, "\n" + "\n".join(f"{', '.join(kind)}: {fault}" for kind, fault in self.items())


def field_of(fault: str | None) -> str:
    """The field that a fault is about, or how it begins."""
    return "" if fault is None else fault.partition(":")[0]


def fields(row: Row) -> list[tuple[str, str, Any]]:
    """Name, dtype and described value of each field of a row; an unnamed element has an empty name."""
    (listed,) = (value for key, value in row.items() if key != "params")
    return [(str(name), dtype, cell) for name, dtype, cell in listed]


def normal(kind: str, dtype: str, cell: Any) -> Any:
    """A field's dtype and described value, without the differences that are none. There are five."""
    if kind == "string" and dtype in ("object", "str"):  # pandas has two dtypes for text, of `str` both
        return "text", ["null"] if content(cell) == NULL else cell  # a null is None in one and NaN in the other
    if kind == "any":  # pandas infers the dtype of such a column again: the value itself decides
        return "any", content(cell)
    return _without_width(dtype), _without_widths(cell)


def _without_widths(cell: Any) -> Any:
    if cell[0] == "ndarray" and not cell[3] and cell[1] in ("object", "float64"):
        return [cell[0], "no elements", cell[2], []]  # MLflow's is float64 if the column is required, else object
    if cell[0] == "ndarray":
        return [cell[0], _without_width(cell[1]), cell[2], [_without_widths(element) for element in cell[3]]]
    if cell[0] in ("list", "tuple"):
        return [cell[0], [_without_widths(element) for element in cell[1]]]
    if cell[0] == "dict":
        return [cell[0], [[key, _without_widths(member)] for key, member in cell[1]]]
    return cell


def _without_width(dtype: str) -> str:
    """The width of numpy's text and bytes is that of the longest value in the array, which may be another row's."""
    return dtype[:2] if dtype.startswith(("<U", "|S")) else dtype


NULL = ("null",)


def content_of(value: object) -> Any:
    return content(spy_model.described(value))


def content(cell: Any) -> Any:
    """A described value without its type: what must not change. Numbers are fractions, times nanoseconds since 1970."""
    kind, *rest = cell
    kind = kind.removeprefix("numpy.")
    if kind in ("NoneType", "NaTType", "NAType") or rest in (["nan"], ["NaT"]):
        return NULL
    if kind == "ndarray":
        return _reshaped([content(element) for element in rest[2]], rest[1])
    if kind in ("list", "tuple"):
        return "list", [content(element) for element in rest[0]]
    if isinstance(rest[0], list):
        return "members", [(content(key), content(member)) for key, member in rest[0]]
    name, read = _LEAVES.get(kind.rstrip("0123456789_"), (kind, str))
    return name, read(rest[0])


def _float(text: str) -> Fraction | str:
    return text if text in ("inf", "-inf", "-0x0.0p+0") else Fraction(float.fromhex(text))


def _nanoseconds(text: str) -> int:
    moment = pd.Timestamp(text)
    return int((moment if moment.tzinfo is None else moment.tz_convert(None)).as_unit("ns").value)


_LEAVES: dict[str, tuple[str, Callable[[str], Any]]] = {
    **dict.fromkeys(("int", "uint"), ("number", lambda text: Fraction(int(text)))),
    "float": ("number", _float),
    "str": ("text", str),
    **dict.fromkeys(("bytes", "bytearray"), ("bytes", str)),
    "bool": ("bool", str),
    **dict.fromkeys(("Timestamp", "datetime", "Nanoseconds"), ("time", _nanoseconds)),
}


def _reshaped(elements: list[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return elements[0]
    step = len(elements) // shape[0] if shape[0] else 0
    parts: Iterable[Any] = (elements[at * step : (at + 1) * step] for at in range(shape[0]))
    return "list", [_reshaped(part, shape[1:]) for part in parts]
