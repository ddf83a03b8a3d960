"""Another machine's clock, known by what it said between a question and its answer: between which two values it stands.

Plain arithmetic that is told the time. The answer's moment lies somewhere between sending and receiving: each answer
gives two bounds, and what all answers so far allow is what is known. Between answers the bounds widen by what two
clocks may drift apart.
"""

from __future__ import annotations

import math

from moe_bulk.pacing.guard import CLOCK_MARGIN

JUMP = 0.25
"""Seconds by which a clock must be out of its bounds to count as set: less is lost in what a limit leaves unused."""


class FarClock:
    """The bounds of a clock elsewhere, in seconds; before the first `note` nothing is known of it."""

    def __init__(self) -> None:
        self._ahead = (-math.inf, math.inf)
        """At least and at most so far ahead of ours at the moment of `_noted`."""
        self._noted = 0.0

    @property
    def is_known(self) -> bool:
        """Whether there was an answer."""
        return self._ahead[1] < math.inf

    def note(self, sent: float, received: float, told: float) -> bool:
        """Learn from an answer; False where the clock was set since the last one, or ours was: then begin anew."""
        low, high = self._at(received)
        drift = (received - sent) * CLOCK_MARGIN
        fresh = (told - received - drift, told - sent + drift)
        in_step = fresh[0] <= high + JUMP and fresh[1] >= low - JUMP
        both = (max(low, fresh[0]), min(high, fresh[1]))
        self._ahead = both if both[0] <= both[1] else fresh
        self._noted = received
        return in_step

    def earliest(self, now: float) -> float:
        """It has reached this, surely."""
        return now + self._at(now)[0]

    def latest(self, now: float) -> float:
        """It cannot be further than this."""
        return now + self._at(now)[1]

    def spread(self, now: float) -> float:
        """By how many seconds it may be either way: what an answer took, at first."""
        return self.latest(now) - self.earliest(now)

    def reaches(self, told: float, now: float) -> float:
        """When, on our clock, it will surely have reached `told`."""
        return told - self._at(now)[0]

    def _at(self, now: float) -> tuple[float, float]:
        drift = abs(now - self._noted) * CLOCK_MARGIN if self.is_known else 0.0
        return self._ahead[0] - drift, self._ahead[1] + drift
