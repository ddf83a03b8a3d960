"""One input, whatever it is: opened, compared with that of an earlier run, taken batch by batch."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from moe_bulk.columns import Reader
from moe_bulk.intake.files import FromFiles
from moe_bulk.intake.memory import FromMemory
from moe_bulk.intake.reading import Files, checked
from moe_bulk.intake.threads import InThreads
from moe_bulk.record import Position
from moe_bulk.sources import Query

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from moe_bulk.fingerprint import Fingerprint
    from moe_bulk.intake.reading import Batch, Reading, Rows
    from moe_bulk.settled import Settled


class Intake:
    """Reads `rows` once, as `reading` says. Open it, take its `batches`, close it, whatever came of the opening.

    With `keep_in`, a folder for what must be kept meanwhile, it can be compared with the input of an earlier run.
    """

    def __init__(self, rows: Rows, reading: Reading, keep_in: Path | None = None) -> None:
        found = checked(rows)
        self._reader = Reader(reading.columns)
        self._left = reading.limit
        self._read_out = False
        self._input: InThreads | FromMemory
        if isinstance(found, (Files, Query)):
            self._input = InThreads(FromFiles(found, self._reader, reading.format, keep_in))
        else:
            self._input = FromMemory(found, self._reader, marked=keep_in is not None)

    @property
    def labels(self) -> tuple[str, ...]:
        """What positions call the sources, in their order."""
        return self._input.labels

    @property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """By what the input can be known again."""
        return self._input.fingerprints

    @property
    def progress(self) -> tuple[int, int | None]:
        """Bytes read so far and in all, as stored; unknown for rows in memory and streams."""
        return self._input.progress

    @property
    def rows_expected(self) -> float | None:
        """How many rows there are in all, about; None where nobody can know."""
        return self._input.rows_expected

    @property
    def warnings(self) -> list[str]:
        """What people should know about the input, so far: above all, what in it is not sent."""
        return [*self._input.warnings, *self._reader.warnings()]

    @property
    def cut(self) -> bool:
        """True when the limit may have left rows unread."""
        return self._left == 0

    @property
    def ended(self) -> bool:
        """True when no more rows come: all are read, or as many as the limit allows."""
        return self._read_out or self.cut

    async def open(self) -> None:
        """Look at each file and its header, so that what is wrong with one is said before the first request."""
        await self._input.look()

    async def changed(self, recorded: Sequence[Fingerprint], settled: Settled) -> tuple[str, ...]:
        """The sources that are not those of an earlier run, which settled that much of them."""
        return await self._input.changed(recorded, settled)

    def go_on(self, settled: Settled, labels: Sequence[str], rows: int) -> None:
        """Begin where an earlier session stopped, name sources as it did, leave out the `rows` that it settled."""
        self._input.go_on(settled, labels)
        if self._left is not None:
            self._left = max(0, self._left - rows)

    async def take_digests(self, stopping: Callable[[], bool]) -> None:
        """Find out by what plain files are known again; it reads them whole, in a thread, until `stopping`."""
        await self._input.take_digests(stopping)

    async def close(self) -> None:
        """Close what was opened."""
        await self._input.close()

    async def batches(self) -> AsyncGenerator[Batch]:
        """Read it all, batch by batch; raises SourceError where it cannot be read on."""
        if self._left == 0:
            return
        async with aclosing(self._input.batches()) as found:
            async for batch in found:
                if self._left is None:
                    yield batch
                    continue
                taken = batch[: self._left]
                self._left -= sum(not isinstance(made, Position) for made in taken)
                yield taken
                if not self._left:
                    return
        self._read_out = True
