"""The rows of one partition, divided among the workspaces that a column of theirs names: each at its own pace."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import anyio

from moe_bulk.errors import ConfigError, MoeBulkError, RunStopped, SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from moe_bulk.spark.merging import Delivered
    from moe_bulk.spark.rows import Fields

    Deliver = Callable[[str, AsyncGenerator[Fields]], Awaitable[Delivered]]

MOST_WORKSPACES = 50
"""Workspaces that one task sends to at a time: each has connections and a run folder of its own."""

MOST_WAITING = 10_000
"""Rows of a task that wait for their workspaces while others are read; then reading waits, too.

They may be one slow workspace's alone, so that a fast one gets its rows for as long as memory allows.
"""


class _Lane:
    """One workspace's rows, from the partition to its upload."""

    def __init__(self, name: str, room: asyncio.Semaphore) -> None:
        self.name = name
        self._room = room
        self.delivered: Delivered | None = None
        self.error: Exception | None = None
        streams: tuple[MemoryObjectSendStream[Fields], MemoryObjectReceiveStream[Fields]]
        streams = anyio.create_memory_object_stream(math.inf)
        self._into, self._out = streams

    async def put(self, row: Fields) -> None:
        """One more row; where the upload has stopped, it stays unsent like all behind it."""
        await self._room.acquire()
        try:
            self._into.send_nowait(row)
        except anyio.BrokenResourceError:
            self._room.release()
            self.error = self.error or SourceError("the upload ended before its rows did")

    def end(self) -> None:
        """There are no more."""
        self._into.close()

    def close(self) -> None:
        """Nobody reads any more, whether it had begun or not."""
        self._into.close()
        self._out.close()

    async def run(self, deliver: Deliver) -> None:
        """Deliver them; what goes wrong is this workspace's alone."""
        with self._out:
            try:
                self.delivered = await deliver(self.name, self._rows())
            except Exception as error:  # noqa: BLE001  it is raised when the others have ended
                self.error = error
            for _ in range(self._out.statistics().current_buffer_used):
                self._room.release()  # nobody takes these any more

    async def _rows(self) -> AsyncGenerator[Fields]:
        async for row in self._out:
            self._room.release()
            yield row


async def divide(rows: AsyncIterator[Fields], column: str, deliver: Deliver) -> list[Delivered]:
    """Deliver each row to the workspace that its column names, all workspaces side by side.

    Where one of them stops, the others go on to their end; then its error is raised. Where the rows cannot be read on,
    or name no workspace, all stop, to be taken up again.
    """
    lanes: dict[str, _Lane] = {}
    room = asyncio.Semaphore(MOST_WAITING)
    try:
        async with asyncio.TaskGroup() as group:
            async for row in rows:
                name = row.get(column)
                if not isinstance(name, str) or not name:
                    raise ConfigError(f"a row has no workspace in the column {column!r}: filter such rows out")
                if (lane := lanes.get(name)) is None:
                    lane = lanes[name] = _opened(name, len(lanes), column, room)
                    group.create_task(lane.run(deliver))
                await lane.put(row)
            for lane in lanes.values():
                lane.end()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        for lane in lanes.values():
            lane.close()
    if stopped := [lane for lane in lanes.values() if lane.error is not None]:
        raise _error(stopped, len(lanes))
    return [lane.delivered for lane in lanes.values() if lane.delivered is not None]


def _opened(name: str, others: int, column: str, room: asyncio.Semaphore) -> _Lane:
    if others >= MOST_WORKSPACES:
        raise ConfigError(
            f"a partition has rows for more than {MOST_WORKSPACES} workspaces: spread them over more partitions with "
            f"df.repartition(n, {column!r})"
        )
    return _Lane(name, room)


def _error(stopped: list[_Lane], lanes: int) -> Exception:
    for lane in stopped:
        if lane.error is not None and not isinstance(lane.error, MoeBulkError):
            return lane.error
    told = "; ".join(f"{lane.name}: {lane.error}" for lane in stopped)
    return RunStopped(f"{len(stopped)} of {lanes} workspaces stopped: {told}")
