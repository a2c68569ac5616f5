"""Arrow types that not all of Arrow's functions support."""

from __future__ import annotations

from typing import Any

from likewise.core.extras import need


def without_views(schema: Any) -> Any:
    """The `pyarrow.Schema` with `string` and `binary` instead of `string_view` and `binary_view`, also in nested types.

    Arrow can neither take rows from views nor write all of them to Parquet; `cast` converts them without loss.
    """
    pa = need("pyarrow", extra="batch")
    return pa.schema([field.with_type(_plain(pa, field.type)) for field in schema], metadata=schema.metadata)


def _plain(pa: Any, kind: Any) -> Any:
    types = pa.types
    if kind in (pa.string_view(), pa.binary_view()):
        return pa.string() if kind == pa.string_view() else pa.binary()
    if types.is_struct(kind):
        return pa.struct([field.with_type(_plain(pa, field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain(pa, kind.key_type), _plain(pa, kind.item_type), kind.keys_sorted)
    for is_list, list_of in (
        (types.is_list, pa.list_),
        (types.is_large_list, pa.large_list),
        (types.is_list_view, pa.list_view),
        (types.is_large_list_view, pa.large_list_view),
        (types.is_fixed_size_list, lambda field: pa.list_(field, kind.list_size)),
    ):
        if is_list(kind):
            return list_of(kind.value_field.with_type(_plain(pa, kind.value_type)))
    return kind
