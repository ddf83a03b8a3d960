"""A partition's rows, from Spark's blocking iterator to what an upload reads: in a thread, many at a time."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import anyio

from moe_bulk.errors import SourceError
from moe_bulk.sources.values import plain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping

    Fields = dict[str, object]

AT_ONCE = 100
"""Rows that are taken at a time."""


def plain_row(row: Mapping[str, object]) -> Fields:
    """The row as one of Parquet would be: whole numbers and text stay, decimals, dates and the like become text."""
    return {name: plain(value) for name, value in row.items()}


async def batches(
    rows: Iterator[Mapping[str, object]], see: Callable[[Mapping[str, object]], None]
) -> AsyncGenerator[list[Fields]]:
    """All rows in their order; `see` is shown each as it was, in the thread.

    Spark makes the rows while it is asked for them: meanwhile answers must be read.
    """

    def take() -> list[Fields]:
        taken = []
        for row in islice(rows, AT_ONCE):
            see(row)
            taken.append(plain_row(row))
        return taken

    while batch := await anyio.to_thread.run_sync(take, abandon_on_cancel=True):
        yield batch


class Once:
    """Rows that can be asked for one time only; an upload that wants to compare them a second time is told so."""

    def __init__(self, rows: AsyncGenerator[Fields]) -> None:
        self._rows = rows
        self._taken = False

    def __aiter__(self) -> AsyncIterator[Fields]:
        if self._taken:
            raise SourceError(
                "the partition's rows are not those of the attempt before it, or not in their order, and that shows "
                "only after more than can be kept. Spark's next attempt sends all of them again. To go on where an "
                "attempt stopped, sort within partitions by columns that tell all rows apart"
            )
        self._taken = True
        return self._rows
