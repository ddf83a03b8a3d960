"""Requests on their way: each can be told to end, and a stop can wait for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from moe_bulk.outcome import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from moe_bulk.agenda import Entry
    from moe_bulk.channel import Channel

ABORTED = Outcome(Verdict.TROUBLE, error="aborted", reason="the request was aborted before its answer came")


class Flights:
    """The attempts that are being made, each by the task that waits for its answer."""

    def __init__(self) -> None:
        self._tasks: dict[Entry, asyncio.Task[object] | None] = {}
        self._aborted: set[Entry] = set()
        """Those whose task was told to end."""

    def __len__(self) -> int:
        return len(self._tasks)

    def abort(self, only: Channel | None = None) -> None:
        """Tell them to end, or those of one channel; they are gone when their tasks have had a turn."""
        for entry, task in self._tasks.items():
            if (only is None or entry.sender is only) and task is not None and entry not in self._aborted:
                self._aborted.add(entry)
                task.cancel()

    async def carry(self, entry: Entry, attempt: Awaitable[Outcome], task: asyncio.Task[object] | None) -> Outcome:
        """Await the attempt's outcome, `ABORTED` where it was told to end; no await stands before its first step.

        It counts at its sender meanwhile, so that a stop waits for it. `task` is the current one: asking asyncio for it
        each time would cost more than all of this.
        """
        # The task itself and no cancel scope: that would cost as much as all else that the engine does for a record.
        self._tasks[entry] = task
        sender = entry.sender
        sender.on_their_way += 1
        try:
            return await attempt
        except asyncio.CancelledError:
            if entry not in self._aborted or (task is not None and task.cancelling() > 1):
                raise  # somebody else means the task as a whole
            return ABORTED
        finally:
            if entry in self._aborted:
                self._aborted.remove(entry)
                if task is not None:
                    task.uncancel()
            del self._tasks[entry]
            sender.on_their_way -= 1
            if sender.halted:
                sender.wake()
