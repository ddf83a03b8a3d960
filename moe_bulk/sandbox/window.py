"""Count requests in sliding windows: one that refuses, two that only remember the worst they saw.

Plain code that is told the time, in seconds of any clock that never goes back. A window is half-open: of two requests
exactly one length apart, only one lies in it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from .duration import unit_seconds


class LimitError(ValueError):
    """A limit that cannot be meant: no number, no unit, or less than one request."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in any window of so many seconds; `Limit(10_000, 60)` is MoEngage's default."""

    count: int
    per: float = 60.0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.per < math.inf:
            raise LimitError(
                f"a limit of {self.count} requests in {self.per:g} s lets nothing through: write one such as 10000/min"
            )

    @classmethod
    def parse(cls, text: str) -> Limit | None:
        """Read `10000/min`, `200/s` or `100/6s`; `none` and `unlimited` mean no limit.

        Raises LimitError with the spelling to use.
        """
        if text.strip().lower() in {"none", "unlimited"}:
            return None
        count, slash, unit = text.strip().partition("/")
        digits = count.strip().replace("_", "").replace(",", "")
        if not (slash and digits.isascii() and digits.isdigit()):
            raise LimitError(f"{text!r} is no limit: write COUNT/min, COUNT/s or COUNT/6s, such as 10000/min, or none")
        try:
            per = unit_seconds(unit.strip())
        except ValueError as error:
            raise LimitError(f"{text!r} is no limit: {error}") from None
        return cls(int(digits), per)


class SlidingWindow:
    """A limit that is enforced: it admits a request, or says how long to wait. Refused requests fill no place."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._admitted: deque[float] = deque()

    def admit(self, now: float) -> bool:
        """Take a place in the window that ends now; False when it is full."""
        self._forget(now)
        if len(self._admitted) >= self.limit.count:
            return False
        self._admitted.append(now)
        return True

    def remaining(self, now: float) -> int:
        """Tell how many places are free in the window that ends now."""
        self._forget(now)
        return self.limit.count - len(self._admitted)

    def until_free(self, now: float) -> float:
        """Tell in how many seconds the oldest request leaves the window; 0 when it holds none."""
        self._forget(now)
        return self._admitted[0] + self.limit.per - now if self._admitted else 0.0

    def _forget(self, now: float) -> None:
        edge = now - self.limit.per
        while self._admitted and self._admitted[0] <= edge:
            self._admitted.popleft()


class BusiestWindow:
    """The most arrivals that any window of `per` seconds held: `most`, beginning at `at`.

    Memory is what one window holds.
    """

    def __init__(self, per: float) -> None:
        self.per = per
        self.most = 0
        self.at = 0.0
        self._arrivals: deque[float] = deque()

    def arrive(self, now: float) -> None:
        """Count one arrival; times never go back."""
        arrivals = self._arrivals
        arrivals.append(now)
        edge = now - self.per
        while arrivals[0] <= edge:
            arrivals.popleft()
        if len(arrivals) > self.most:
            self.most = len(arrivals)
            self.at = arrivals[0]


class BusiestServiceWindow:
    """The same for the least lucky count: each request at any moment between its arrival and its answer.

    A client that promises "no window holds more than N, whatever the network did" promises this number. The count can
    only grow when a request arrives, and then it is those still in service and those answered less than `per` seconds
    ago.
    """

    def __init__(self, per: float) -> None:
        self.per = per
        self.most = 0
        self.at = 0.0
        self.in_service = 0
        self._left: deque[float] = deque()

    def arrive(self, now: float) -> None:
        """Count one arrival; times never go back."""
        self.in_service += 1
        left = self._left
        edge = now - self.per
        while left and left[0] <= edge:
            left.popleft()
        if self.in_service + len(left) > self.most:
            self.most = self.in_service + len(left)
            self.at = edge

    def leave(self, now: float) -> None:
        """End the service of one request: answered, reset, or its client gone."""
        self.in_service -= 1
        self._left.append(now)
