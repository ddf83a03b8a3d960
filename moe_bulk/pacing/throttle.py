"""What a 429 asks of everybody: when to pause, and at which share of the pace to go on. Plain code, told the time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from moe_bulk.outcome import Verdict

if TYPE_CHECKING:
    from moe_bulk.outcome import Outcome

ANSWERS_WATCHED = 50
MANY_THROTTLED = 5
"""At least 5 and at least 10 % of the last 50 answers: fewer are their own records' affair."""
SLOWER = 0.7
FLOOR = 0.1
RECOVERY = 0.05
"""Share of the full pace that comes back each second."""
DEFAULT_PAUSE = 1.0
"""Seconds to pause where the service does not say how long."""


class Throttle:
    """Watches the answers; says until when everybody pauses and how much of the pace is left after it."""

    def __init__(self) -> None:
        self.pauses = 0
        self.paused_until = 0.0
        self._paused_at = float("-inf")
        self._answers: deque[bool] = deque(maxlen=ANSWERS_WATCHED)
        self._throttled = 0
        self._asked_until = 0.0
        self._share = 1.0

    def share(self, now: float) -> float:
        """The share of the full pace to go at, from `FLOOR` to 1."""
        return min(1.0, self._share + max(0.0, now - self.paused_until) * RECOVERY)

    def note(self, outcome: Outcome, sent: float, now: float) -> None:
        """Take in one answer to a request that was sent at `sent`; where none came there is nothing to learn.

        An answer to a request sent before the last pause began may prolong that pause; it neither slows the pace twice
        nor counts for the next one.
        """
        throttled, used_up = outcome.verdict is Verdict.THROTTLED, outcome.remaining == 0
        if outcome.http_status is None:
            return
        if throttled or used_up:
            self._asked_until = max(self._asked_until, now + _asked(outcome))
        if sent > self._paused_at:
            self._watch(throttled)
            if used_up or (throttled and self._many()):
                self._pause(now)
        elif now < self.paused_until:
            self.paused_until = max(self.paused_until, self._asked_until)

    def _watch(self, throttled: bool) -> None:  # noqa: FBT001  one bit a deque
        if len(self._answers) == ANSWERS_WATCHED:
            self._throttled -= self._answers[0]
        self._answers.append(throttled)
        self._throttled += throttled

    def _many(self) -> bool:
        return self._throttled >= MANY_THROTTLED and self._throttled >= 0.1 * len(self._answers)

    def _pause(self, now: float) -> None:
        self._share = max(FLOOR, self.share(now) * SLOWER)
        self._paused_at = now
        self.paused_until = self._asked_until
        self.pauses += 1
        self._answers.clear()
        self._throttled = 0


def _asked(outcome: Outcome) -> float:
    """Seconds until the latest of what the answer asks for; with nothing left, the reset asks beside `Retry-After`."""
    asked, reset = outcome.retry_after, outcome.reset_after
    if asked is None or reset is None:
        return next((seconds for seconds in (asked, reset) if seconds is not None), DEFAULT_PAUSE)
    return max(asked, reset) if outcome.remaining == 0 else asked
