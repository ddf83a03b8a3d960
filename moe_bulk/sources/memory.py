"""Rows that are in memory already: any mapping, at its place in the order in which it came."""

from __future__ import annotations

from collections.abc import Mapping

from moe_bulk.record import RAW_KEPT, Position, Row

SOURCE = "rows"


def row_in_memory(item: object, index: int) -> Row:
    """The row of the item that came as number `index`, counted from 0; what is no mapping is a row with a problem."""
    position = Position(SOURCE, index + 1, index)
    if isinstance(item, Mapping):
        return Row(position, dict(item))
    raw = repr(item).encode("utf-8", "backslashreplace")
    problem = f"a row is a mapping of fields; this one is a {type(item).__name__}"
    return Row(position, None, problem, raw[:RAW_KEPT], len(raw))
