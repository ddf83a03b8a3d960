"""What every source gives: rows in batches, each with its place, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.record import Row

MAX_ROW = 1_000_000
"""Bytes that one row may have, without its line feed; a longer one is invalid, and read past without being held."""

MAX_BATCH = 200
"""Rows that are handed on at a time, at most: about as many as a processor's own cache holds.

With a hundred, reading takes a tenth longer, for each list goes from one thread to another.
"""


class Source(Protocol):
    """An input of rows, read once from its beginning to its end. It blocks, so it is read in a thread."""

    name: str
    """What `Position.source` says: the path as the user gave it, or `stdin`."""
    columns: tuple[str, ...] | None
    """The names in a CSV's header; None for an empty file, and where each row brings its own."""
    rows: int | None
    """How many there are in all, where the input tells before they are read."""

    def batches(self) -> Iterator[list[Row]]:
        """Rows in the order of the input, at most `MAX_BATCH` a list; an empty list says that nothing came for a while.

        Raises SourceError where the input cannot be read on; all rows before that place were given.
        """

    def progress(self) -> tuple[int, int | None]:
        """Bytes read so far, and in all if that is known; both as stored (compressed ones count compressed)."""

    def close(self) -> None:
        """Close what was opened, from any thread; a second time changes nothing."""
