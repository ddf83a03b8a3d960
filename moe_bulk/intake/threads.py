"""Files in a thread of their own: what blocks does so beside the event loop, one call at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from moe_bulk.intake.own_thread import OwnThread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from moe_bulk.fingerprint import Fingerprint
    from moe_bulk.intake.files import FromFiles
    from moe_bulk.intake.reading import Batch
    from moe_bulk.settled import Settled


class InThreads:
    """`files`, to be awaited. The thread goes on when the task that waits for it is cancelled: closing waits for it."""

    def __init__(self, files: FromFiles) -> None:
        self._files = files
        self._thread = OwnThread("moe_bulk rows")
        self._closed = False

    @property
    def labels(self) -> tuple[str, ...]:
        """What positions call the sources."""
        return self._files.labels

    @property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """By what they are known again."""
        return self._files.fingerprints

    @property
    def progress(self) -> tuple[int, int | None]:
        """Bytes read so far and in all, as stored."""
        return self._files.bytes_read, self._files.bytes_in_all

    @property
    def rows_expected(self) -> float | None:
        """How many rows there are in all, about."""
        return self._files.rows_expected

    @property
    def warnings(self) -> list[str]:
        """What the headers hold that is not sent."""
        return self._files.warnings

    async def look(self) -> None:
        """Open each and check its header."""
        if not self._thread.ended:
            await self._thread.call(self._files.look)

    async def changed(self, recorded: Sequence[Fingerprint], _settled: Settled) -> tuple[str, ...]:
        """Those whose bytes are not those of an earlier run."""
        return await self._thread.call(lambda: self._files.changed(recorded))

    def go_on(self, settled: Settled, labels: Sequence[str]) -> None:
        """Begin where an earlier session stopped, and call them as it did."""
        self._files.go_on(settled, labels)

    async def take_digests(self, stopping: Callable[[], bool]) -> None:
        """Read the plain files whole, beside the other work, to know them again; in vain where it is stopped."""
        await anyio.to_thread.run_sync(self._files.take_digests, stopping, abandon_on_cancel=True)

    async def batches(self) -> AsyncGenerator[Batch]:
        """All rows that are not settled, in batches."""
        read = partial(self._next, self._files.batches())
        while not self._thread.ended and (batch := await self._thread.call(read)) is not None:
            yield batch

    async def close(self) -> None:
        """Close what was opened, when the thread that reads it has stopped."""
        self._files.stop()
        if self._thread.ended:
            return
        with anyio.CancelScope(shield=True):
            try:
                await self._thread.call(self._close)
            finally:
                self._thread.end()

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        return None if self._closed else next(batches, None)

    def _close(self) -> None:
        self._closed = True
        self._files.close()
