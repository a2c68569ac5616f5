"""Validation of a request's `params` against the signature, with defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping

from likewise.core.casts import INTEGERS, Cast, Mismatch, Source, cast_for
from likewise.core.errors import BadRequest, WrongUsage
from likewise.core.items import NO_PARAMS, Params
from likewise.core.option_fields import nearest
from likewise.core.signature import Field, Signature
from likewise.wire.jsontext import shown

_ACCEPTS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "double": (float, int),
    "float": (float, int),
    "long": (int,),
    "integer": (int,),
}


class ParamsFitter:
    """Casts a request's `params` to the signature's types.  Thread-safe."""

    def __init__(self, signature: Signature) -> None:
        self._fields = {str(field.name): field for field in signature.params or ()}

    def __contains__(self, name: object) -> bool:
        """Whether the model takes a param of this name."""
        return name in self._fields

    def __call__(self, value: object) -> Params:
        """The params that the model takes, with defaults filled in; unknown params are ignored, as in MLflow.

        If the model declares none, they are empty, or None if the request has none: MLflow distinguishes these.
        Raises BadRequest, which names the param.  Source: mlflow/models/utils.py, `_enforce_params_schema`.
        """
        if not self._fields:
            return NO_PARAMS if value is None else {}
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise BadRequest(f"params: expected an object, got {shown(value)}", remedy='send "params": {"name": value}')
        return {name: _fit(field, value) for name, field in self._fields.items()}

    def strictly(self, given: Mapping[str, object]) -> Params:
        """The params for a caller who can correct them: raises WrongUsage for unknown names too, and for values."""
        for name in given:
            if name not in self:
                known = f"the model's params: {', '.join(self._fields)}" if self._fields else "the model declares none"
                raise WrongUsage(f"the model has no param {name!r}", remedy=f"{nearest(name, self._fields)}{known}")
        try:
            return self(dict(given))
        except BadRequest as error:
            raise WrongUsage(error.cause, remedy=error.remedy) from error

    def unknown(self, value: object) -> tuple[str, ...]:
        """The names in a request's params that the model does not take."""
        return tuple(str(name) for name in value if name not in self) if isinstance(value, dict) else ()


def _fit(field: Field, sent: dict[str, object]) -> object:
    if field.name not in sent:
        return field.raw.get("default")
    value = sent[field.name]
    try:
        if not field.raw.get("shape"):
            return _one(field, value)
        if not isinstance(value, list):
            raise Mismatch(f"a list of {field.kind}")
        return [_one(field, element) for element in value]
    except Mismatch as error:
        raise BadRequest(
            f"params.{field.name}: expected {error}, got {shown(value)}", remedy="correct the param, or leave it out"
        ) from error


def _one(field: Field, value: object) -> object:
    """Cast one value; stricter than for columns: strings do not become numbers, nor booleans integers."""
    accepted = _ACCEPTS.get(field.kind)
    if value is not None and accepted is not None and type(value) not in accepted:
        raise Mismatch(f"a value of type {field.kind}")
    spec = {**field.raw, "type": "double"} if field.kind == "float" else field.raw  # MLflow does not round params
    cast: Cast = cast_for(spec, nullable=field.kind not in INTEGERS or value is None, source=Source.ARRAYS)
    return cast(value)
