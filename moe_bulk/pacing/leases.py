"""The slots that one process holds of a shared limit, and what it has to tell of those it used: plain, told the time.

Slots are asked for some time ahead and in batches, so that no request waits for the server. Which batch is enough is
learned from what becomes of the slots: all used, and the next may be larger, up to a fair part; some come to nothing,
and it is what was used.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING

from moe_bulk.pacing.farclock import FarClock
from moe_bulk.pacing.guard import GRACE, Slot
from moe_bulk.pacing.reservations import HEARTBEAT, LATE, SCHEDULED, Call, Granted, Report, horizon

if TYPE_CHECKING:
    from moe_bulk.pacing.reservations import Run, Terms

LEAD, TRIPS = 0.5, 4
"""Seconds of its fair part that a process holds in slots, about, and so many times what an answer takes on top."""
SMALLEST_BATCH = 24
"""Slots to ask for at least, where all of them are used: less than a tenth of a question for each request."""
FIRST_BATCH = 4
LOOK_AGAIN = 0.02
"""Seconds until it is worth looking whether an answer came."""
WAIT_AGAIN = 0.25

SET = "clock"
"""Why a hash is not to be believed: its server's clock was set."""


class LeasedSlot(Slot):
    """A place in the shared window, and the bin in which a life of the server's hash counts it so far."""

    __slots__ = ("bin", "generation")

    def __init__(self, taken: float, counted: int, generation: str) -> None:
        super().__init__(taken)
        self.bin = counted
        self.generation = generation


class _Batch:
    """What is left of a run."""

    __slots__ = ("bin", "due", "left", "step")

    def __init__(self, run: Run) -> None:
        self.due, self.left, self.bin = run.first, run.count, run.bin
        self.step = (run.last - run.first) / (run.count - 1) if run.count > 1 else 0.0

    def next(self) -> None:
        self.left -= 1
        self.due += self.step


