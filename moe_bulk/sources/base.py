"""What every source gives: rows in batches, each with its place, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.record import Row

MAX_ROW = 1_000_000
"""Bytes of one row; a longer one is invalid, and read past without being held."""

MAX_BATCH = 500


class Source(Protocol):
    """An input of rows. It blocks, so it is read in a thread."""

    name: str
    """What `Position.source` says: the path as the user gave it, or `stdin`."""
    columns: tuple[str, ...] | None
    """The header's names, where the format has a header and it was read."""

    def batches(self) -> Iterator[list[Row]]:
        """Rows in the order of the input, at most `MAX_BATCH` a list; an empty list says that nothing came for a while.

        Raises SourceError where the input cannot be read on; all rows before that place were given.
        """

    def progress(self) -> tuple[int, int | None]:
        """Bytes read so far and in all, as stored (compressed ones count compressed)."""

    def close(self) -> None:
        """Close what was opened; a second time changes nothing."""
