"""The engine for any MLflow model: its own `pyfunc`, asked in frames as MLflow's scoring server would ask it."""

from __future__ import annotations

import base64
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import LikewiseError, ModelInvalid, RowRefused
from likewise.core.extras import need
from likewise.core.isolation import isolate
from likewise.core.items import Item, Params, Request, Row, Table
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.engine.kinds import EngineKind, ModelFacts
from likewise.engine.plain_values import per_row, plain
from likewise.engine.vendored import Vendored, inside, install, named_cause, uninstall

FLAVOR = "python_function"
BUDGET = 256  # rows; pyfunc knows no tokens


class PyfuncEngine:
    """A loaded pyfunc.

    Rows with equal columns and params are predicted as one frame; a frame that fails is halved until the row that
    fails stands alone.  A `Request` is one call.  One call at a time: nothing says that a model's code is thread-safe.
    """

    def __init__(self, model: Any, spec: EngineSpec, signature: Signature, vendored: Vendored) -> None:
        self._model = model
        self._spec = spec
        self._signature = signature
        self._vendored = vendored
        self._one_at_a_time = threading.Lock()

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One `Work` an item, its cost in rows; `RowRefused` for an item that lacks a column of the signature."""
        return [self._prepare(item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result a work, in order."""
        results: dict[int, Result] = {}
        with self._one_at_a_time, inside(self._vendored), no_bytecode:
            for group in _groups(work):
                found = isolate(self._predict, [work[i].payload for i in group])
                results.update(zip(group, found, strict=True))
        return [results[i] for i in range(len(work))]

    def close(self) -> None:
        uninstall(self._vendored)
        self._model = None

    def _prepare(self, item: Item) -> Work | Failed:
        table = item.table if isinstance(item, Request) else Table(item.columns, [item.values])
        if table.columns is not None and table.sent is None and (lacking := self._lacking(table.columns)):
            return Failed(_lacks(lacking, table.columns))
        return Work(item_key(item).hex(), max(1, len(table)), item)

    def _lacking(self, columns: Sequence[str]) -> list[str]:
        fields = self._signature.inputs or ()
        return [f.name for f in fields if f.name is not None and f.required and f.name not in columns]

    def _predict(self, payloads: Sequence[object]) -> list[Result]:
        items = [item for item in payloads if isinstance(item, (Row, Request))]
        first = items[0]
        if isinstance(first, Request):
            return [Ok(plain(self._ask(first.table, first.params)))]
        table = Table(first.columns, [row.values for row in items if isinstance(row, Row)])
        predictions = self._ask(table, first.params)
        try:
            return [Ok(value) for value in per_row(predictions, len(items))]
        except LikewiseError as error:  # of the whole answer: halves would answer something else
            return [Failed(error) for _ in items]

    def _ask(self, table: Table, params: Params) -> Any:
        try:
            return self._model.predict(model_input(self._model.metadata, table), params=dict(params) or None)
        except Exception as error:
            if (known := named_cause(error)) is None:
                raise
            raise known from error


class PyfuncKind(EngineKind):
    """Any model with MLflow's `python_function` flavor, by its own code."""

    name = "pyfunc"
    runs_code = True
    requirements = ("likewise[mlflow]",)
    library = "mlflow"
    purpose = "bundle models and run any pyfunc"

    def takes(self, model: ModelFacts) -> bool:
        """Whether it was logged with that flavor."""
        return bool(model.flavors.get(FLAVOR))

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:
        """One engine, whose digest is that of the environment that the model's code needs."""
        return (EngineEntry(self.name, "native", runs_code=True, digest=model.environment.digest),)

    def open(self, bundle: Bundle, entry: EngineEntry) -> PyfuncEngine:
        """Load the bundle's model; what it opens comes from the bundle. Runs the model's own code.

        Raises ModelInvalid (it does not load, with the reason), ReferenceMissing, MissingExtra.
        """
        vendored = Vendored(bundle.reference_paths(), own=(bundle.path,))
        install(vendored)
        try:
            model = load_pyfunc(bundle.model_path, vendored)
        except BaseException:
            uninstall(vendored)
            raise
        spec = EngineSpec(
            name=entry.name,
            precision=entry.precision,
            row_wise=bundle.manifest.row_wise,
            thread_safe=False,
            pure=False,
            budget=BUDGET,
            digest=entry.digest,
        )
        return PyfuncEngine(model, spec, bundle.signature, vendored)


def load_pyfunc(path: os.PathLike[str], vendored: Vendored) -> Any:
    """`mlflow.pyfunc.load_model` on the folder `path`, its references answered by `vendored`."""
    mlflow = need("mlflow.pyfunc", extra="mlflow")
    with inside(vendored), no_bytecode:
        try:
            return mlflow.load_model(os.fspath(path), suppress_warnings=True)
        except Exception as error:
            if (known := named_cause(error)) is not None:
                raise known from error
            raise ModelInvalid(
                f"the model at {path} does not load: {type(error).__name__}: {str(error)[:1000]}",
                remedy="install the requirements that it names; try mlflow.pyfunc.load_model where it was logged",
            ) from error


def model_input(metadata: Any, table: Table) -> Any:
    """What MLflow's scoring server would hand to `predict` for `table`.

    Named columns are a frame with the signature's types (`dataframe_split`), or arrays by name where the signature
    names tensors (`instances`); unnamed values are `inputs`.  A model whose signature is a type hint gets a plain list.
    What the asker `sent` goes that way where the table holds it.
    """
    convert = need("mlflow.utils.proto_json_utils", extra="mlflow")
    schema = metadata.get_input_schema()
    if (sent := table.sent) is not None:
        as_it_is = sent.form == "document"
        return sent.value if as_it_is else convert.parse_tf_serving_input({sent.form: sent.value}, schema=schema)
    if metadata._is_signature_from_type_hint():
        return _records(table)
    if table.columns is None:
        return convert.parse_tf_serving_input({"inputs": _records(table)}, schema=schema)
    if schema is not None and schema.is_tensor_spec() and schema.has_input_names():
        return convert.parse_tf_serving_input({"instances": _records(table)}, schema=schema)
    rows = table.rows if schema is None else [[_as_json(value) for value in row] for row in table.rows]
    split = {"columns": list(table.columns), "data": [list(row) for row in rows]}
    return convert.dataframe_from_parsed_json(split, pandas_orient="split", schema=schema)


class _NoBytecode:
    """A context in which Python writes no `__pycache__` beside the model's code, which would change the bundle.

    The flag is the process's: the first thread that comes in sets it, the last that leaves puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                sys.dont_write_bytecode = self._before


no_bytecode = _NoBytecode()


def _records(table: Table) -> list[Any]:
    if table.columns is None:
        return [row[0] for row in table.rows]
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _as_json(value: object) -> object:
    # MLflow reads a binary column from base64, as JSON carries it.
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _groups(work: Sequence[Work]) -> list[list[int]]:
    """Indices of rows that may share a frame; a request stands alone."""
    groups: dict[object, list[int]] = {}
    for index, entry in enumerate(work):
        item = entry.payload
        alike = item_key(Row(item.columns, (), item.params)) if isinstance(item, Row) else index
        groups.setdefault(alike, []).append(index)
    return list(groups.values())


def _lacks(lacking: Sequence[str], columns: Sequence[str]) -> RowRefused:
    return RowRefused(
        f"the input lacks the column {', '.join(map(repr, lacking))}; it has: {', '.join(columns) or 'none'}",
        remedy="send every required column of the model's signature: likewise inspect MODEL shows it",
    )
