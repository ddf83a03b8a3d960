"""Moments of a window's requests, kept small: at 10,000 a second, a minute holds 600,000 of them."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SPARE = 1024
"""Moments, and a sixteenth of all, that may be past before their memory is used again."""


class Times:
    """Seconds in their order, eight bytes each: those in `kept` from `first` on; what stands before is past.

    Whoever uses it for each request does so without a call for each: `kept.append`, and `kept[first]` for the earliest.
    """

    __slots__ = ("first", "kept")

    def __init__(self, times: Iterable[float] = ()) -> None:
        self.kept = array("d", times)
        self.first = 0

    def __len__(self) -> int:
        """How many are not past."""
        return len(self.kept) - self.first

    @property
    def earliest(self) -> float:
        """The first that is not past; infinite where none is left."""
        return self.kept[self.first] if self.first < len(self.kept) else math.inf

    def begin_at(self, first: int) -> None:
        """Those before this place in `kept` are past; the others may have another place then."""
        if first > SPARE and first * 16 > len(self.kept):
            del self.kept[:first]
            first = 0
        self.first = first

    def clamp(self, at: float) -> None:
        """None of them is later than this."""
        self.kept = array("d", [min(each, at) for each in self.kept[self.first :]])
        self.first = 0
