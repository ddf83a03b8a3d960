"""Show a run while it goes on: at the foot of a terminal, as a line every 15 s elsewhere, as JSON for machines."""

from __future__ import annotations

import logging
import os
import textwrap
from typing import TYPE_CHECKING, Literal, Protocol

import anyio
import orjson

from moe_bulk.amounts import duration, size
from moe_bulk.chronicle import tell
from moe_bulk.screen import Screen, Stream
from moe_bulk.waiting import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from moe_bulk.meter import Meter


Mode = Literal["auto", "bar", "plain", "json", "log", "none"]

LOOK_SECONDS = 1
PLAIN_SECONDS = 15
BAR_SECONDS = 0.5
WIDEST_BAR, NARROWEST_BAR = 30, 5
UNICODE_JOINT, ASCII_JOINT = " · ", " - "
ONE_LINE = 60
"""Columns from which on all that is said of the way stands beside the bar."""

REASONS: Mapping[Waits | None, str] = {
    Waits.STOP: "stopping: taking in what is on its way",
    Waits.OUTAGE: "MoEngage does not answer: one row at a time asks whether it is back",
    Waits.PAUSE: "paused, as MoEngage asked (429)",
    Waits.REDIS: "waiting for the Redis server that keeps the pace",
    Waits.LATENCY: "waiting for answers: no more requests may be in flight",
    Waits.PACE: "at the limit's pace",
    Waits.USER: "waiting for single users, who were sent 90 % of what MoEngage allows them",
    Waits.ORDER: "in order: rows wait behind earlier ones of the same device, token or advertising id",
    Waits.RETRY: "waiting until rows that failed are due again",
    Waits.ANSWERS: "everything is sent: waiting for the last answers",
    Waits.ROWS: "waiting for rows from the source",
    Waits.END: "every row is settled: putting the dead letters in order",
    Waits.DISK: "waiting for the disk: writing results takes most of the time",
    None: "as fast as this machine goes",
}
_ALARMING = (Waits.OUTAGE, Waits.PAUSE, Waits.REDIS, Waits.STOP, Waits.DISK)


class Terminal(Stream, Protocol):
    """A stream that may be a terminal."""

    def isatty(self) -> bool:
        """True for a terminal."""

    @property
    def encoding(self) -> str:
        """What it can show."""


def resolved(mode: Mode, stream: Terminal) -> Mode:
    """The mode that it comes to: a bar only on a terminal that can move its cursor."""
    if mode not in ("auto", "bar"):
        return mode
    return "bar" if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "") else "plain"


def _joint(stream: Terminal) -> str:
    """What stands between the parts of a line; where it shows ASCII only, the bar is drawn in ASCII, too."""
    return UNICODE_JOINT if "utf" in stream.encoding.lower() else ASCII_JOINT


# -- in words ----------------------------------------------------------------------------------------------------------


def reason(meter: Meter) -> str:
    """Why the run goes no faster, for people."""
    waits_for, share = meter.waits_for, meter.view.pace_share
    if waits_for is Waits.PACE and share < 0.995:
        return f"slower since MoEngage said 429: at {share:.0%} of the limit"
    return REASONS[waits_for]


def _way(meter: Meter) -> list[str]:
    """How far it is, and how long still."""
    (done, total), share = meter.view.bytes_read, meter.share
    settled = f"{meter.view.tally.settled_rows:,} rows"
    said = [settled] if share is None else [f"{share:.1%}"]
    if share is not None and total:
        said.append(f"{size(share * total)} of {size(total)}")
    elif share is None and done:
        said.append(f"{size(done)} read")
    if (left := meter.seconds_left) is not None:
        said.append(f"{_rough(left)} left")
    return said


def _rough(seconds: float) -> str:
    """A time that does not jump about: whole minutes from two on, steps of five seconds below."""
    return duration(round(seconds / 60) * 60) if seconds >= 120 else f"{max(5, round(seconds / 5) * 5)} s"


