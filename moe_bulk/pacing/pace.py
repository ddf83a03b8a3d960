"""Wait for permission: an even pace by a token bucket, a hard cap by the window guard, pauses by the throttle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiolimiter import AsyncLimiter

from moe_bulk.pacing.guard import WindowGuard
from moe_bulk.pacing.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from moe_bulk.config import Rate
    from moe_bulk.outcome import Attempt, Outcome
    from moe_bulk.pacing.guard import Slot

BUCKET_SECONDS = 0.5
"""The bucket's size in seconds' worth of requests: what a late wake-up may catch up, beside what is in hand."""

AT_ONCE_SECONDS = 0.005
"""Tokens for so many seconds' worth of requests are taken from the bucket together, a few times what a timer resolves:
taking one costs as much as ten steps of the engine, and at the usual limit this is less than one."""


class Window(Protocol):
    """What proves the limit: this process's own `WindowGuard`, or one that several processes share."""

    def take(self, now: float, cost: float = 1.0) -> Slot | None:
        """Take a slot for a request that is sent this very moment, where there is one; `cost` is its price in pace."""

    def free_at(self, now: float) -> float | None:
        """When it is worth asking again: `now`, later, or None where only an answer can tell."""

    def answered(self, slot: Slot, now: float) -> None:
        """The answer came."""

    def given_up(self, slot: Slot, now: float) -> None:
        """No answer came, and none will be taken in."""

    def tick(self, now: float) -> None:
        """A second has passed."""

    def remember(self, taken: float, over: float, *, answered: bool) -> None:
        """Count a request of an earlier process, where the window does not know of it."""


class Pace:
    """Never more than `rate` in any window, of requests sent and of requests that the server can have received.

    `timeout` is how many seconds one attempt may take. All times are boot-clock seconds. `window` is one that is shared
    with other processes, if there is one.
    """

    def __init__(self, rate: Rate, timeout: float, window: Window | None = None) -> None:
        self.rate = rate
        self.guard: Window = window or WindowGuard(rate, timeout)
        self.throttle = Throttle(rate)
        size = max(1.0, rate.per_second * BUCKET_SECONDS)
        self._bucket = AsyncLimiter(size, size / rate.per_second)
        self._in_hand = 0.0
        """Tokens that were taken from the bucket and are not spent yet."""
        self._started = False

    def spend(self, now: float) -> bool:
        """Spend the tokens of one more request, where enough are in hand; below full pace it costs more than one."""
        left = self._in_hand - (1.0 / self.throttle.share(now) if self.throttle.pauses else 1.0)
        if left < 0:
            return False
        self._in_hand = left
        return True

    async def token(self, now: float) -> None:
        """Wait until the even pace allows one more request."""
        if not self._started:
            self._started = True
            await self._bucket.acquire(self._bucket.max_rate)  # it starts empty: a restart never adds a burst
        cost = 1.0 / self.throttle.share(now)
        taken = max(cost, self.rate.per_second * AT_ONCE_SECONDS)
        left = taken - self._in_hand
        while left > 0:
            step = min(left, self._bucket.max_rate)
            await self._bucket.acquire(step)
            left -= step
        self._in_hand = taken - cost

    def remember(self, attempts: Iterable[Attempt]) -> None:
        """Count requests of an earlier process in the window; their `at` is on this one's clock."""
        for each in sorted(attempts, key=lambda each: each.at + each.ms / 1000):
            self.guard.remember(each.at, each.at + each.ms / 1000, answered=each.http_status is not None)

    def tick(self, now: float) -> None:
        """A second has passed, whether or not something was sent."""
        self.guard.tick(now)

    def send_at(self, now: float) -> float | None:
        """When the next request may be sent: `now`, a later time, or None where only an answer can tell."""
        free_at = self.guard.free_at(now)
        return None if free_at is None else max(free_at, self.throttle.paused_until, now)

    def take(self, now: float) -> Slot | None:
        """Take the slot of a request that is sent this very moment; None during a pause or with a full window."""
        if now < self.throttle.paused_until:
            return None
        return self.guard.take(now, 1.0 / self.throttle.share(now) if self.throttle.pauses else 1.0)

    def accepted(self, answers: Collection[tuple[Slot, float]]) -> None:
        """Acceptances that ask for nothing came, to the attempts that hold these slots, at these moments."""
        for slot, now in answers:
            self.guard.answered(slot, now)
        self.throttle.note_accepted([(slot.taken, now) for slot, now in answers])

    def answered(self, slot: Slot, outcome: Outcome, now: float) -> None:
        """The attempt that holds `slot` is over; `outcome` says whether an answer came and what it asks for."""
        if outcome.http_status is None:
            self.guard.given_up(slot, now)
        else:
            self.guard.answered(slot, now)
        self.throttle.note(outcome, slot.taken, now)
