"""The Arrow types that a model's signature declares; the functions take the module pyarrow as `pa`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from likewise.core.signature import Field

# MLflow's names of types: Arrow's names
SCALARS = {
    "string": "string",
    "long": "int64",
    "integer": "int32",
    "double": "float64",
    "float": "float32",
    "boolean": "bool",
    "binary": "binary",
    "datetime": "timestamp[us]",
}
# NumPy's names of types that Arrow has other names for
DTYPES = {"str": "string", "float64": "float64", "float32": "float32", "float16": "float32", "bool": "bool"}


def declared_type(pa: Any, outputs: Sequence[Field] | None) -> Any:
    """The Arrow type that the signature's outputs declare: one output's type, or a struct of several; None if open."""
    fields = outputs or ()
    types = [type_of_spec(pa, field.raw) for field in fields]
    if not types or None in types:
        return None
    if len(types) == 1:
        return types[0]
    names = [field.name for field in fields]
    return None if None in names else pa.struct(list(zip(names, types, strict=True)))


def type_of_spec(pa: Any, spec: Mapping[str, Any]) -> Any:
    """The Arrow type of an entry of a signature; None if it leaves the type open."""
    kind = str(spec.get("type"))
    if kind == "array":
        inner = type_of_spec(pa, spec.get("items") or {})
        return None if inner is None else list_of(pa, inner)
    if kind == "map":
        inner = type_of_spec(pa, spec.get("values") or {})
        return None if inner is None else pa.map_(pa.string(), inner)
    if kind == "object":
        members = {str(name): type_of_spec(pa, member) for name, member in (spec.get("properties") or {}).items()}
        return None if not members or None in members.values() else pa.struct(list(members.items()))
    if kind == "tensor":
        return _of_tensor(pa, spec.get("tensor-spec") or {})
    return pa.type_for_alias(SCALARS[kind]) if kind in SCALARS else None


def list_of(pa: Any, inner: Any) -> Any:
    """The type of lists of `inner`."""
    return pa.list_(pa.field("element", inner))  # the name in Parquet files; Arrow's own is `item`


def _of_tensor(pa: Any, spec: Mapping[str, Any]) -> Any:
    dtype = str(spec.get("dtype"))
    name = "string" if dtype.startswith("<U") else DTYPES.get(dtype, dtype if dtype.lstrip("u") in _INTEGERS else None)
    if name is None:
        return None
    row = pa.type_for_alias(name)
    for _ in (spec.get("shape") or [-1])[1:]:
        row = list_of(pa, row)
    return row


_INTEGERS = {f"int{bits}" for bits in (8, 16, 32, 64)}