def _speed(meter: Meter) -> list[str]:
    """How fast it goes."""
    rate = meter.view.rate
    named = {1.0: "s", 60.0: "min", 3600.0: "h"}.get(rate.per) or f"{rate.per:g} s"
    said = [f"{meter.per_second * rate.per:,.0f} of {rate.limit:,}/{named}", f"{meter.view.in_flight:,} in flight"]
    median, most = meter.latency_ms
    if median is not None and most is not None:
        said.append(f"{median:,.0f} ms (95 %: {most:,.0f} ms)")
    return said


def _rows(meter: Meter) -> list[str]:
    """What became of the rows."""
    counts, view = meter.view.tally.counts, meter.view
    said = [f"{count:,} {name}" for name, count in counts.items() if count and name not in ("read", "unsettled")]
    said = said or ["0 settled"]
    return [*said, f"{view.retrying:,} to retry"] if view.retrying else said


def line(meter: Meter, joint: str = UNICODE_JOINT) -> str:
    """All of it in one line."""
    return joint.join([*_way(meter), *_rows(meter), *_speed(meter), reason(meter)])


def picture(meter: Meter, width: int, joint: str = UNICODE_JOINT, *, colours: bool = False) -> list[str]:
    """What is painted on a terminal: lines of at most `width` columns, their parts joined by `joint`."""

    def coloured(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colours else text

    way, share, width = _way(meter), meter.share, max(1, width)
    lines: list[str] = []
    beside = 1 if width < ONE_LINE else len(way)
    said = "  ".join(way[:beside])
    long = min(WIDEST_BAR, width - len(said) - 2)
    if share is not None and long >= NARROWEST_BAR:
        full, way = round(share * long), way[beside:]
        done, left = ("#", "-") if joint == ASCII_JOINT else ("━", "─")
        lines.append(f"{coloured('36', done * full)}{coloured('2', left * (long - full))}  {said}")
    for pieces in (way, _speed(meter), _rows(meter)):
        lines += _filled(pieces, width, joint)
    code = "33" if meter.waits_for in _ALARMING else "2"
    why = reason(meter)
    lines += [coloured(code, each) for each in textwrap.wrap(why[:1].upper() + why[1:], width)]
    return lines


def _filled(pieces: Sequence[str], width: int, joint: str) -> list[str]:
    """The pieces in as few lines as hold them; none is broken, but cut where it is longer than a line."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + len(joint) + len(piece) <= width:
            lines[-1] += joint + piece
        else:
            lines.append(piece[:width])
    return lines


# -- while it goes on --------------------------------------------------------------------------------------------------


async def show(meter: Meter, mode: Mode, stream: Terminal, screen: Screen, epoch: Callable[[], float]) -> None:
    """Show the run until cancelled: on the screen with `bar`, on the stream else. `epoch` tells the time of day."""
    if mode == "bar":
        await _paint(meter, stream, screen)
    elif mode == "json":
        await _tell(meter, stream, lambda: orjson.dumps(meter.snapshot(epoch())).decode())
    elif mode == "log":
        await _tell(meter, stream, lambda: _log(meter, epoch()))
    elif mode == "plain":
        joint = _joint(stream)
        await _tell(meter, stream, lambda: line(meter, joint))


def _log(meter: Meter, epoch: float) -> str:
    fields = {name: value for name, value in meter.snapshot(epoch).items() if name not in ("format", "run_id", "at")}
    tell(logging.INFO, "progress", line(meter, ASCII_JOINT), fields, meter.view.run_id)
    return ""


async def _tell(meter: Meter, stream: Terminal, told: Callable[[], str]) -> None:
    while True:
        meter.look(anyio.current_time())
        for _ in range(PLAIN_SECONDS // LOOK_SECONDS):
            await anyio.sleep(LOOK_SECONDS)
            meter.look(anyio.current_time())
        if stream.ready and (said := told()):  # where nobody reads, the run does not wait for that
            stream.write(said + "\n")
            stream.flush()


async def _paint(meter: Meter, stream: Terminal, screen: Screen) -> None:
    colours = not os.environ.get("NO_COLOR")
    while True:
        meter.look(anyio.current_time())
        screen.paint(picture(meter, screen.size.columns - 1, _joint(stream), colours=colours))
        await anyio.sleep(BAR_SECONDS)
