"""Requests on their way: each can be told to end, and a stop can wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_bulk.outcome import Outcome, Verdict

if TYPE_CHECKING:
    import asyncio

    from moe_bulk.agenda import Entry
    from moe_bulk.channel import Channel

ABORTED = Outcome(Verdict.TROUBLE, error="aborted", reason="the request was aborted before its answer came")


class Flights:
    """The attempts that are being made, each by the task that waits for its answer."""

    def __init__(self) -> None:
        self._tasks: dict[Entry, asyncio.Task[object]] = {}
        self._aborted: set[Entry] = set()
        """Those whose task was told to end."""

    def __len__(self) -> int:
        return len(self._tasks)

    def abort(self, only: Channel | None = None) -> None:
        """Tell them to end, or those of one channel; they are gone when their tasks have had a turn."""
        for entry, task in self._tasks.items():
            if (only is None or entry.sender is only) and entry not in self._aborted:
                self._aborted.add(entry)
                task.cancel()

    def begin(self, entry: Entry, task: asyncio.Task[object]) -> None:
        """Count an attempt as on its way, here and at its sender, until its `end`: a stop waits for it.

        `task` is the current one, which makes the attempt: to ask asyncio for it each time would cost more than all of
        this, and so would a coroutine around the attempt, or a cancel scope.
        """
        self._tasks[entry] = task
        entry.sender.on_their_way += 1

    def was_told_to_end(self, entry: Entry) -> bool:
        """True where a cancellation that it meets is our `abort` alone; else somebody means its task as a whole."""
        return entry in self._aborted and self._tasks[entry].cancelling() <= 1

    def end(self, entry: Entry) -> None:
        """The attempt is over, one way or the other."""
        task = self._tasks.pop(entry)
        if entry in self._aborted:
            self._aborted.remove(entry)
            task.uncancel()
        sender = entry.sender
        sender.on_their_way -= 1
        if sender.halted:
            sender.wake()