class Leases:
    """Slots in hand, requests to report; all times are this machine's boot-clock seconds.

    `ask` puts the next question to the server, `told` takes its answer in, if one comes. One question at a time.
    """

    def __init__(self, terms: Terms) -> None:
        self.clock = FarClock()
        self.limit = terms.rate.limit
        """What all together may send in a window, at the last word."""
        self.peers = 1
        self.blocked = 0.0
        """Until when nothing may be sent, by the server's clock."""
        self.last_sent: float | None = None
        self._terms = terms
        self._batches: deque[_Batch] = deque()
        self.generation = ""
        """Which life of the server's hash it knows."""
        self._turn, self._again = 0, ""
        self._width = 0.0
        self._news: Counter[int] = Counter()
        """Requests more, or fewer, that end in a bin: what the server does not know yet."""
        self._unused = 0
        self._reports: list[Report] = []
        """Those that are not known to have arrived."""
        self._number = 0
        self._size = FIRST_BATCH
        self._used, self._lapsed = 0, 0
        self._debt = 0.0
        self._hungry = False
        self._retry = 0.0
        self.trip = 0.0
        """How many seconds an answer took lately, at worst."""
        self._looked = -math.inf
        """When it last asked."""

    # -- slots --------------------------------------------------------------------------------------------------------

    def take(self, now: float, cost: float = 1.0) -> LeasedSlot | None:
        """Use a slot that is due, and a `cost` above 1 passes over others; None where none is."""
        self._drop_late(now)
        while self._batches and self._batches[0].due <= self.clock.earliest(now):
            batch = self._next()
            if self._debt >= 1:  # the pace is slower than what was granted: this turn passes
                self._debt -= 1
                self._give_back(batch, 1)
                continue
            self._debt = min(self._debt + cost - 1, SMALLEST_BATCH)
            self._used += 1
            self._hungry = self._hungry or self.in_hand <= self._size / 4
            return self._sent(now, batch.bin)
        self._hungry = self._hungry or self.in_hand <= self._size / 4
        return None

    def take_alone(self, now: float) -> LeasedSlot:
        """Count a request that is sent without having been granted: the server hears of it when it is back."""
        counted = self._bin(self.clock.latest(now) + LATE + self._terms.timeout + GRACE)
        self._news[counted] += 1
        return self._sent(now, counted)

    def free_at(self, now: float) -> float:
        """When it is worth trying again."""
        if self._batches:
            return max(now, self.clock.reaches(self._batches[0].due, now))
        blocked = self.clock.reaches(self.blocked, now) if self.clock.is_known else now
        return min(blocked, now + WAIT_AGAIN) if blocked > now else now + LOOK_AGAIN

    def ended(self, slot: LeasedSlot, end: float) -> None:
        """The service cannot receive the slot's request later than at `end`."""
        if slot.closed:
            raise RuntimeError(f"{slot!r} was closed before")
        slot.closed = True
        if slot.generation == self.generation:
            self._news[slot.bin] -= 1
        self._news[self._bin(self.clock.latest(end))] += 1

    @property
    def in_hand(self) -> int:
        """Slots that are not used yet."""
        return sum(batch.left for batch in self._batches)

    def knows_no_moment(self, now: float) -> bool:
        """True while no slot can be used: when it is surely due, it may be late already."""
        return self.clock.spread(now) >= LATE

    def drop_all(self) -> None:
        """Use none of the slots in hand any more."""
        while self._batches:
            batch = self._batches.popleft()
            self._give_back(batch, batch.left)
            self._unused += batch.left

    def _sent(self, now: float, counted: int) -> LeasedSlot:
        self.last_sent = now
        return LeasedSlot(now, counted, self.generation)

    def _next(self) -> _Batch:
        batch = self._batches[0]
        batch.next()
        if not batch.left:
            self._batches.popleft()
        return batch

    def _drop_late(self, now: float) -> None:
        """Slots whose moment has gone by are given back, and their pace with them."""
        latest = self.clock.latest(now) - LATE
        while self._batches and self._batches[0].due < latest:
            self._give_back(self._next(), 1)
            self._unused += 1
            self._lapsed += 1

    def _give_back(self, batch: _Batch, count: int) -> None:
        self._news[batch.bin] -= count

    def _bin(self, end: float) -> int:
        return math.ceil(end / self._width)

    # -- questions ----------------------------------------------------------------------------------------------------

    def ask_at(self) -> float:
        """When there is something to ask: at the next heartbeat at the latest."""
        heartbeat = self._looked + HEARTBEAT
        return min(max(self._looked + LOOK_AGAIN, self._retry), heartbeat) if self._hungry else heartbeat

    def ask(self, now: float, *, want: int | None = None) -> Call:
        """Put the next question; what it reports is told again until one is answered."""
        if want is None:
            want = self._wanted(now)
        news = {counted: by for counted, by in self._news.items() if by}
        if news or self._unused:
            self._number += 1
            self._reports.append(Report(self._number, news, self._unused))
            self._news.clear()
            self._unused = 0
        self._looked = now
        quiet = None if self.last_sent is None else max(0.0, now - self.last_sent)
        return Call(self.generation, self._turn, want, tuple(self._reports), quiet, self._again)

    def _wanted(self, now: float) -> int:
        self._drop_late(now)
        if not self._hungry:
            return 0
        if self._lapsed:
            self._size = max(1, min(self._size, math.ceil(self._used * 1.25)))
        elif self._used:
            self._size = min(2 * self._size, self._fair)
        self._used = self._lapsed = 0
        return self._size

    @property
    def _fair(self) -> int:
        """How many slots suit this process, one of several."""
        per = self._terms.rate.per
        part = SCHEDULED * self.limit / per / max(1, self.peers)
        ahead = LEAD + TRIPS * self.trip
        return max(1, int(min(max(SMALLEST_BATCH, ahead * part), 0.8 * horizon(per) * part)))

    def told(self, answer: Granted, sent: float, received: float) -> None:
        """The answer came."""
        another = answer.generation != self.generation
        in_step = self.clock.note(sent, received, answer.now)
        self.trip = max(received - sent, 0.8 * self.trip)
        self._reports.clear()
        if another:
            self.drop_all()
            self._news = Counter({counted: by for counted, by in self._news.items() if by > 0})
            self._unused = 0
        self.generation, self._turn, self._width = answer.generation, answer.turn, answer.width
        self._again = "" if in_step or another else SET
        self.limit, self.peers, self.blocked = answer.limit, answer.peers, answer.blocked
        granted = sum(run.count for run in answer.runs)
        self._batches.extend(map(_Batch, answer.runs))
        if self._again:
            self.drop_all()
        self._retry = 0.0 if granted else self.clock.reaches(answer.retry, received)
        self._hungry = bool(self._again) or (self._hungry and not granted)
