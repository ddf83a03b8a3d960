"""One window for uploads on many machines, kept by a Redis server, and what becomes of it when the server is away.

Plain code that is told the time: `step` says what to do next, `courier` does it. While there is no server nothing is
sent. Whoever chose so takes an equal part of the limit by itself instead, after a silence in which the others have made
room for it; it says so when it joins, and the server keeps its part free for as long as it does not hear of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from moe_bulk.amounts import duration
from moe_bulk.config import Rate
from moe_bulk.errors import AGAIN, ConfigError, PaceLost
from moe_bulk.pacing.guard import GRACE, Slot, WindowGuard
from moe_bulk.pacing.leases import WAIT_AGAIN, LeasedSlot, Leases
from moe_bulk.pacing.reservations import LEAVES, SCHEDULED, Call, Granted, OtherWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.pacing.reservations import Reply, Terms

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two tries to reach a server that is away."""
CREDIT = 0.25
"""Seconds of unused pace that may be caught up while it is alone."""
MOMENT = 1.0
"""Seconds that it may be away before people hear of it."""
MOST_NOTES = 100

_FORGOTTEN = {
    "empty": "knows nothing of this workspace (it is new there, or was emptied)",
    "restarted": "was restarted",
    "set back": "is in an older state than before",
    "clock": "had its clock set",
}


class Mode(Enum):
    """Where a process stands with the server."""

    JOINING = "joining"
    """It has not been heard yet."""
    TOGETHER = "together"
    AWAY = "away"
    """The server is gone: nothing is sent."""
    ALONE = "alone"
    """The server is gone: a part of the limit is sent without it."""
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Ask:
    """Put this question."""

    call: Call


@dataclass(frozen=True, slots=True)
class Knock:
    """See whether the server is there, without a word that it would remember."""


