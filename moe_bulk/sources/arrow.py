"""Arrow's columns → rows of plain values: what a Parquet file holds, and many a table in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_bulk.sources.values import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa


def rows_of(batch: pa.RecordBatch) -> list[dict[str, object]]:
    """The rows of a batch, their values as `values.plain` has them; nested columns become nested values."""
    names = batch.schema.names
    if not names:
        return [{} for _ in range(batch.num_rows)]
    cells = zip(*map(_values, batch.columns), strict=True)
    return [dict(zip(names, row)) for row in cells]  # noqa: B905  as many, and 10 % faster


def _values(column: Any) -> list[object]:
    import pyarrow as pa  # noqa: PLC0415  40 ms, for those who have it

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    # Python knows no nanoseconds: where they matter, pyarrow would ask for pandas.
    if (shown := _retyped(kind, lambda inner: pa.string() if pa.types.is_temporal(inner) else inner)) != kind:
        column = column.cast(shown)
    try:
        values: list[object] = column.to_pylist(maps_as_pydicts="lossy")
    except UnicodeDecodeError:
        as_bytes = _retyped(column.type, lambda inner: pa.binary() if _is_text(inner) else inner)
        return [plain(value) for value in column.cast(as_bytes).to_pylist(maps_as_pydicts="lossy")]
    return values if _is_exact(kind) else [plain(value) for value in values]


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds  # noqa: PLC0415  as above

    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _is_exact(kind: pa.DataType) -> bool:
    """Whether a value of this type is in Python what a row has."""
    import pyarrow.types as kinds  # noqa: PLC0415  as above

    return _is_text(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)


def _retyped(kind: Any, change: Callable[[Any], Any]) -> Any:
    """The type with all simple ones in it changed."""
    import pyarrow as pa  # noqa: PLC0415  as above

    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_retyped(field.type, change)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_retyped(kind.key_type, change), _retyped(kind.item_type, change))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_retyped(kind.value_type, change), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_retyped(kind.value_type, change))
    if pa.types.is_list(kind):
        return pa.list_(_retyped(kind.value_type, change))
    return change(kind)
