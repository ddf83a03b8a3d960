"""What partitions have in common, found by a small sample of each: customers, and whatever else orders rows."""

from __future__ import annotations

import heapq
import struct
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = 2_048
"""Hashes that a partition tells of: 16 KB. So many different keys are compared exactly, more by this sample of them."""

_SPACE = 1 << 64


@dataclass(frozen=True, slots=True)
class Sample:
    """The smallest hashes of a partition's keys, ascending, each of eight bytes; `whole` where they are all there are.

    They are kept packed: a driver may hold those of thousands of partitions.
    """

    packed: bytes = b""
    whole: bool = True

    @property
    def hashes(self) -> tuple[int, ...]:
        """The hashes as numbers."""
        return struct.unpack(f">{len(self.packed) // 8}Q", self.packed)


class Sampler:
    """Takes in keys, as often as they come, and keeps the `kept` smallest different hashes of them.

    A hash is in the sample of each partition that has the key, or of none, once it is small enough: so samples can be
    compared, which random ones cannot.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._largest_first: list[int] = []
        self._known: set[int] = set()
        self._whole = True

    def add(self, key: str) -> None:
        """One more key."""
        said = key.encode("utf-8", "surrogatepass")
        value = int.from_bytes(blake2b(said, digest_size=8).digest(), "big")
        if value in self._known:
            return
        if len(self._known) < self._kept:
            heapq.heappush(self._largest_first, -value)
        elif value < -self._largest_first[0]:
            self._known.remove(-heapq.heapreplace(self._largest_first, -value))
            self._whole = False
        else:
            self._whole = False
            return
        self._known.add(value)

    def sample(self) -> Sample:
        """What was kept."""
        return Sample(struct.pack(f">{len(self._known)}Q", *sorted(self._known)), self._whole)


@dataclass(frozen=True, slots=True)
class InCommon:
    """How many keys stand in more than one partition; an estimate, where there were more than samples hold."""

    keys: int = 0
    exact: bool = True

    def __str__(self) -> str:
        return f"{self.keys:,}" if self.exact else f"about {self.keys:,}"


def in_common(samples: Sequence[Sample]) -> InCommon:
    """Count the keys that more than one of the samples has.

    Below the smallest end of those that were cut every sample is complete. So that part is counted, and the rest is as
    many times larger as hashes are spread evenly. A few shared keys among very many may be missed.
    """
    cut = [sample.hashes[-1] for sample in samples if not sample.whole]
    below = min(cut, default=_SPACE - 1)
    counted = Counter(value for sample in samples for value in sample.hashes if value <= below)
    shared = sum(times > 1 for times in counted.values())
    return InCommon(shared if not cut else round(shared * _SPACE / (below + 1)), not cut)