@dataclass(frozen=True, slots=True)
class Rest:
    """There is nothing to do before `until`, unless somebody needs a slot."""

    until: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It is over: stop the run."""

    error: PaceLost


Step = Ask | Knock | Rest | GiveUp


class RemoteWindow:
    """The window that a Redis server keeps; to `Pace` it is what `WindowGuard` is for one process alone.

    `place` is how the server is called before people, without its password. `patience` is how many seconds it may be
    away before the run stops. `notes` tells what people should know. All times are boot-clock seconds.
    """

    def __init__(
        self, terms: Terms, place: str, patience: float, now: float, draw: Callable[[], float] = random.random
    ) -> None:
        if terms.share and patience <= terms.silence:
            raise ConfigError(
                f"--pace-fallback takes effect after {duration(terms.silence)} of silence, when --outage-limit has "
                f"already ended the run ({duration(patience)}): give it an hour, say"
            )
        if terms.share > terms.rate.limit:
            raise ConfigError(f"a limit of {terms.rate} has no {terms.share} shares: correct --pace-fallback or --rate")
        self.leases = Leases(terms)
        self.mode = Mode.JOINING
        self.place = place
        self.notes: list[str] = []
        self.wake: Callable[[], None] = lambda: None
        """Called when somebody needs a slot and there is none."""
        self._terms = terms
        self._patience = patience
        self._draw = draw
        self._since = now
        """Since when the server has been away, or has not been heard yet."""
        self._spoken = now
        """When it was last asked something that it may have heard."""
        self._slow_since: float | None = None
        """Since when its answers have taken too long for any slot to be used."""
        self._there = False
        """Whether it answered the last knock."""
        self._tries = 0
        self._knock_at = now
        self._why = ""
        """Why it did not answer, until people have been told."""
        self._error: PaceLost | None = None
        self._tail = terms.tail
        self._guard = WindowGuard(terms.rate, terms.timeout)
        """What this process sent: it keeps to its own limit whatever the server grants."""
        self._alone: WindowGuard | None = None
        self._alone_next = 0.0
        self._guarded: dict[LeasedSlot, list[tuple[WindowGuard, Slot]]] = {}

    # -- what Pace asks -----------------------------------------------------------------------------------------------

    def take(self, now: float, cost: float = 1.0) -> Slot | None:
        """Take a slot for a request that is sent this very moment, where there is one."""
        if self._alone is not None:
            return self._take_alone(self._alone, now, cost)
        slot = self.leases.take(now, cost) if self._free(self._guard, now) <= now else None
        if slot is not None:
            self._keep(slot, now, self._guard)
        if self.leases.ask_at() <= now:
            self.wake()
        return slot

    def free_at(self, now: float) -> float:
        """When it is worth asking again."""
        free = self._free(self._guard, now)
        if self._alone is not None:
            return max(free, self._free(self._alone, now), self._alone_next)
        if self.mode is Mode.TOGETHER or self.leases.in_hand:
            return max(free, self.leases.free_at(now))
        return now + WAIT_AGAIN

    def answered(self, slot: Slot, now: float) -> None:
        """The answer came: the service received the request before `now`."""
        self._close(slot, now, now, answered=True)

    def given_up(self, slot: Slot, now: float) -> None:
        """No answer came, and the connection was aborted: the service may still have received the request."""
        self._close(slot, max(slot.taken + self._terms.timeout, now) + GRACE, now, answered=False)

    def tick(self, now: float) -> None:
        """A second has passed: the courier sees to it."""

    def remember(self, taken: float, over: float, *, answered: bool) -> None:
        """Count a request of an earlier process; the server knows of it, or waits until it has passed."""
        self._guard.remember(taken, over, answered=answered)

    def _close(self, slot: Slot, end: float, now: float, *, answered: bool) -> None:
        assert isinstance(slot, LeasedSlot)  # noqa: S101  nobody else gives slots
        self.leases.ended(slot, end)
        for guard, kept in self._guarded.pop(slot):
            (guard.answered if answered else guard.given_up)(kept, now)

    def _take_alone(self, guard: WindowGuard, now: float, cost: float) -> Slot | None:
        if (
            now < self._alone_next
            or now - self._since >= self._patience
            or self._free(guard, now) > now
            or self._free(self._guard, now) > now
        ):
            return None
        rate = self.alone_rate
        self._alone_next = max(self._alone_next, now - CREDIT) + cost * rate.per / (SCHEDULED * rate.limit)
        slot = self.leases.take_alone(now)
        self._keep(slot, now, self._guard, guard)
        return slot

    def _keep(self, slot: LeasedSlot, now: float, *guards: WindowGuard) -> None:
        """Let the guards count what is sent now, too; they were asked whether there is room."""
        self._guarded[slot] = [(guard, kept) for guard in guards if (kept := guard.take(now)) is not None]

    @staticmethod
    def _free(guard: WindowGuard, now: float) -> float:
        free = guard.free_at(now)
        return now + WAIT_AGAIN if free is None else free

    @property
    def alone_rate(self) -> Rate:
        """What this process may send by itself while the server is away."""
        rate = self._terms.rate
        return Rate(max(1, rate.limit // max(1, self._terms.share)), rate.per)

    def waits(self, now: float) -> bool:
        """Whether nothing can be sent because of the server: it is away, or does not know what was sent before."""
        if self.mode in (Mode.JOINING, Mode.AWAY, Mode.OVER):
            return not self.leases.in_hand
        blocked = self.leases.blocked > self.leases.clock.latest(now)
        return self.mode is Mode.TOGETHER and (blocked or self._slow_since is not None)

    # -- what the courier asks ----------------------------------------------------------------------------------------

    def step(self, now: float) -> Step:
        """What to do next."""
        if self._error is None and self.mode is not Mode.TOGETHER and now - self._since >= self._patience:
            self._end(f"was away for {duration(self._patience)} (--outage-limit): when it is back, {AGAIN}")
        if self.mode is Mode.TOGETHER and self._slow_since is not None and now - self._slow_since >= self._patience:
            self._end(f"answered too late for {duration(self._patience)} (--outage-limit): name one that is nearer")
        if self._error is not None:
            return GiveUp(self._error)
        if self.mode is Mode.TOGETHER:
            at = self.leases.ask_at()
            return self._ask(now) if at <= now else Rest(at)
        if self._there:
            self._alone = None  # what it has sent is in the report; from here on the server decides
            return self._ask(now)
        self._tell_of_absence(now)
        self._perhaps_alone(now)
        return Knock() if self._knock_at <= now else Rest(min(self._knock_at, self._since + self._patience))

    def leave(self, now: float) -> Call | None:
        """The last word, where there was a first one."""
        if self.mode is not Mode.TOGETHER:
            return None
        self.leases.drop_all()
        return self.leases.ask(now, want=LEAVES)

    def is_there(self) -> None:
        """The server answered a knock."""
        self._there = True

    def told(self, reply: Reply, sent: float, received: float) -> None:
        """The server answered a question that was put at `sent`."""
        if isinstance(reply, OtherWindow):
            kept = f"{reply.limit} in {reply.per:g} s"
            self._end(
                f"keeps {kept} for another upload of this workspace, and windows of two lengths cannot be shared: "
                "give the same --rate everywhere"
            )
            return
        was, before = self.mode, self.leases.generation
        self.leases.told(reply, sent, received)
        self._tail = max(self._terms.tail, reply.tail)
        if was in (Mode.AWAY, Mode.ALONE) and not self._why:
            self._note(f"{self.place}, which keeps the pace, is back after {duration(received - self._since)}")
        self.mode, self._there, self._tries, self._why = Mode.TOGETHER, False, 0, ""
        if before != reply.generation:
            self._tell_of_blocking(reply)
        self._look_at_its_clock(received)
        if reply.limit < self._terms.rate.limit:
            left = Rate(reply.limit, self._terms.rate.per) if reply.limit else "nothing"
            self._note(f"what the other uploads of this workspace keep to leaves {left} for all of them")

    def failed(self, why: str, now: float) -> None:
        """The server did not answer."""
        self._there = False
        self._tries += 1
        pause = min(FIRST_PAUSE * 2 ** min(self._tries - 1, 10), LONGEST_PAUSE)
        self._knock_at = now + pause * (0.5 + self._draw() / 2)
        if self.mode in (Mode.TOGETHER, Mode.JOINING) and self._tries == 1:
            self._since, self._why = now, why
        if self.mode is Mode.TOGETHER or (self.mode is Mode.ALONE and self._alone is None):
            self.mode = Mode.AWAY

    def refused(self, why: str, now: float) -> None:
        """The server answered that it will not: a wrong password, no such command."""
        if self.mode is Mode.JOINING:
            self._end(f"refuses: {why}")
        else:
            self.failed(why, now)

    @property
    def error(self) -> PaceLost | None:
        """Why it is over, once it is."""
        return self._error

    # ------------------------------------------------------------------------------------------------------------------

    def _ask(self, now: float) -> Ask:
        self._spoken = now
        return Ask(self.leases.ask(now))

    @property
    def _silence(self) -> float:
        return self._terms.silence - self._terms.tail + self._tail

    def _perhaps_alone(self, now: float) -> None:
        if self._terms.share and self.mode is Mode.AWAY and now - self._spoken >= self._silence:
            self.mode = Mode.ALONE
            self._alone = WindowGuard(self.alone_rate, self._terms.timeout)
            self._alone_next = now
            self._note(f"{self.place} is still away: this upload sends {self.alone_rate} by itself until it is back")

    def _tell_of_absence(self, now: float) -> None:
        """Say that it is away, where that is more than a moment."""
        joining = self.mode is Mode.JOINING
        if not self._why or (not joining and now - self._since < MOMENT):
            return
        what = "nothing is sent"
        if self._terms.share and not joining:
            what += f" for {duration(self._silence)}, then {self.alone_rate} by this upload alone"
        patience = f"it is tried again for up to {duration(self._patience)}"
        said = "cannot be reached" if joining else "is away"
        self._note(f"{self.place}, which keeps the pace, {said} ({self._why}): {what}; {patience}")
        self._why = ""

    def _look_at_its_clock(self, now: float) -> None:
        if not self.leases.knows_no_moment(now):
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = now
        elif now - self._slow_since >= MOMENT:
            self._note(
                f"{self.place}, which keeps the pace, takes {duration(self.leases.trip)} to answer, too long to tell "
                "when a slot is due: nothing is sent until it answers within a second. Name one that is nearer"
            )

    def _tell_of_blocking(self, reply: Granted) -> None:
        seconds = reply.blocked - reply.now
        if seconds > 0:
            why = _FORGOTTEN.get(reply.begun, "does not know all that was sent before")
            self._note(f"{self.place}, which keeps the pace, {why}: nothing is sent for {duration(seconds)}")

    def _end(self, what: str) -> None:
        self.mode, self._alone = Mode.OVER, None
        self._error = PaceLost(f"{self.place}, which keeps the pace, {what}")

    def _note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < MOST_NOTES:
            self.notes.append(text)
