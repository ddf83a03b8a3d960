"""Where a row came from, and what it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from moe_bulk.device import Device

NOTE = "_moe_bulk"
"""The one field that a dead letter adds to its row."""

RAW_KEPT = 64 * 1024
"""Bytes of an unreadable row that are kept for its dead letter."""


class Number(float):
    """A JSON number that Python would write otherwise: it keeps its `spelling`, such as `1.10` or `-0`.

    Integers of more than 64 bits are among them, because readers of JSON round them.
    """

    __slots__ = ("spelling",)
    spelling: str

    def __new__(cls, spelling: str) -> Self:
        """Take the number as JSON spells it."""
        self = super().__new__(cls, spelling)
        self.spelling = spelling
        return self

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]  # float's own copies would lose the spelling
        """What a copy is made of."""
        return (self.spelling,)

    def __repr__(self) -> str:
        """The spelling: how messages show it, too."""
        return self.spelling

    __str__ = __repr__


class Position(NamedTuple):
    """Where a row stands; (source, offset, item) is its identity.

    `line` is 1-based: the line on which the row begins (a CSV header is line 1). `offset` counts bytes of the
    decompressed source up to the row's first byte (for rows in memory: rows). `item` is 0 unless one row holds
    several devices.
    """

    source: str
    line: int
    offset: int
    item: int = 0

    def __str__(self) -> str:
        """`devices.csv, line 7`: how messages name a place."""
        return f"{self.source}, line {self.line}"


new_tuple = tuple.__new__
"""Makes a named tuple of all its fields, in half the time that calling it takes; nothing sees to their number."""


@dataclass(slots=True)
class Row:
    """One row as it was read: its own columns and values, or why there are none.

    Exactly one of `fields` and `problem` is set. `raw` holds the first `RAW_KEPT` bytes of an unreadable row and
    `raw_bytes` how many it had. `note` is what an earlier run noted about the row, where that is a dead letter.
    """

    position: Position
    fields: dict[str, object] | None
    problem: str | None = None
    raw: bytes = b""
    raw_bytes: int = 0
    note: dict[str, object] | None = None


@dataclass(slots=True)
class Record:
    """A row that became a valid device: ready to be delivered.

    `mapping` is what turned the row's columns into fields, where anything but the field names did; a dead letter
    carries it along, so that re-sending reads the row in the same way.
    """

    row: Row
    device: Device
    mapping: dict[str, object] | None = None

    @property
    def position(self) -> Position:
        """Where the row stands."""
        return self.row.position
