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
        self._share_at = 0.0

    def share(self, now: float) -> float:
        """The share of the full pace to go at, from `FLOOR` to 1."""
        growing_since = max(self._share_at, self.paused_until)
        return min(1.0, self._share + max(0.0, now - growing_since) * RECOVERY)

    def note(self, outcome: Outcome, sent: float, now: float) -> None:
        """Take in one answer to a request that was sent at `sent`."""
        throttled = outcome.verdict is Verdict.THROTTLED
        self._watch(throttled)
        if throttled:
            asked = outcome.retry_after if outcome.retry_after is not None else outcome.reset_after
            self._asked_until = max(self._asked_until, now + (DEFAULT_PAUSE if asked is None else asked))
        if throttled and self._many():
            self._pause(self._asked_until, sent, now)
        elif outcome.remaining == 0 and outcome.verdict is not Verdict.TROUBLE:
            asked = outcome.reset_after if outcome.reset_after is not None else DEFAULT_PAUSE
            self._pause(max(now + asked, self._asked_until), sent, now)

    def _watch(self, throttled: bool) -> None:  # noqa: FBT001  one bit a deque
        if len(self._answers) == ANSWERS_WATCHED:
            self._throttled -= self._answers[0]
        self._answers.append(throttled)
        self._throttled += throttled

    def _many(self) -> bool:
        return self._throttled >= MANY_THROTTLED and self._throttled >= 0.1 * len(self._answers)

    def _pause(self, until: float, sent: float, now: float) -> None:
        """Pause, or pause longer; only an answer to a request sent after the last pause began slows the pace again."""
        if sent > self._paused_at and now >= self.paused_until:
            self._share = max(FLOOR, self.share(now) * SLOWER)
            self._share_at = self._paused_at = now
            self.pauses += 1
            self._answers.clear()
            self._throttled = 0
        self.paused_until = max(self.paused_until, until)
