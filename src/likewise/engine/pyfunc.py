"""The engine for any MLflow model: calls its `pyfunc` with the same inputs as MLflow does."""

from __future__ import annotations

import copy
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import LikewiseError, ModelInvalid, RowRefused
from likewise.core.extras import need
from likewise.core.isolation import isolate, row_error
from likewise.core.items import Item, Params, Request, Row, Sent, Table
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.core.uris import redacted
from likewise.engine.checkpoints import pads_left
from likewise.engine.code_free import flavor_of, known_why_code
from likewise.engine.frames import check_exact, explain, missing_columns, own_copy
from likewise.engine.kinds import EngineKind, ModelFacts
from likewise.engine.model_code import model_code
from likewise.engine.model_input import is_final, model_input, row_types
from likewise.engine.plain_values import per_row, plain
from likewise.engine.vendored import VendoredFiles, exception_chain, install, likewise_cause, restricted_to, uninstall
from likewise.engine.versions import flavors_of, mlmodel_of

FLAVOR = "python_function"
BUDGET = 256  # rows, because a pyfunc has no tokens
CALLS = 32  # at the same time, of a model that is thread-safe: MLflow's server makes at most as many


class Counted(Protocol):
    """Counts something for the metrics of a server."""

    @property
    def counters(self) -> Mapping[str, int]: ...


class PyfuncEngine:
    """A loaded pyfunc model.

    Rows with equal columns and params are predicted as one data frame; a frame that fails is bisected down to the
    failing rows.  A `Request` is one call, and so is a row of a chat model or an agent.  Calls are serialized, unless
    `spec` states that the model is thread-safe.
    per_row: splits what the model returns for a data frame of rows; an interface that has other types replaces it.
    calls: counts the calls of compiled modules, if there are any.
    """

    per_row: Callable[[Any, int], list[object]] = staticmethod(per_row)

    def __init__(
        self,
        model: Any,
        spec: EngineSpec,
        signature: Signature,
        vendored: VendoredFiles,
        code: AbstractContextManager[object],
    ) -> None:
        """code: the context from `model_code` in which `model` was loaded."""
        self._model = model
        self._spec = spec
        self._signature = signature
        self._vendored = vendored
        self._code = code
        self.calls: Counted | None = getattr(code, "calls", None)
        self._turn: AbstractContextManager[object] = nullcontext() if spec.thread_safe else threading.Lock()
        self._final = _accepting_final_frames(model) if is_final(model.metadata) else None
        self._required = frozenset(f.name for f in signature.inputs or () if f.name is not None and f.required)
        fields = signature.inputs or ()
        self._documents = takes_documents(model.metadata.metadata)
        self._deciding = {f.name for f in fields if f.kind == "any" or (f.kind == "boolean" and not f.required)}

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    @property
    def counters(self) -> Mapping[str, int]:
        """See `core.engine.counters`."""
        return {} if self.calls is None else self.calls.counters

    @property
    def model(self) -> Any:
        """The `mlflow.pyfunc.PyFuncModel`."""
        return self._model

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One `Work` per item, with its cost in rows; `RowRefused` for an item that lacks a column of the signature."""
        return [self._prepare(item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result per work, in order."""
        results: dict[int, Result] = {}
        with self._code, restricted_to(self._vendored), no_bytecode:
            for group in self._groups(work):
                group_results = self._isolated([work[i].payload for i in group])
                results.update(zip(group, group_results, strict=True))
        return [results[i] for i in range(len(work))]

    def predict(self, data: Any, params: Params = None) -> Any:
        """The same as `mlflow.pyfunc.PyFuncModel.predict`, on a copy of `data`; returns what the model returns.

        Raises RowRefused, with row and column, for a value that does not fit the signature, and ModelRaised.
        """
        check_exact(data, self._signature)
        try:
            return self.call(own_copy(data), params)
        except Exception as error:
            if (known := likewise_cause(error)) is not None:
                raise known from error
            explain(data, self._signature)
            raise (refused_by_mlflow(error) or row_error(error)) from error

    def call(self, data: Any, params: Params = None) -> Any:
        """`mlflow.pyfunc.PyFuncModel.predict` itself: the model may change `data`, and raises its own errors."""
        with self._code, self._turn, restricted_to(self._vendored), no_bytecode:
            return self._model.predict(data, params=None if params is None else dict(params))

    def input_of(self, table: Table) -> Any:
        """The input of `call` for a table."""
        return model_input(self._model.metadata, table)

    def close(self) -> None:
        uninstall(self._vendored)
        self._model = self._final = None

    def _types(self, row: Row) -> tuple[object, ...]:
        """The types on which the dtypes of the row's columns depend."""
        if not self._signature.inputs or (row.columns is None and self._deciding):
            return row_types(row.values)
        return row_types([row.values[at] for at, name in enumerate(row.columns or ()) if name in self._deciding])

    def _prepare(self, item: Item) -> Work | Failed:
        table = item.table if isinstance(item, Request) else Table(item.columns, [item.values])
        if table.columns is not None and table.sent is None and (missing := self._required.difference(table.columns)):
            return Failed(missing_columns(sorted(missing), table.columns))
        return Work(item_key(item).hex(), max(1, len(table)), item)

    def _groups(self, work: Sequence[Work]) -> list[list[int]]:
        """Groups of indices: rows that may share a data frame without changing a value; each request by itself."""
        groups: dict[object, list[int]] = {}
        for index, entry in enumerate(work):
            item = entry.payload
            key: object = index
            if isinstance(item, Row) and not self._documents:
                params = item_key(Row(None, (), item.params)) if item.params else item.params is None
                key = (item.columns, params, item.arrow, self._types(item))
            groups.setdefault(key, []).append(index)
        return list(groups.values())

    def _isolated(self, payloads: Sequence[object]) -> list[Result]:
        with self._turn:
            return isolate(self._predict, payloads)

    def _predict(self, payloads: Sequence[object]) -> list[Result]:
        items = [item for item in payloads if isinstance(item, (Row, Request))]
        first = items[0]
        if isinstance(first, Request):
            return [Ok(plain(self._call_model(first.table, first.params)))]
        if self._documents:  # each by itself, as MLflow's server passes it; a table has null for what a request lacks
            given = zip(first.columns or (), first.values, strict=True)
            document = Sent("document", {name: value for name, value in given if value is not None})
            table = Table(first.columns, [first.values], document)
            return [Ok(plain(self._call_model(table, first.params)))]
        table = Table(first.columns, [row.values for row in items if isinstance(row, Row)], arrow=first.arrow)
        predictions = self._call_model(table, first.params)
        try:
            return [Ok(value) for value in self.per_row(predictions, len(items))]
        except LikewiseError as error:  # applies to the whole batch: bisecting it would hide a wrong row count
            return [Failed(error) for _ in items]

    def _call_model(self, table: Table, params: Params) -> Any:
        try:
            data = model_input(self._model.metadata, table)
            model = self._model if self._final is None or table.sent is not None else self._final
            return model.predict(data, params=None if params is None else dict(params))
        except Exception as error:
            if (known := likewise_cause(error) or refused_by_mlflow(error)) is None:
                raise
            raise known from error


