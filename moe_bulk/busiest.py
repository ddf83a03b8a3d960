"""When requests left: the window that held the most of them, and how much of the limit they made use of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_bulk.times import Times

if TYPE_CHECKING:
    from collections.abc import Sequence


class Busiest:
    """The window of `per` seconds, wherever it starts, that held the most requests; it holds one window's times."""

    def __init__(self, per: float, count: int = 0, at: float | None = None) -> None:
        self.count = count
        self.at = at
        self._per = per
        self.recent = Times()

    def add(self, *times: float) -> None:
        """Count requests sent at these seconds; those before one that claim to be later were sent with it, too."""
        if self._add_at_once(times):
            return
        recent, per, most = self.recent, self._per, self.count
        kept, first = recent.kept, recent.first
        for at in times:
            if kept and at < kept[-1]:
                recent.begin_at(first)
                recent.clamp(at)
                kept, first = recent.kept, recent.first
                self.at = min(self.at or 0.0, at)
            kept.append(at)
            while at - kept[first] >= per:
                first += 1
            if len(kept) - first > most:
                most, self.at = len(kept) - first, kept[first]
        recent.begin_at(first)
        self.count = most

    def _add_at_once(self, times: Sequence[float]) -> bool:
        """The same where no request among them can tell more than the last one; False where each must be looked at."""
        recent, per = self.recent, self._per
        kept, first = recent.kept, recent.first
        if not times or (kept and times[0] < kept[-1]) or list(times) != sorted(times):
            return False
        count, last = len(recent) + len(times), times[-1]
        all_together = last - (kept[first] if first < len(kept) else times[0]) < per
        if count > self.count and not all_together:
            return False
        kept.extend(times)
        while last - kept[first] >= per:
            first += 1
        recent.begin_at(first)
        if count > self.count:
            self.count, self.at = count, recent.earliest
        return True


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
