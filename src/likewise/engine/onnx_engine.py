"""The engines for MLflow's ONNX flavor: an ONNX file holds no code, so no trust is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.cores import usable_threads
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import LikewiseError, ModelInvalid, RowRefused
from likewise.core.extras import need
from likewise.core.items import Item, Request, Row
from likewise.core.results import Failed
from likewise.engine.kinds import EngineKind, ModelFacts
from likewise.engine.onnx_file import read_onnx
from likewise.engine.onnx_sessions import OPTIONS, Feeds, Session, open_onnxruntime
from likewise.engine.pyfunc import FLAVOR, PyfuncEngine
from likewise.engine.vendored import VendoredFiles

BUDGET = 512
"""Values per run: rows of a model of texts, whose lengths differ, gain nothing from waiting for each other."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What MLflow's flavor states about its model. path: the ONNX file. providers, options: of the session."""

    path: Path
    providers: tuple[str, ...]
    options: Mapping[str, Any]


def declared(folder: Path, flavors: Mapping[str, Mapping[str, object]]) -> Declared | None:
    """The ONNX model in the MLflow model `folder`; None for another flavor, or one that may run the author's code.

    Providers with options, and session options other than `OPTIONS`, can name libraries that a runtime would load.
    """
    flavor, pyfunc = flavors.get("onnx") or {}, flavors.get(FLAVOR) or {}
    data, providers, options = flavor.get("data"), flavor.get("providers"), flavor.get("onnx_session_options") or {}
    if pyfunc.get("loader_module") != "mlflow.onnx" or pyfunc.get("code") or flavor.get("code"):
        return None
    if not isinstance(data, str) or data != pyfunc.get("data") or PurePosixPath(data).name != data:
        return None
    providers = [providers] if isinstance(providers, str) else providers or []
    if not isinstance(providers, list) or not all(isinstance(name, str) for name in providers):
        return None
    if not isinstance(options, Mapping) or any(value for name, value in options.items() if name not in OPTIONS):
        return None
    return Declared(folder / data, tuple(providers), options)


