"""Plots as inline SVG: what happened over time, and how values are distributed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_bulk.amounts import lasting
from moe_bulk.axis import TimeAxis, number, ticks
from moe_bulk.page import Markup, element, escaped, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

BROAD, NARROW = 860, 350
"""Units across a page and across a telephone: each plot is drawn for both, so that its text is never scaled."""

HEIGHT = 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 22, 36

STYLE = """
figure { margin: .75rem 0 1.25rem; }
figcaption { color: var(--quiet); font-size: .92rem; margin-top: .25rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; font: 12px system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", sans-serif; fill: var(--quiet); }
svg.narrow { display: none; }
@media screen and (max-width: 36rem) { svg.broad { display: none; } svg.narrow { display: block; } }
.grid { stroke: var(--line); stroke-width: 1; fill: none; }
.mark { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 4 3; fill: none; }
.limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; fill: none; }
.f0 { fill: var(--accent); } .f1 { fill: var(--second); } .f2 { fill: var(--bad); }
.f0, .f1, .f2, .pause, .outage { shape-rendering: crispEdges; }
.l0, .l1 { fill: none; stroke-width: 1.75; stroke-linejoin: round; } .l0 { stroke: var(--accent); }
.l1 { stroke: var(--second); }
.pause { fill: var(--warn); opacity: .22; } .outage { fill: var(--bad); opacity: .18; }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .35em 0 0; border-radius: 2px; }
.keys { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; font-size: .92rem; margin: .25rem 0; }
.k0 { background: var(--accent); } .k1 { background: var(--second); } .k2 { background: var(--bad); }
.kpause { background: var(--warn); opacity: .45; } .koutage { background: var(--bad); opacity: .4; }
@media print { .key { print-color-adjust: exact; -webkit-print-color-adjust: exact; } figure { break-inside: avoid; } }
"""
"""What a page with plots needs beside its own style."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time, in epoch seconds, and the values of the series in it; None where there is none."""

    begin: float
    end: float
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Shade:
    """A stretch of time that is marked: `kind` is `pause` or `outage`."""

    begin: float
    end: float
    kind: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Series over time: `bars` are stacked, else they are lines. `limit` is a line across, by time: (since, value)."""

    label: str
    unit: str
    pieces: Sequence[Piece]
    bars: bool = False
    shades: Sequence[Shade] = ()
    limit: Sequence[tuple[float, float]] = ()
    whole: bool = False
    """Values are whole numbers: there is no tick between two."""

    @property
    def highest(self) -> float:
        """The highest value that is shown."""
        values = (self._height(piece) for piece in self.pieces)
        return max([*values, *(value for _, value in self.limit), 1.0 if self.whole else 1e-6])

    def _height(self, piece: Piece) -> float:
        known = [value for value in piece.values if value is not None]
        return sum(known) if self.bars else max(known, default=0.0)


def over_time(plot: Plot) -> Markup:
    """The plot, once for a page and once for a telephone."""
    return _both(lambda width: _timed(plot, width), plot.label)


def _both(draw: Callable[[int], Markup], label: str) -> Markup:
    return joined(
        element(
            "svg",
            draw(width),
            viewBox=f"0 0 {width} {HEIGHT}",
            class_="broad" if width == BROAD else "narrow",
            role="img",
            aria_label=label,
        )
        for width in (BROAD, NARROW)
    )


def _timed(plot: Plot, width: int) -> Markup:
    axis = TimeAxis([(piece.begin, piece.end) for piece in plot.pieces], _LEFT, width - _RIGHT)
    marks = ticks(plot.highest, 4)
    if plot.whole:
        marks = [mark for mark in marks if mark == int(mark)]
    y = _upwards(marks[-1])
    shades = (_box(shade.kind, axis.x(shade.begin), axis.x(shade.end), _TOP, HEIGHT - _BOTTOM) for shade in plot.shades)
    draw = _bars if plot.bars else _lines
    return joined(
        [
            element("title", plot.label),
            *shades,
            _grid(marks, y, width, plot.unit),
            draw(plot.pieces, axis, y),
            _limit(plot.limit, axis, y),
            _times(axis, 78.0 if width == BROAD else 64.0),
        ]
    )


def _upwards(top: float) -> Callable[[float], float]:
    room = HEIGHT - _TOP - _BOTTOM
    return lambda value: round(HEIGHT - _BOTTOM - room * min(value / top, 1.0), 1)


def _grid(marks: Sequence[float], y: Callable[[float], float], width: int, unit: str) -> Markup:
    path = "".join(f"M{_LEFT} {_(y(mark))}H{width - _RIGHT}" for mark in marks)
    labels = (_text(_LEFT - 6, y(mark) + 4, number(mark), "end") for mark in marks)
    return joined([element("path", class_="grid", d=path), *labels, _text(0, 11, unit, "start")])


def _times(axis: TimeAxis, apart: float) -> Markup:
    found = axis.ticks(apart)
    bottom = HEIGHT - _BOTTOM
    path = "".join(f"M{_(tick.x)} {bottom}v5" for tick in found)
    labels: list[Markup] = [element("path", class_="grid", d=path)]
    for tick in found:
        side = "end" if tick.x > axis.right - 24 else "middle"
        labels.append(_text(tick.x, bottom + 17, tick.label, side))
        if tick.date:
            labels.append(_text(tick.x, bottom + 31, tick.date, side))
    for x, seconds in axis.breaks():
        said = element("title", f"nothing for {lasting(seconds)}")
        line = f"M{_(x - 5)} {bottom + 5}l4 -10M{_(x + 1)} {bottom + 5}l4 -10"
        labels.append(element("g", said, element("path", class_="grid", d=f"M{_(x)} {_TOP}V{bottom}"), _path(line)))
    return joined(labels)


def _path(d: str) -> Markup:
    return element("path", d=d, stroke="var(--quiet)", fill="none")


def _bars(pieces: Sequence[Piece], axis: TimeAxis, y: Callable[[float], float]) -> Markup:
    """One path a series; the first stands on the ground, each other one on those before it."""
    paths: list[list[str]] = [[] for _ in (pieces[0].values if pieces else ())]
    for piece in pieces:
        left, below = axis.x(piece.begin), 0.0
        right = max(axis.x(piece.end), left + 1.0)
        for path, value in zip(paths, piece.values, strict=True):
            if value:
                foot, head = y(below), y(below + value)
                head = min(head, foot - 1.0)  # what is there can be seen, beside a thousand times as much too
                path.append(f"M{_(left)} {_(foot)}V{_(head)}H{_(right)}V{_(foot)}z")
                below += value
    return joined(element("path", class_=f"f{at}", d="".join(path)) for at, path in enumerate(paths) if path)


def _lines(pieces: Sequence[Piece], axis: TimeAxis, y: Callable[[float], float]) -> Markup:
    """One line a series, in steps; it is interrupted where nothing is known."""
    count = len(pieces[0].values) if pieces else 0
    paths: list[list[str]] = [[] for _ in range(count)]
    for at, path in enumerate(paths):
        right: float | None = None
        for piece in pieces:
            value = piece.values[at]
            if value is None:
                continue
            left = axis.x(piece.begin)
            joins = right is not None and abs(left - right) < 0.05
            path.append(f"V{_(y(value))}" if joins else f"M{_(left)} {_(y(value))}")
            right = max(axis.x(piece.end), left + 1.0)
            path.append(f"H{_(right)}")
    return joined(element("path", class_=f"l{at}", d="".join(path)) for at, path in enumerate(paths) if path)


def _limit(limit: Sequence[tuple[float, float]], axis: TimeAxis, y: Callable[[float], float]) -> Markup:
    if not limit:
        return Markup()
    path = ""
    for at, (since, value) in enumerate(limit):
        left = axis.left if at == 0 else axis.x(since)
        path += f"{'M' if at == 0 else 'L'}{_(left)} {_(y(value))}"
        path += f"H{_(axis.x(limit[at + 1][0]) if at + 1 < len(limit) else axis.right)}"
    label = _text(axis.right, y(limit[-1][1]) - 5, "the limit", "end")
    return joined([element("path", class_="limit", d=path), label])


def distribution(counts: Sequence[tuple[float, float, int]], marks: Sequence[tuple[str, float]], label: str) -> Markup:
    """How many values lie from where to where, on a logarithmic axis in ms; `marks` are named values."""
    return _both(lambda width: _distributed(counts, marks, label, width), label)


def _distributed(
    counts: Sequence[tuple[float, float, int]], marks: Sequence[tuple[str, float]], label: str, width: int
) -> Markup:
    total = sum(count for *_, count in counts)
    shares = [100 * count / total for *_, count in counts]
    low, high = counts[0][0], counts[-1][1]
    if high / low < 4:  # a single bar would fill the plot, and tell nothing of how long a second is
        low, high = low / 2, high * 2
    x = _logarithmic(low, high, width)
    rows = ticks(max(shares), 4)
    y = _upwards(rows[-1])
    bars = "".join(
        f"M{_(x(begin))} {HEIGHT - _BOTTOM}V{_(min(y(share), HEIGHT - _BOTTOM - 1.0))}"
        f"H{_(max(x(end) - 0.6, x(begin) + 1))}V{HEIGHT - _BOTTOM}z"
        for (begin, end, _count), share in zip(counts, shares, strict=True)
    )
    parts = [element("title", label), _grid(rows, y, width, "% of the answers"), element("path", class_="f0", d=bars)]
    last = math.inf
    for row, (name, value) in enumerate(reversed(marks)):
        at = x(value)
        parts.append(element("path", class_="mark", d=f"M{_(at)} {_TOP}V{HEIGHT - _BOTTOM}"))
        below = 14 * row if last - at < 40 else 0
        parts.append(_text(at - 3, _TOP + 9 + below, name, "end"))
        last = at
    for value in _decades(low, high, 8 if width == BROAD else 5):
        parts.append(_text(x(value), HEIGHT - _BOTTOM + 17, _ms(value), "middle"))
        parts.append(element("path", class_="grid", d=f"M{_(x(value))} {HEIGHT - _BOTTOM}v5"))
    return joined(parts)


def _logarithmic(low: float, high: float, width: int) -> Callable[[float], float]:
    room = width - _RIGHT - _LEFT
    return lambda value: _LEFT + room * math.log(min(max(value, low), high) / low) / math.log(high / low)


def _decades(low: float, high: float, most: int) -> list[float]:
    for factors in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def _ms(value: float) -> str:
    return f"{value:g} ms" if value < 1_000 else f"{value / 1_000:,g} s"


def _box(class_: str, left: float, right: float, top: float, bottom: float) -> Markup:
    return element("rect", class_=class_, x=_(left), y=_(top), width=_(max(right - left, 1.5)), height=_(bottom - top))


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return element("text", text, x=_(x), y=_(y), text_anchor=anchor)


def _(value: float) -> str:
    """A coordinate in as few characters as a tenth of a unit takes."""
    return f"{value:.1f}".removesuffix(".0")


def keys(named: Iterable[tuple[str, str]]) -> Markup:
    """What the colors mean: `0` to `2` for the series, `pause` and `outage` for what is shaded."""
    swatches = (
        element("span", element("span", class_=f"key k{color}", aria_hidden="true"), escaped(name))
        for color, name in named
    )
    return element("p", *swatches, class_="keys")
