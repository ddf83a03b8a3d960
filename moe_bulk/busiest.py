"""When requests left: the window that held the most of them, and how much of the limit they made use of."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


class Busiest:
    """The window of `per` seconds, wherever it starts, that held the most requests; it holds one window's times."""

    def __init__(self, per: float, count: int = 0, at: float | None = None) -> None:
        self.count = count
        self.at = at
        self._per = per
        self.recent: deque[float] = deque()

    def add(self, *times: float) -> None:
        """Count requests sent at these seconds; those before one that claim to be later were sent with it, too."""
        recent, per, most = self.recent, self._per, self.count
        for at in times:
            if recent and at < recent[-1]:
                self.recent = recent = deque(min(each, at) for each in recent)
                self.at = min(self.at or 0.0, at)
            recent.append(at)
            while at - recent[0] >= per:
                recent.popleft()
            if len(recent) > most:
                most, self.at = len(recent), recent[0]
        self.count = most


@dataclass(slots=True)
class Span:
    """One session's requests, in boot-clock seconds, and the limit's `pace` in requests a second."""

    pace: float
    requests: int = 0
    first: float = 0.0
    last: float = 0.0

    def add(self, *times: float) -> None:
        """Count requests that left at these seconds."""
        if not times:
            return
        self.first = min(*times, times[0] if not self.requests else self.first)
        self.last = max(*times, self.last)
        self.requests += len(times)

    @property
    def gaps(self) -> int:
        """Gaps between them."""
        return max(0, self.requests - 1)

    @property
    def possible(self) -> float:
        """As many gaps as there could have been between the first and the last."""
        return (self.last - self.first) * self.pace