class OnnxModel:
    """Takes and returns what MLflow's ONNX pyfunc does. Source: `_OnnxModelWrapper` in mlflow/onnx of MLflow 3.17."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:  # noqa: ARG002  MLflow's signature
        """A frame for a frame, else a dict of the outputs by name.

        A frame whose cells are lists, as rows of arrays are, stands for a dict of arrays; MLflow fails on it.
        Raises RowRefused for input that does not fit.
        """
        np, pandas = need("numpy", extra="onnx"), need("pandas", extra="mlflow")
        frame = isinstance(data, pandas.DataFrame)
        if frame and any(_lists(data[name]) for name in data.columns):
            data, frame = {name: np.asarray(data[name].tolist()) for name in data.columns}, False
        values = self._session(self._narrow(self._feeds(data, frame)))
        if not frame:
            return dict(zip(self._session.outputs, values, strict=True))
        columns = zip(self._session.outputs, values, strict=True)
        return pandas.DataFrame.from_dict({name: np.asarray(value).reshape(-1) for name, value in columns})

    def _feeds(self, data: Any, frame: bool) -> Feeds:
        names = list(self._session.inputs)
        if isinstance(data, dict):
            return dict(data)
        if frame and len(names) > 1:
            if missing := [name for name in names if name not in data.columns]:
                raise RowRefused(
                    f"the input lacks the column {', '.join(missing)}", remedy="send a column for each input"
                )
            return {name: data[name].values for name in names}
        if (frame or hasattr(data, "dtype")) and len(names) == 1:
            return {names[0]: data.values if frame else data}
        raise RowRefused(
            f"the model has the inputs {', '.join(names)}, which a {type(data).__name__} does not name",
            remedy="send the arrays by name, or a table with a column for each",
        )

    def _narrow(self, feeds: Feeds) -> Feeds:
        """The feeds with float32 instead of float64 where the model takes that, as JSON has no float32."""
        inputs = self._session.inputs
        return {
            name: value.astype("float32")
            if name in inputs and inputs[name].dtype == "float32" and value.dtype == "float64"
            else value
            for name, value in feeds.items()
        }


def _lists(column: Any) -> bool:
    return column.dtype == object and len(column) > 0 and isinstance(column.iloc[0], (list, tuple))


class OnnxEngine(PyfuncEngine):
    """The pyfunc engine around an `OnnxModel`, which several threads may call; only rows of equal shapes are merged."""

    def __init__(self, model: Any, spec: EngineSpec, bundle: Bundle) -> None:
        super().__init__(model, spec, bundle.signature, VendoredFiles({}, own=(bundle.path,)), nullcontext())

    def close(self) -> None:
        self._model = self._final = None

    def _types(self, row: Row) -> tuple[object, ...]:
        return (*super()._types(row), *map(_shape, row.values))

    def _prepare(self, item: Item) -> Work | Failed:
        """With the number of values as cost, so that long rows do not delay short ones."""
        work = super()._prepare(item)
        if isinstance(work, Failed):
            return work
        rows = item.table.rows if isinstance(item, Request) else [item.values]
        return Work(work.key, max(1, sum(_size(value) for row in rows for value in row)), work.payload)


def _shape(value: object) -> tuple[int, ...]:
    """The lengths of nested lists, by their first elements."""
    lengths = []
    while isinstance(value, (list, tuple)):
        lengths.append(len(value))
        value = value[0] if value else None
    return tuple(lengths)


def _size(value: object) -> int:
    size = 1
    for length in _shape(value):
        size *= length
    return size


class OnnxKind(EngineKind):
    """Runs models of MLflow's ONNX flavor with ONNX Runtime."""

    name = "onnx"
    runs_code = False
    requirements = ("likewise[mlflow,onnx]",)
    library = "onnxruntime"
    purpose = "run ONNX models without their author's trust"

    def takes(self, model: ModelFacts) -> bool:
        """Whether the model is of the ONNX flavor and names neither code nor libraries."""
        return declared(model.folder, model.flavors) is not None

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:  # noqa: ARG002  the same for all models
        """The engine of this name, in the model's own precision."""
        return (EngineEntry(self.name, "native"),)

    def row_wise(self, model: ModelFacts) -> bool:
        """Whether the first axis of all inputs and outputs is free; rows may still depend on each other."""
        found = declared(model.folder, model.flavors)
        try:
            return found is not None and read_onnx(found.path).free_batch_axis
        except LikewiseError:
            return False

    def open(self, bundle: Bundle, entry: EngineEntry) -> OnnxEngine:
        """Open the model, after its files have been checked again, because a manifest is only a claim.

        Raises ModelInvalid, MissingExtra, EngineUnavailable (the runtime does not support the model).
        """
        mlflow = need("mlflow.pyfunc", extra="mlflow")
        meta = need("mlflow.models", extra="mlflow").Model.load(str(bundle.model_path))
        found = declared(bundle.model_path, meta.flavors)
        if found is None:
            raise ModelInvalid(
                f"the bundle {bundle.path} names the engine {self.name}, but its model is not of the ONNX flavor",
                remedy="bundle the model again",
            )
        read_onnx(found.path)  # refuses weights outside of the model
        model = mlflow.PyFuncModel(model_meta=meta, model_impl=OnnxModel(self._session(found)))
        spec = EngineSpec(
            name=entry.name,
            precision=entry.precision,
            row_wise=bundle.manifest.row_wise,
            thread_safe=True,
            pure=False,
            budget=BUDGET,
            slots=usable_threads(),
            columns=bundle.signature.is_tensor,
        )
        return OnnxEngine(model, spec, bundle)

    def _session(self, model: Declared) -> Session:
        return open_onnxruntime(model.path, model.providers, model.options)
