"""Rows that are in memory already: mappings of field names to values."""

from __future__ import annotations

from collections.abc import Mapping

from moe_bulk.record import RAW_KEPT, Position, Row
from moe_bulk.sources.values import without_missing


def row_in_memory(item: object, index: int) -> Row:
    """The row at `index` (from 0) of an iterable, as line `index + 1` of the source `rows`.

    The mapping is copied, so that it may be used again; NaN, NaT and NA in it are null. What is no mapping is a bad
    row, never a crash.
    """
    place = Position("rows", index + 1, index)
    try:
        if isinstance(item, Mapping):
            return Row(place, without_missing(dict(item)))
        problem = f"a row is a mapping of field names to values, not {type(item).__name__}"
        raw = repr(item).encode(errors="backslashreplace")
    except Exception as error:  # noqa: BLE001  somebody else's class may raise anything
        return Row(place, None, f"the row cannot be read: {type(error).__name__}")
    return Row(place, None, problem, raw[:RAW_KEPT], len(raw))
