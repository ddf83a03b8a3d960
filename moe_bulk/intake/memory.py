"""Rows in memory: taken where the caller lives, and compared with those of an earlier run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from moe_bulk.deadletter import as_json
from moe_bulk.errors import RunRefused
from moe_bulk.fingerprint import Comparison, Fingerprint, Marks
from moe_bulk.record import Position
from moe_bulk.sources import row_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from moe_bulk.columns import Reader
    from moe_bulk.intake.reading import Batch
    from moe_bulk.record import Row
    from moe_bulk.settled import Settled

InMemory: TypeAlias = "Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]"

LABEL = "rows"
"""What positions call them."""

LONGEST_TURN = 0.005
"""Seconds that an iterable's rows are taken before other tasks get their turn."""

HELD = 100_000
"""Rows that are kept while they are compared with an earlier run's, so that they need not be asked for again."""


class _Holding(IntEnum):
    """Which of the rows that were compared are kept."""

    ALL = 0
    UNSETTLED = 1
    TOO_FEW = 2


class FromMemory:
    """Reads an iterable or async iterable of mappings once; with `marked`, so that it can be known again."""

    def __init__(self, rows: InMemory, reader: Reader, *, marked: bool) -> None:
        self._rows = rows
        self._reader = reader
        self._marks = Marks() if marked else None
        self._taking: AsyncGenerator[Row] | None = None
        self._held: list[Row | Position] = []
        """What was taken to be compared; a position stands for all rows up to it that an earlier session settled."""
        self._settled: Settled | None = None
        self.labels = (LABEL,)
        self.progress = (0, None)
        self.warnings: list[str] = []
        self.rows_expected: float | None = None

    @property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """What the rows were, as far as they were read."""
        marks, ended = self._marks.state() if self._marks is not None else ((), False)
        return (Fingerprint(LABEL, "rows", marks=marks, ended=ended),)

    async def look(self) -> None:
        """There is nothing to look at before it is taken."""

    async def take_digests(self, _stopping: Callable[[], bool]) -> None:
        """There are none to take: rows are marked as they come."""

    async def changed(self, recorded: Sequence[Fingerprint], settled: Settled) -> tuple[str, ...]:
        """Nothing where these are the rows of an earlier run, as far as those were read; `settled` is what it settled.

        Raises RunRefused where they are not, and cannot be had again from the beginning.
        """
        same = len(recorded) == 1 and recorded[0].kind == "rows" and await self._is_same(recorded[0], settled)
        return () if same else (LABEL,)

    async def _is_same(self, recorded: Fingerprint, settled: Settled) -> bool:
        comparison, held = Comparison(recorded.marks, ended=recorded.ended), _Holding.ALL
        self._taking = self._taken()
        async for row in self._taking:
            comparison.row(_looks(row))
            held = max(held, self._hold(row, settled))
            if comparison.differs or comparison.settled:
                break
        else:
            comparison.end()
        same = not comparison.differs and comparison.settled
        if held is _Holding.TOO_FEW or (held is _Holding.UNSETTLED and not same):
            await self._start_over(same=same)
        return same

    def _hold(self, row: Row, settled: Settled) -> _Holding:
        """Keep a row that was compared, if it is of use and there is room for it; tell which ones are kept now."""
        if len(self._held) < HELD:
            self._held.append(row)
            return _Holding.ALL
        devices = self._devices(row)
        if all(each.position in settled for each in devices):
            if isinstance(self._held[-1], Position):
                del self._held[-1]
            self._held.append(devices[-1].position)
            return _Holding.UNSETTLED
        if len(self._held) < 2 * HELD:
            self._held.append(row)
            return _Holding.ALL
        return _Holding.TOO_FEW

    def go_on(self, settled: Settled, _labels: Sequence[str]) -> None:
        """Leave out what an earlier session settled."""
        self._settled = settled

    async def batches(self) -> AsyncGenerator[Batch]:
        """All rows that are not settled, one by one."""
        held, self._held = self._held, []
        async with aclosing(self._taking or self._taken()) as rows:
            for row in held:
                yield [row] if isinstance(row, Position) else self._made(row)
            async for row in rows:
                yield self._made(row)

    def _made(self, row: Row) -> Batch:
        settled, read = self._settled, self._reader.read
        if settled is None:
            return list(map(read, self._devices(row)))
        return [each.position if each.position in settled else read(each) for each in self._devices(row)]

    def _devices(self, row: Row) -> list[Row]:
        return self._reader.spread([row]) if self._reader.spreads else [row]

    async def close(self) -> None:
        """Let go of the caller's generator, where nobody else did."""
        if self._taking is not None:
            await self._taking.aclose()

    async def _start_over(self, *, same: bool) -> None:
        if isinstance(self._rows, (Iterator, AsyncIterator)):
            why = "are more than can be kept" if same else f"differ from them, but only after more than {HELD:,}"
            raise RunRefused(
                f"of the rows that were compared with the earlier run's, those that are to be sent {why}; and an "
                "iterator cannot be asked for them again: pass what can be read twice, or fresh=True"
            )
        await self.close()
        self._taking, self._held = None, []
        self._marks = Marks()

    async def _taken(self) -> AsyncGenerator[Row]:
        marks, rows = self._marks, self._rows
        taken = _from_async(rows) if isinstance(rows, AsyncIterable) else _from_iterable(rows)
        async with aclosing(taken):
            async for row in taken:
                if marks is not None:
                    marks.row(_looks(row))
                yield row
        if marks is not None:
            marks.end()


def _looks(row: Row) -> bytes:
    """What two rows have in common that are the same."""
    return row.raw if row.fields is None else as_json(row.fields)


async def _from_async(rows: AsyncIterable[Mapping[str, object]]) -> AsyncGenerator[Row]:
    async with AsyncExitStack() as stack:
        if isinstance(rows, AsyncGenerator):
            stack.push_async_callback(rows.aclose)  # what it holds open is let go when the stream is left
        index = 0
        async for row in rows:
            yield row_in_memory(row, index)
            index += 1


async def _from_iterable(rows: Iterable[Mapping[str, object]]) -> AsyncGenerator[Row]:
    # Not in a thread: cursors and sessions belong to the thread that made them.
    with ExitStack() as stack:
        if isinstance(rows, Generator):
            stack.callback(rows.close)
        since = anyio.current_time()
        for index, row in enumerate(rows):
            yield row_in_memory(row, index)
            if anyio.current_time() - since > LONGEST_TURN:
                await checkpoint()
                since = anyio.current_time()
