"""The engine for any MLflow model: calls its `pyfunc` with the same inputs as MLflow's scoring server does."""

from __future__ import annotations

import base64
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
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
from likewise.core.uris import redacted
from likewise.engine.kinds import EngineKind, ModelFacts
from likewise.engine.plain_values import per_row, plain
from likewise.engine.vendored import VendoredFiles, install, likewise_cause, restricted_to, uninstall

FLAVOR = "python_function"
BUDGET = 256  # rows, because a pyfunc has no tokens


class PyfuncEngine:
    """A loaded pyfunc model.

    Rows with equal columns and params are predicted as one data frame; a frame that fails is bisected down to the
    failing rows.  A `Request` is one call.  Calls are serialized, because a model's code may not be thread-safe.
    per_row: splits what the model returns for a data frame of rows; an interface that has other types replaces it.
    """

    per_row: Callable[[Any, int], list[object]] = staticmethod(per_row)

    def __init__(self, model: Any, spec: EngineSpec, signature: Signature, vendored: VendoredFiles) -> None:
        self._model = model
        self._spec = spec
        self._signature = signature
        self._vendored = vendored
        self._lock = threading.Lock()

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One `Work` per item, with its cost in rows; `RowRefused` for an item that lacks a column of the signature."""
        return [self._prepare(item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result per work, in order."""
        results: dict[int, Result] = {}
        with self._lock, restricted_to(self._vendored), no_bytecode:
            for group in _groups(work):
                group_results = isolate(self._predict, [work[i].payload for i in group])
                results.update(zip(group, group_results, strict=True))
        return [results[i] for i in range(len(work))]

    def close(self) -> None:
        uninstall(self._vendored)
        self._model = None

    def _prepare(self, item: Item) -> Work | Failed:
        table = item.table if isinstance(item, Request) else Table(item.columns, [item.values])
        if table.columns is not None and table.sent is None and (missing := self._missing(table.columns)):
            return Failed(_missing_columns(missing, table.columns))
        return Work(item_key(item).hex(), max(1, len(table)), item)

    def _missing(self, columns: Sequence[str]) -> list[str]:
        fields = self._signature.inputs or ()
        return [f.name for f in fields if f.name is not None and f.required and f.name not in columns]

    def _predict(self, payloads: Sequence[object]) -> list[Result]:
        items = [item for item in payloads if isinstance(item, (Row, Request))]
        first = items[0]
        if isinstance(first, Request):
            return [Ok(plain(self._call_model(first.table, first.params)))]
        table = Table(first.columns, [row.values for row in items if isinstance(row, Row)])
        predictions = self._call_model(table, first.params)
        try:
            return [Ok(value) for value in self.per_row(predictions, len(items))]
        except LikewiseError as error:  # applies to the whole batch: bisecting it would hide a wrong row count
            return [Failed(error) for _ in items]

    def _call_model(self, table: Table, params: Params) -> Any:
        try:
            return self._model.predict(model_input(self._model.metadata, table), params=dict(params) or None)
        except Exception as error:
            if (known := likewise_cause(error)) is None:
                raise
            raise known from error


class PyfuncKind(EngineKind):
    """Runs any model with MLflow's `python_function` flavor, using the model's own code."""

    name = "pyfunc"
    runs_code = True
    requirements = ("likewise[mlflow]",)
    library = "mlflow"
    purpose = "bundle models and run any pyfunc"

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model has the `python_function` flavor."""
        return bool(model.flavors.get(FLAVOR))

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:  # noqa: ARG002  the same for all models
        """The engine `pyfunc/native`."""
        return (EngineEntry(self.name, "native"),)

    def open(
        self, bundle: Bundle, entry: EngineEntry, model_config: Mapping[str, object] | None = None
    ) -> PyfuncEngine:
        """Load the bundle's model, with its references resolved to the bundle. Runs the model's own code.

        model_config: as for `mlflow.pyfunc.load_model`.
        Raises ModelInvalid (it does not load), ReferenceMissing, MissingExtra.
        """
        vendored = VendoredFiles(bundle.reference_paths(), own=(bundle.path,))
        install(vendored)
        try:
            model = load_pyfunc(bundle.model_path, vendored, model_config)
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
        )
        return PyfuncEngine(model, spec, bundle.signature, vendored)


def load_pyfunc(
    path: os.PathLike[str], vendored: VendoredFiles, model_config: Mapping[str, object] | None = None
) -> Any:
    """`mlflow.pyfunc.load_model` on the folder `path`, with its references resolved by `vendored`."""
    mlflow = need("mlflow.pyfunc", extra="mlflow")
    with restricted_to(vendored), no_bytecode:
        try:
            return mlflow.load_model(os.fspath(path), suppress_warnings=True, model_config=model_config)
        except Exception as error:
            if (known := likewise_cause(error)) is not None:
                raise known from error
            raise ModelInvalid(
                f"the model at {path} does not load: {type(error).__name__}: {redacted(str(error))[:1000]}",
                remedy="install the model's requirements; try mlflow.pyfunc.load_model on the machine that logged it",
            ) from error


def model_input(metadata: Any, table: Table) -> Any:
    """The input that MLflow's scoring server would pass to `predict` for `table`.

    Named columns become a data frame with the signature's types (`dataframe_split`), or arrays by name if the
    signature has named tensors (`instances`); unnamed values become `inputs`.  A model whose signature is a type hint
    gets a plain list.  If the table has a `sent` value, that is passed instead.
    """
    convert = need("mlflow.utils.proto_json_utils", extra="mlflow")
    schema = metadata.get_input_schema()
    if (sent := table.sent) is not None:
        if sent.form == "document":
            return sent.value
        return convert.parse_tf_serving_input({sent.form: sent.value}, schema=schema)
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
    """A context in which Python does not write `__pycache__` next to the model's code, which would change the bundle.

    The flag is global to the process: the first thread to enter sets it, the last one to leave restores it.
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
    # MLflow expects binary columns in base64, as in JSON.
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _groups(work: Sequence[Work]) -> list[list[int]]:
    """Groups of indices: rows that may share a data frame; each request by itself."""
    groups: dict[object, list[int]] = {}
    for index, entry in enumerate(work):
        item = entry.payload
        group_key = item_key(Row(item.columns, (), item.params)) if isinstance(item, Row) else index
        groups.setdefault(group_key, []).append(index)
    return list(groups.values())


def _missing_columns(missing: Sequence[str], columns: Sequence[str]) -> RowRefused:
    return RowRefused(
        f"the input lacks the column {', '.join(map(repr, missing))}; it has: {', '.join(columns) or 'none'}",
        remedy="send every required column of the model's signature, as shown by: likewise inspect MODEL",
    )
