"""May this request be sent at this moment? What the even pace, the pauses, an outage and the window say together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_bulk.bell import Bell

if TYPE_CHECKING:
    from moe_bulk.agenda import Entry
    from moe_bulk.clock import Clock
    from moe_bulk.pacing import Pace, Slot
    from moe_bulk.retry import Outage

STOOD_STILL_SECONDS = 5.0
"""A loop that sleeps this much longer than it meant to has stood still: stopped, suspended or blocked."""


class Permission:
    """For one request at a time, of whoever stands at the gate: first `spend` or `token`, then `slot` or `wait`."""

    def __init__(self, pace: Pace, outage: Outage, clock: Clock) -> None:
        self._pace = pace
        self._outage = outage
        self._clock = clock
        self.over = Bell()
        """To be rung when a request is over or a channel halted: whoever waits for a slot looks again."""
        self.waits_for = ""
        """What is waited for at this moment: the `pace`, a `slot`, or nothing."""
        self.spend = pace.spend

    async def token(self, now: float) -> float:
        """Wait until the even pace allows one more; the time when it does."""
        self.waits_for = "pace"
        await self._pace.token(now)
        self.waits_for = ""
        return self._clock.now()

    def slot(self, entry: Entry, now: float) -> Slot | None:
        """The slot of a request whose attempt begins this very moment, where it may be sent."""
        if entry.sender.halted or (self._outage.declared_at is not None and self._outage.holds_back(now)):
            return None
        if (slot := self._pace.take(now)) is None:
            return None
        if self._clock.now() - now <= STOOD_STILL_SECONDS:
            return slot
        self._pace.guard.given_up(slot, self._clock.now())  # what is sent now may arrive when it has passed
        return None

    async def wait(self, entry: Entry) -> Slot | None:
        """Wait until the service is thought to be there, no pause is on and the window has room.

        The slot is that of a request whose attempt begins this very moment; None when the entry is not to be sent any
        more.
        """
        while not entry.sender.halted:
            now = self._clock.now()
            if (slot := self.slot(entry, now)) is not None:
                return slot
            again = self._outage.send_at(now)
            if again is not None and again <= now:
                again = self._pace.send_at(now)
            self.waits_for = "slot"
            await self.over.wait(None if again is None else again - now)
            self.waits_for = ""
        return None
