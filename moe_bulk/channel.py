"""One stream's way into the engine and out: records go in while there is room, results come out as they settle."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from moe_bulk.agenda import Entry
from moe_bulk.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.agenda import Screen, Watcher
    from moe_bulk.lanes import Lanes
    from moe_bulk.outcome import Result
    from moe_bulk.record import Record


RETRYING_ASIDE = 700
"""Rows of a stream that wait to be tried again and take none of its room, at most: with the engine's `ROOM` a thousand.

So a service that fails a share of the rows does not soon keep the others from being read.
"""


SEVERAL, ENOUGH, GATHERING_SECONDS = 2, 64, 0.01
"""Results that lie ready, at least so many but not as many, wait so long for others before they are taken.

To write many at once makes the whole of a row 5 % cheaper. A result that comes alone does not wait; after a crash up to
so many rows more are sent again.
"""


class Channel:
    """Records in, results out.

    At most `room` may be unsettled or unread, not counting those that are parked behind others, nor up to
    `RETRYING_ASIDE` that wait to be tried again.

    That bound makes the whole pipeline as slow as the reader of its results. `admit` hands an entry to the engine,
    whose `lanes` say when it takes no more. Where there is a screen, as many again may have passed it: else the few
    that have to be sent would fill the room, and the many that need not be would be looked at one by one.
    """

    def __init__(
        self,
        admit: Callable[..., None],
        lanes: Lanes[Entry],
        room: int,
        watcher: Watcher | None,
        screen: Screen | None = None,
    ) -> None:
        self.watcher = watcher
        self.screen = screen
        self.cleared = 0
        self.halted = False
        self.ready: deque[Entry] = deque()
        self.parked = 0
        self.retrying = 0
        self.on_their_way = 0
        self._admit = admit
        self._lanes = lanes
        self._room = room
        self._held = 0
        self._unsettled = 0
        self._results: deque[Result] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._changed = Bell()

    @property
    def room(self) -> int:
        """How many more rows may go in right now; those that have to wait behind others leave it as it was."""
        if self.halted or self.cleared >= self._room:
            return 0
        held = self._held - self.parked - self.cleared - min(self.retrying, RETRYING_ASIDE)
        return max(0, min(self._room - held, self._lanes.room))

    async def wait_for_room(self) -> bool:
        """Wait until there is room; False when nothing is taken in any more."""
        while not self.room and not self.halted:
            await self._changed.wait()
        return not self.halted

    def put(self, *records: Record) -> None:
        """Send records, not more of them than there is `room` for; their results will come."""
        self._held += len(records)
        self._unsettled += len(records)
        self._admit(*[Entry(record, self) for record in records])

    def pass_on(self, *results: Result) -> None:
        """Hand on the results of rows that are not sent at all."""
        self._held += len(results)
        self._results.extend(results)
        self.wake()

    def settled(self, *results: Result) -> None:
        """The last words on some of the records that went in."""
        self._unsettled -= len(results)
        self._results.extend(results)
        self.wake()

    def end(self, error: Exception | None = None) -> None:
        """Say that no more rows come; after the last result, `error` is raised where there is one."""
        self._ended = True
        self._error = self._error or error
        self.wake()

    def halt(self, error: Exception) -> None:
        """Send no more: what is on its way may still settle, then `error` is raised in place of further results."""
        self.halted = True
        self._error = self._error or error
        self.wake()

    async def receive(self) -> list[Result]:
        """Wait for results and take all that have settled; an empty list is the end.

        Where `SEVERAL` come at once, more may be about to come: these are waited for.
        Raises, after the last result, the error that ended the channel.
        """
        while not self._results:
            if self._over:
                if self._error is not None:
                    raise self._error
                return []
            await self._changed.wait()
        if SEVERAL <= len(self._results) < ENOUGH and not self._over:
            await asyncio.sleep(GATHERING_SECONDS)
        taken = list(self._results)
        self._results.clear()
        self._held -= len(taken)
        self.wake()
        return taken

    @property
    def _over(self) -> bool:
        return not self.on_their_way if self.halted else self._ended and not self._unsettled

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._changed.ring()

    def __repr__(self) -> str:
        return (
            f"<Channel: {self._held} held, {len(self.ready)} ready, {self.parked} parked, "
            f"{self.on_their_way} on their way, {len(self._results)} unread>"
        )
