"""Axes of a plot: which ticks make sense, what they are called, and where something lies between them."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
_STEPS = (
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(count * MINUTE for count in (1, 2, 5, 10, 15, 30)),
    *(count * HOUR for count in (1, 2, 3, 6, 12)),
    *(count * DAY for count in (1, 2, 7, 14, 28, 56, 112, 224, 448)),
)
"""Seconds from one tick of a time axis to the next."""

MOST_SPANS = 5
LEAST_GAP = 30.0
"""Seconds without anything that are worth an interruption of the axis."""
BREAK = 22.0
"""Units that an interruption takes."""
LEAST_SPAN = 10.0


def ticks(highest: float, about: int = 4) -> list[float]:
    """Round numbers from 0 to at least `highest`, `about` so many steps.

    >>> ticks(167)
    [0.0, 50.0, 100.0, 150.0, 200.0]
    """
    rough = max(highest, 1e-9) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough * 0.999)
    return [round(number * step, 9) for number in range(math.ceil(highest / step - 1e-9) + 1)]


def number(value: float) -> str:
    """`0.5`, `1,500`, `20k`, `3M`: a tick's label."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):,.4g}{letter}"
    return f"{value:,.4g}" if value < 1_000 else f"{value:,.0f}"


def clock_time(epoch: float, *, seconds: bool = True) -> str:
    """`17:05:30`, in UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%H:%M:%S" if seconds else "%H:%M")


def day(epoch: float) -> str:
    """`25 Nov`, in UTC."""
    found = datetime.fromtimestamp(epoch, UTC)
    return f"{found.day} {found:%b}"


def moment(epoch: float) -> str:
    """`2026-11-25 17:05:30Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time without a gap, in epoch seconds, and where it lies on the axis."""

    begin: float
    end: float
    left: float = 0.0
    right: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the time axis: where, the time of day, and the date where it is another one than before."""

    x: float
    label: str
    date: str = ""


def spans_of(pieces: Sequence[tuple[float, float]]) -> list[Span]:
    """The pieces of time, ascending, as few spans: only what is long beside the rest is a gap between two."""
    busy = sum(end - begin for begin, end in pieces)
    gaps = [(after[0] - before[1], number) for number, (before, after) in enumerate(pairwise(pieces), 1)]
    wide = sorted((gap for gap in gaps if gap[0] >= max(LEAST_GAP, 0.1 * busy)), reverse=True)[: MOST_SPANS - 1]
    cuts = [0, *sorted(number for _, number in wide), len(pieces)]
    return [Span(pieces[first][0], pieces[last - 1][1]) for first, last in pairwise(cuts)] if pieces else []


class TimeAxis:
    """Epoch seconds from left to right, gaps between sessions left out.

    >>> axis = TimeAxis([(0.0, 50.0), (50.0, 100.0)], 0.0, 200.0)
    >>> axis.x(25.0)
    50.0
    """

    def __init__(self, pieces: Sequence[tuple[float, float]], left: float, right: float) -> None:
        found = spans_of(pieces)
        self.left, self.right = left, right
        room = right - left - BREAK * (len(found) - 1)
        least = min(LEAST_SPAN, room / max(1, len(found)))
        total = sum(each.seconds for each in found) or 1.0
        widths = [max(least, room * each.seconds / total) for each in found]
        scale = room / (sum(widths) or 1.0)
        self.spans: list[Span] = []
        for span, width in zip(found, widths, strict=True):
            self.spans.append(Span(span.begin, span.end, left, left + width * scale))
            left += width * scale + BREAK

    def x(self, epoch: float) -> float:
        """Where a moment lies; one within a gap at the end of the span before it."""
        at = max(0, bisect_right([span.begin for span in self.spans], epoch) - 1)
        span = self.spans[at]
        inside = min(max(epoch, span.begin), span.end)
        return span.left + (inside - span.begin) / (span.seconds or 1.0) * (span.right - span.left)

    def breaks(self) -> list[tuple[float, float]]:
        """Where the axis is interrupted, and for how many seconds."""
        return [(before.right + BREAK / 2, after.begin - before.end) for before, after in pairwise(self.spans)]

    def ticks(self, apart: float = 80.0) -> list[Tick]:
        """Marks at round times of day, at least `apart` units from each other; one at each span's beginning."""
        seconds = sum(span.seconds for span in self.spans)
        units = sum(span.right - span.left for span in self.spans)
        step = next((each for each in _STEPS if each * units >= apart * seconds), _STEPS[-1])
        fine, found, last, date = step < MINUTE, [], -math.inf, ""
        for number, span in enumerate(self.spans):
            times = [math.ceil(span.begin / step) * step + each * step for each in range(int(span.seconds / step) + 1)]
            times = [each for each in times if each <= span.end]
            if number or not times:
                times = [span.begin, *times]
            for time in times:
                x = self.x(time)
                if x - last < 0.8 * apart:
                    continue
                said = day(time)
                label = clock_time(time, seconds=fine or time % MINUTE != 0)
                found.append(Tick(x, label, said if said != date else ""))
                last, date = x, said
        return found
