"""Rows that need not be sent settle before they wait for the pace; asked about in portions, in a thread."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from moe_bulk.bell import Bell
from moe_bulk.errors import JournalError
from moe_bulk.known import MARK_SECONDS, ChangedOnly, Known, Mark, Settled
from moe_bulk.outcome import ATTEMPTS_KEPT, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from moe_bulk.agenda import Entry
    from moe_bulk.clock import Clock
    from moe_bulk.config import Credentials
    from moe_bulk.engine import Engine

PORTION = 1000
"""Entries that are asked about together."""

NOTE_SECONDS = 0.1
"""How soon what was accepted is noted when nothing is asked meanwhile; what a killed run did not note is sent again."""


class Screen:
    """Between the lanes and the pace of one channel: what is known lets an entry settle, or clears it for sending.

    The entries that it is asked about are first in their lanes, so that none of them shares a key with another one; and
    what settled before an entry was asked about is noted before the entry is looked at.
    """

    def __init__(self, engine: Engine, known: Known, clock: Clock) -> None:
        self._engine = engine
        self._known = known
        self._clock = clock
        self._asked: deque[Entry] = deque()
        self._settled: list[Settled] = []
        self._marks: dict[Entry, Mark] = {}
        self._bell = Bell()

    # -- what the engine says --------------------------------------------------------------------------------------

    def ask(self, entry: Entry) -> None:
        """Look at an entry soon."""
        self._asked.append(entry)
        self._bell.ring()

    def withdraw(self) -> list[Entry]:
        """Give back those that nothing was said of."""
        gone = list(self._asked)
        self._asked.clear()
        return gone

    def is_stale(self, entry: Entry) -> bool:
        """True where others no longer respect that it is about to be sent, or may not in a moment."""
        return self._clock.epoch() - self._marks[entry].at > MARK_SECONDS

    def settled(self, entry: Entry, status: Status) -> None:
        """Have it noted; a request without a final answer may still be applied later."""
        answers = [attempt.http_status or 0 for attempt in entry.attempts]
        sure = entry.tries <= ATTEMPTS_KEPT and all(200 <= answer < 500 for answer in answers)
        self._settled.append(Settled(self._marks.pop(entry), status is Status.ACCEPTED, sure))

    # -- its work ----------------------------------------------------------------------------------------------------

    async def work(self, halt: Callable[[JournalError], None]) -> None:
        """Look at what comes until cancelled; `halt` is told what goes wrong, and ends the run."""
        try:
            while True:
                if self._asked or self._settled:
                    await self._look()
                if not self._asked:
                    await self._bell.wait(NOTE_SECONDS if self._settled else None)
        except JournalError as error:
            halt(error)

    async def _look(self) -> None:
        portion = [self._asked.popleft() for _ in range(min(PORTION, len(self._asked)))]
        try:
            marks = await anyio.to_thread.run_sync(self._ask_in_thread, portion, self._taken())
        except BaseException:
            self._asked.extendleft(reversed(portion))  # whoever withdraws them finds them there
            raise
        for entry, mark in zip(portion, marks, strict=True):
            if entry.sender.halted:
                self._engine.give_back(entry)
            elif mark is None:
                self._marks.pop(entry, None)  # of an entry that was asked about again
                self._engine.unchanged(entry)
            else:
                self._marks[entry] = mark
                self._engine.clear(entry)

    def _taken(self) -> list[Settled]:
        settled, self._settled = self._settled, []
        return settled

    def _ask_in_thread(self, portion: Sequence[Entry], settled: list[Settled]) -> list[Mark | None]:
        if settled:
            self._known.note(settled, self._clock.epoch())
        return self._known.decide([entry.record.device for entry in portion], self._clock.epoch()) if portion else []

    def close(self) -> None:
        """Note what settled last, and close the file. What is heard of later stays forgotten."""
        try:
            with suppress(JournalError):  # to know less is always right
                if self._settled:
                    self._known.note(self._taken(), self._clock.epoch())
        finally:
            self._known.close()


@asynccontextmanager
async def screening(
    engine: Engine, changed_only: ChangedOnly, credentials: Credentials, clock: Clock
) -> AsyncIterator[Screen]:
    """A screen with the file that belongs to this destination and workspace."""
    whose = (credentials.host, credentials.workspace_id)
    path = changed_only.path(*whose)
    known = await anyio.to_thread.run_sync(Known, path, whose, changed_only.resend_after, clock.epoch())
    screen = Screen(engine, known, clock)
    try:
        yield screen
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(screen.close)
