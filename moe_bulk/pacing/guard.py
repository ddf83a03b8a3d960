"""The proof that the limit holds: plain arithmetic that is told the time.

A slot is taken just before a request is sent and freed one window after its answer came. The server received the
request somewhere between, at `t`, so its slot is held over all of [t, t + window]. All requests that the server
received inside one window hold their slots at the moment of the last of them, and there are only `limit` slots.
Latency, jitter and the server's clock do not enter.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from moe_bulk.times import Times

if TYPE_CHECKING:
    from moe_bulk.config import Rate

CLOCK_MARGIN = 0.001
"""A slewed clock, ours or the server's, runs up to 500 ppm off (adjtimex(2)): a slot is held this share longer."""

GRACE = 5.0
"""Seconds that the slot of a request that was given up is held on top: its abort must reach the other side."""


class Slot:
    """One request's place in the window, from its sending until it can no longer count."""

    __slots__ = ("closed", "taken")

    def __init__(self, taken: float) -> None:
        self.taken = taken
        self.closed = False

    def __repr__(self) -> str:
        return f"<Slot taken at {self.taken:.3f}{', closed' if self.closed else ''}>"


class WindowGuard:
    """`limit` slots; `take` one for every request that is sent, close it when the answer came or was given up.

    All times are seconds of one clock that never goes backwards; `timeout` is how long a request may take at most.
    """

    def __init__(self, rate: Rate, timeout: float) -> None:
        self.limit = rate.limit
        self._window = rate.per * (1 + CLOCK_MARGIN)
        self._timeout = timeout
        self._held = 0
        # When slots are free again: nearly all in the order in which they were closed; the others are a heap.
        self._ends = Times()
        self._other_ends: list[float] = []
        self._next_end = math.inf

    def take(self, now: float, cost: float = 1.0) -> Slot | None:
        """Take a slot for a request that is sent this very moment, or None where all are held.

        What a request costs of the even pace does not matter here: the bucket sees to that.
        """
        del cost
        if self._next_end <= now:
            self._forget(now)
        if self._held >= self.limit:
            return None
        self._held += 1
        return Slot(now)

    def answered(self, slot: Slot, now: float) -> None:
        """The answer came: the server received the request before `now`."""
        end, ends = now + self._window, self._ends.kept
        if slot.closed or (ends and end < ends[-1]):
            self._close(slot, end)
            return
        slot.closed = True  # here, not by `_close`, for nearly all: calls would cost as much again
        ends.append(end)
        if end < self._next_end:  # noqa: PLR1730  `min` is a call, too
            self._next_end = end

    def given_up(self, slot: Slot, now: float) -> None:
        """No answer came, and the connection was aborted: the server may still have received the request."""
        self._close(slot, max(slot.taken + self._timeout, now) + self._window + GRACE)

    def tick(self, now: float) -> None:
        """A second has passed: nobody else has to know that this process is still there."""

    def remember(self, taken: float, over: float, *, answered: bool) -> None:
        """Count a request of an earlier process as if it had been sent here: when, and when it was over."""
        slot = Slot(taken)
        self._held += 1
        if answered:
            self.answered(slot, over)
        else:
            self.given_up(slot, over)

    def free_at(self, now: float) -> float | None:
        """When the next slot is free: `now`, a later time, or None where only an answer can tell."""
        self._forget(now)
        if self._held < self.limit:
            return now
        return self._next_end if self._next_end < math.inf else None

    @property
    def held(self) -> int:
        """Slots that count at the moment of the last call."""
        return self._held

    def _close(self, slot: Slot, end: float) -> None:
        """Free the slot at `end`, which may be out of the order in which slots are closed."""
        if slot.closed:
            raise RuntimeError(f"{slot!r} was closed before")
        slot.closed = True
        self._next_end = min(self._next_end, end)
        heapq.heappush(self._other_ends, end)

    def _forget(self, now: float) -> None:
        ends, first, others = self._ends.kept, self._ends.first, self._other_ends
        while first < len(ends) and ends[first] <= now:
            first += 1
        self._held -= first - self._ends.first
        self._ends.begin_at(first)
        self._next_end = self._ends.earliest
        while others and others[0] <= now:
            heapq.heappop(others)
            self._held -= 1
        if others:
            self._next_end = min(self._next_end, others[0])

    def __repr__(self) -> str:
        return f"<WindowGuard {self.held} of {self.limit} slots held>"
