"""What a 429 asks of everybody: when to pause, and at which share of the pace to go on. Plain code, told the time."""

from __future__ import annotations

import math
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING

from moe_bulk.config import Rate
from moe_bulk.outcome import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from moe_bulk.outcome import Outcome

ANSWERS_WATCHED = 50
MANY_THROTTLED = 5
"""At least 5 and at least 10 % of the last 50 answers: fewer are their own records' affair."""
SLOWER = 0.7
FLOOR = 0.1
RECOVERY = 0.05
"""Share of the full pace that comes back each second."""
KEPT = 0.9
"""How much of what it got in the last window the pace comes back to at first. When 429s tell that others use the limit,
too, that is what they leave, or more: a service that counts by the minute says so only when the minute is full."""
CREEP = 0.01
"""Share of the limit by which the pace goes beyond that in the next window, and by twice as much in each one after."""
LONGEST_LOOK = 60.0
"""Seconds of the past that it looks at."""
DEFAULT_PAUSE = 1.0
"""Seconds to pause where the service does not say how long."""


class Throttle:
    """Watches the answers; says until when everybody pauses and how much of the pace is left after it."""

    def __init__(self, rate: Rate | None = None) -> None:
        self.pauses = 0
        self.paused_until = 0.0
        self._paused_at = float("-inf")
        self._answers: deque[bool] = deque(maxlen=ANSWERS_WATCHED)
        self._throttled = 0
        self._asked_until = 0.0
        self._share = 1.0
        self._got = _LastWindow(rate or Rate())
        self._ceiling = 1.0

    def share(self, now: float) -> float:
        """The share of the full pace to go at, from `FLOOR` to 1."""
        if not self.pauses:
            return 1.0
        return min(self._share + max(0.0, now - self.paused_until) * RECOVERY, self._top(now))

    def _top(self, now: float) -> float:
        """Where the share stops coming back at 5 % a second: at first at what was got, then ever higher."""
        windows = max(0.0, now - self.paused_until) / self._got.seconds
        return min(1.0, self._ceiling + CREEP * (2 ** min(windows, 10) - 1))

    def note(self, outcome: Outcome, sent: float, now: float) -> None:
        """Take in one answer to a request that was sent at `sent`; where none came there is nothing to learn.

        An answer to a request sent before the last pause began may prolong that pause; it neither slows the pace twice
        nor counts for the next one.
        """
        throttled, used_up = outcome.verdict is Verdict.THROTTLED, outcome.remaining == 0
        if outcome.http_status is None:
            return
        self._got.note(0 if throttled else 1, now, self.paused_until)
        if throttled or used_up:
            self._asked_until = max(self._asked_until, now + _asked(outcome))
        self._heed(sent, now, throttled=throttled, used_up=used_up)

    def note_accepted(self, answers: Collection[tuple[float, float]]) -> None:
        """Take in acceptances that ask for nothing, by when they were sent and when they came: as `note` of each."""
        self._got.note_all([now for _, now in answers], self.paused_until)
        if not self._throttled and not self.pauses:  # nearly always
            self._answers.extend(repeat(object=False, times=len(answers)))
            return
        for sent, now in answers:
            self._heed(sent, now, throttled=False)

    def _heed(self, sent: float, now: float, *, throttled: bool, used_up: bool = False) -> None:
        if sent > self._paused_at:
            self._watch(throttled=throttled)
            if used_up or (throttled and self._many()):
                self._pause(now)
        elif now < self.paused_until:
            self.paused_until = max(self.paused_until, self._asked_until)

    def _watch(self, *, throttled: bool) -> None:
        answers = self._answers
        if len(answers) == ANSWERS_WATCHED:
            self._throttled -= answers[0]
        answers.append(throttled)
        self._throttled += throttled

    def _many(self) -> bool:
        return self._throttled >= MANY_THROTTLED and self._throttled >= 0.1 * len(self._answers)

    def _pause(self, now: float) -> None:
        self._share = max(FLOOR, self.share(now) * SLOWER)
        got = self._got.share(now)
        self._ceiling = self._top(now) if got is None else max(FLOOR, KEPT * got)
        self._paused_at = now
        self.paused_until = self._asked_until
        self.pauses += 1
        self._answers.clear()
        self._throttled = 0


class _LastWindow:
    """Which share of the limit was got in the last window, or the last minute of a longer one: counted in sixtieths."""

    def __init__(self, rate: Rate) -> None:
        self.seconds = min(rate.per, LONGEST_LOOK)
        self._limit = rate.per_second * self.seconds
        self._parts: deque[list[int]] = deque()
        self._began: float | None = None
        self._last = 0.0
        self._end = -math.inf
        """When the part that is being filled is over."""

    def note(self, got: int, now: float, paused_until: float) -> None:
        """Count an answer: 1 where the request got through to the service, 0 where the limit was in the way."""
        if now >= self._end:
            self._go_on_to(now, paused_until)
        self._last = now
        self._parts[-1][1] += got

    def note_all(self, times: Sequence[float], paused_until: float) -> None:
        """As `note` of each: they got through, and ascend."""
        if times and times[-1] < self._end:  # all in the part that is being filled, as nearly always
            self._last = times[-1]
            self._parts[-1][1] += len(times)
            return
        for now in times:
            self.note(1, now, paused_until)

    def _go_on_to(self, now: float, paused_until: float) -> None:
        silence = now - max(self._last, paused_until)
        if self._began is None or silence > self.seconds / 6:  # an outage, say: it tells nothing about the limit
            self._began = now
            self._parts.clear()
        part = int(now * 60 / self.seconds)
        self._end = (part + 1) * self.seconds / 60
        if not self._parts or self._parts[-1][0] != part:
            self._parts.append([part, 0])
            while self._parts[0][0] <= part - 60:
                self._parts.popleft()

    def share(self, now: float) -> float | None:
        """The share of the limit, or None before there was a whole window of answers."""
        if self._began is None or now - self._began < self.seconds:
            return None
        return sum(count for _, count in self._parts) / self._limit


def _asked(outcome: Outcome) -> float:
    """Seconds until the latest of what the answer asks for; with nothing left, the reset asks beside `Retry-After`."""
    asked, reset = outcome.retry_after, outcome.reset_after
    if asked is None or reset is None:
        return next((seconds for seconds in (asked, reset) if seconds is not None), DEFAULT_PAUSE)
    return max(asked, reset) if outcome.remaining == 0 else asked