def refused_by_mlflow(error: Exception) -> RowRefused | None:
    """The error for input that MLflow rejected, by a type hint or the signature, before the model's code ran."""
    if type(error).__name__ != "MlflowException":
        return None
    raised = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not all(module.startswith(("likewise.engine.", "mlflow.")) for module in raised):
        return None
    return RowRefused(
        redacted(str(error))[:500],
        remedy="send input that fits the model's signature and type hints, as shown by: likewise inspect MODEL",
    )


def _accepting_final_frames(model: Any) -> Any:
    """A twin of `model` that hands a frame of `model_input` to the model's code without converting it again."""
    metadata = copy.copy(model.metadata)
    signature = metadata.signature
    rest = signature.outputs or signature.params  # MLflow's signature may not be empty
    metadata.signature = type(signature)(outputs=signature.outputs, params=signature.params) if rest else None
    twin = copy.copy(model)
    twin._model_meta = metadata
    return twin


class PyfuncKind(EngineKind):
    """Runs any model with MLflow's `python_function` flavor, using the model's own code."""

    name = "pyfunc"
    runs_code = True
    requirements = ("likewise[mlflow]",)
    library = "mlflow"
    purpose = "bundle models and run any pyfunc"
    logged_libraries = True

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model has the `python_function` flavor."""
        return bool(model.flavors.get(FLAVOR))

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:
        """The engine `pyfunc/native`, except for a model without code, which `flavor/native` runs in the same way."""
        return () if known_why_code(model.folder) is None else (EngineEntry(self.name, "native"),)

    def row_wise(self, model: ModelFacts) -> bool:
        """Whether the model is of a flavour whose `predict` gives one prediction per row, from that row alone.

        Not for sentence-transformers with other inputs than texts, because MLflow takes the first of a list of texts;
        nor for those that pad on the left.
        """
        flavor = flavor_of(model.flavors)
        if flavor != "sentence_transformers":
            return flavor is not None
        kinds = [field.kind for field in Signature.parse(model.signature_raw).inputs or ()]
        return kinds == ["string"] and not pads_left(model.folder)

    def in_processes(self, bundle: Bundle) -> bool:
        """Unless the model declares that it may be called several times at once: its calls mostly wait."""
        return not declares(mlmodel_of(bundle.model_path).get("metadata"), "thread_safe")

    def open(
        self, bundle: Bundle, entry: EngineEntry, model_config: Mapping[str, object] | None = None
    ) -> PyfuncEngine:
        """Load the bundle's model, with its references resolved to the bundle. Runs the model's own code.

        model_config: as for `mlflow.pyfunc.load_model`.
        Raises ModelInvalid (it does not load), ReferenceMissing, MissingExtra.
        """
        vendored = VendoredFiles(bundle.reference_paths(), own=(bundle.path,))
        code = self._context(bundle, entry)
        install(vendored)
        try:
            with code:
                model = load_pyfunc(bundle.model_path, vendored, bundle.manifest.source.uri, model_config)
        except BaseException:
            uninstall(vendored)
            raise
        slots = CALLS if declares(model.metadata.metadata, "thread_safe") else 1
        spec = EngineSpec(
            name=entry.name,
            precision=entry.precision,
            row_wise=bundle.manifest.row_wise,
            thread_safe=slots > 1,
            pure=False,
            budget=BUDGET,
            slots=slots,
        )
        return PyfuncEngine(model, spec, bundle.signature, vendored, code)

    def _context(self, bundle: Bundle, entry: EngineEntry) -> AbstractContextManager[object]:  # noqa: ARG002
        """The context in which the model loads and predicts; several threads may enter it."""
        return model_code(bundle)


def load_pyfunc(
    path: os.PathLike[str],
    vendored: VendoredFiles,
    source: str,
    model_config: Mapping[str, object] | None = None,
) -> Any:
    """`mlflow.pyfunc.load_model` on the folder `path`, with its references resolved by `vendored`.

    source: the URI that names the model in errors, since `path` may be a temporary copy.
    """
    mlflow = need("mlflow.pyfunc", extra="mlflow")
    with restricted_to(vendored), no_bytecode:
        try:
            _select_keras_backend(Path(path))
            return mlflow.load_model(os.fspath(path), suppress_warnings=True, model_config=model_config)
        except Exception as error:
            if (known := likewise_cause(error)) is not None:
                raise known from error
            message = f"{type(error).__name__}: {redacted(str(error))[:1000]}"
            raise ModelInvalid(
                f"the model {source} does not load: {message} ({_place(error)})",
                remedy=_load_remedy(error),
            ) from error


_INSTALL = "install the model's requirements, or add --env to run it in an environment with its own versions"


def _load_remedy(error: Exception) -> str:
    missing = [link.name for link in exception_chain(error) if isinstance(link, ModuleNotFoundError) and link.name]
    if missing:
        module = missing[0].partition(".")[0]
        return (
            f"if {module} is your own module, log the model again with its file or folder in code_paths=[…]; "
            f"otherwise {_INSTALL}"
        )
    return f"fix it, or, if the model loads where it was logged, {_INSTALL}"


def _place(error: Exception) -> str:
    """The line that raised the error."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"in {last.name}, {Path(last.filename).name}, line {last.lineno}"


def _select_keras_backend(model: Path) -> None:
    """Select the backend with which a Keras model was logged, unless the user has; the default is TensorFlow."""
    if backend := flavors_of(model).get("keras", {}).get("keras_backend"):
        os.environ.setdefault("KERAS_BACKEND", str(backend))


def takes_documents(metadata: object) -> bool:
    """Whether each row is a request, such as `{"messages": […]}`: of a ChatModel, a ChatAgent or a ResponsesAgent."""
    return isinstance(metadata, Mapping) and str(metadata.get("task")).startswith("agent/")


def declares(metadata: object, name: str) -> bool:
    """Whether the model's metadata has `likewise: {NAME: true}`; `thread_safe`: several calls may run at once."""
    own = metadata.get("likewise") if isinstance(metadata, Mapping) else None
    return isinstance(own, Mapping) and own.get(name) is True


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
