"""How long answers took, in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections import Counter
from typing import Self

_MOST = 2**60
"""No count is larger: a restored one that is would make sums that JSON cannot hold."""


class Latency:
    """How long answers took, to 1 %, in some hundred numbers however many there are.

    A histogram of buckets that grow by 2 %, from 0.001 ms to 115 days (the sketch of https://arxiv.org/abs/1908.10693).
    """

    GROWTH = 1.02
    LEAST = 0.001
    MOST = 1e10
    _LOG_GROWTH = math.log(GROWTH)

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, *times: float) -> None:
        """Count answers by the milliseconds that they took."""
        if times and min(times) >= self.LEAST and max(times) <= self.MOST:  # as `_bucket`, without a call for each
            log, growth = math.log, self._LOG_GROWTH
            self._buckets.update([math.ceil(log(ms) / growth) for ms in times])
        else:
            self._buckets.update(map(self._bucket, times))

    def percentile(self, share: float) -> float | None:
        """The latency that this share of the answers did not exceed, in milliseconds; None without answers."""
        return self.ranked(math.ceil(share * self._buckets.total()))

    @property
    def count(self) -> int:
        """Answers that were counted."""
        return self._buckets.total()

    def ranked(self, rank: int) -> float | None:
        """The latency of the answer that so many, itself included, were not slower than; None where there is none."""
        left = max(1, rank)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                # the value that is equally far, in percent, from both ends of its bucket
                return 2 * self.GROWTH**bucket / (1 + self.GROWTH)
        return None

    def distribution(self, together: int = 1) -> list[tuple[float, float, int]]:
        """How many answers took from so many milliseconds to so many, ascending; so many buckets are told as one."""
        grouped: Counter[int] = Counter()
        for bucket, count in self._buckets.items():
            grouped[bucket // together] += count
        bounds = (
            (self.GROWTH ** (each * together - 1), self.GROWTH ** ((each + 1) * together - 1)) for each in grouped
        )
        return sorted((low, high, count) for (low, high), count in zip(bounds, grouped.values(), strict=True))

    def state(self) -> list[int]:
        """How many answers are in each bucket, from the lowest that there can be."""
        lowest, highest = self._bucket(0.0), max(self._buckets, default=self._bucket(0.0))
        return [self._buckets[bucket] for bucket in range(lowest, highest + 1)]

    @classmethod
    def restored(cls, state: list[int]) -> Self:
        """Go on counting from a `state`; raises ValueError for what is none."""
        self = cls()
        lowest = self._bucket(0.0)
        if len(state) > self._bucket(self.MOST) - lowest + 1 or not all(map(_is_count, state)):
            raise ValueError("the latencies are damaged")
        self._buckets.update({bucket: count for bucket, count in enumerate(state, lowest) if count})
        return self

    def _bucket(self, ms: float) -> int:
        if ms < self.LEAST:
            ms = self.LEAST
        elif ms > self.MOST:
            ms = self.MOST
        return math.ceil(math.log(ms) / self._LOG_GROWTH)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST
