"""Reservations of a limit that processes on many machines share: what a process asks Redis, and what it is told.

The arithmetic is done by a script at the server, `reservations.lua`, on one small hash for each destination and
workspace. It grants slots, each for a moment of the server's clock: `due`. Here is why the limit holds.

A request with the slot `due` is sent at `due` or later, and the service receives it by its *end*: the moment of its
answer, or as long as there is none the latest that is possible, `due` + `LATE` + timeout + `GRACE`. The hash counts
requests by their ends. A slot is granted only where fewer than `limit` of those granted before have an end later than
`due` - window. Now take any window, all requests that the service can have received in it, and of these the one whose
slot was granted last. Its `due` lies before the window's end, the ends of the others behind the window's beginning: so
they were counted when it was granted, and together they are no more than `limit`.

Whoever dies leaves ends that pass by themselves. A hash that lost what it knew (the server was restarted or emptied, an
older state came back, its clock was set) begins a new life and grants nothing until all has passed that may have been
sent before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from importlib import resources
from typing import TYPE_CHECKING

from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moe_bulk.config import Rate

LATE = 1.0
"""Seconds that a slot is good for; who comes later drops it."""

SCHEDULED = 0.98
"""The share of the limit that is granted at most, as the script has it."""

STALE = 10.0
"""Seconds without a sign of a process after which it counts as killed or cut off, as the script has it."""

HEARTBEAT = 3.0
"""Seconds after which a process that needs nothing gives a sign all the same."""

LEAVES = -1
"""What a process wants that wants no more."""

_MICRO = 1_000_000


def horizon(per: float) -> float:
    """How many seconds ahead slots are granted at most, as the script has it."""
    return max(per / 12, 1.0)


def micros(seconds: float) -> int:
    """Seconds as whole microseconds, rounded up."""
    return math.ceil(seconds * _MICRO)


@cache
def script() -> str:
    """The script's text."""
    return resources.files("moe_bulk.pacing").joinpath("reservations.lua").read_text("utf-8")


def key_of(address: str, workspace_id: str) -> str:
    """The hash's name for a destination (`host:port`) and a workspace, which it does not tell."""
    return f"moe-bulk:pace:{blake2b(f'{address} {workspace_id}'.encode(), digest_size=12).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a process is held to: its rate, how long a request may take, and what it does while Redis is away.

    `share` is how many processes take an equal part of the limit then, 0 where none sends; `away` for how many seconds
    at most they do so.
    """

    member: str
    rate: Rate
    timeout: float
    share: int = 0
    away: float = 0.0

    @property
    def hold(self) -> float:
        """Seconds that a request counts after its end: the window, by the slowest clock."""
        return self.rate.per * (1 + CLOCK_MARGIN)

    @property
    def tail(self) -> float:
        """Seconds from a slot's moment to the latest end that its request can have."""
        return LATE + self.timeout + GRACE

    @property
    def whole(self) -> float:
        """Seconds after which whatever was sent by what was granted before has passed."""
        return self.hold + self.tail + horizon(self.rate.per)

    @property
    def silence(self) -> float:
        """Seconds from the last word with Redis until one may go on alone: by then the others have made room."""
        return STALE + self.whole


@dataclass(frozen=True, slots=True)
class Report:
    """What became of slots: how many requests more, or fewer, end in which bin, and how many slots came to nothing.

    By its number it counts once, however often it is told.
    """

    number: int
    bins: Mapping[int, int] = field(default_factory=dict)
    unused: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One question: how many slots are wanted, and what there is to report: all that is not known to have arrived.

    `generation` and `turn` tell which life of the hash, and which state of it, the process knows. `quiet` is how many
    seconds ago something was last sent, None where nothing ever was. `again` says why the hash cannot be believed.
    """

    generation: str = ""
    turn: int = 0
    want: int = 0
    reports: tuple[Report, ...] = ()
    quiet: float | None = None
    again: str = ""

    def words(self, terms: Terms) -> list[str | int]:
        """The script's arguments, the key excluded."""
        told: list[int] = []
        for report in self.reports:
            told += (report.number, report.unused, len(report.bins))
            told += (number for each in report.bins.items() for number in each)
        away = micros(terms.away) if terms.share else 0
        quiet = -1 if self.quiet is None else math.floor(self.quiet * _MICRO)
        return [
            terms.member,
            self.generation,
            self.turn,
            terms.rate.limit,
            micros(terms.rate.per),
            micros(terms.hold),
            micros(terms.tail),
            terms.share,
            away,
            self.want,
            quiet,
            self.again,
            *told,
        ]


@dataclass(frozen=True, slots=True)
class Run:
    """Slots in a row: `count` of them, due evenly from `first` to `last`, seconds of the server's clock.

    They count in `bin` until something else is reported of them.
    """

    first: float
    last: float
    count: int
    bin: int


@dataclass(frozen=True, slots=True)
class Granted:
    """An answer; times are seconds of the server's clock, `now` is when it was given.

    `begun` says why the hash has just begun a new life, where it has. `limit` is what all together may send in a window
    now, `peers` how many are at work, `width` that of a bin. Nothing is granted before `blocked`; where nothing was, it
    is worth asking again at `retry`. `tail` is the longest of those at work.
    """

    now: float
    generation: str
    turn: int
    begun: str
    width: float
    limit: int
    peers: int
    blocked: float
    retry: float
    tail: float
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherWindow:
    """A refusal: those at work keep to windows of another length, `per` seconds."""

    per: float
    limit: int


Reply = Granted | OtherWindow


class Garbled(ValueError):
    """Whoever answered is no script of ours."""


def understood(answer: object) -> Reply:
    """The answer as the server's client hands it over; raises Garbled."""
    try:
        words = [_text(each) for each in answer]  # type: ignore[attr-defined]
        if words[0] == "per":
            return OtherWindow(int(words[5]) / _MICRO, int(words[6]))
        return _granted(words)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise Garbled(f"it answers nonsense ({type(error).__name__})") from None


def _granted(words: Sequence[str]) -> Granted:
    if words[0] != "ok" or len(words) < 11 or (len(words) - 11) % 4:
        raise ValueError(words[0])
    numbers = [int(each) for each in words[11:]]
    runs = tuple(
        Run(numbers[at] / _MICRO, numbers[at + 1] / _MICRO, numbers[at + 2], numbers[at + 3])
        for at in range(0, len(numbers), 4)
    )
    if any(each.count < 1 or each.last < each.first for each in runs) or int(words[5]) < 1:
        raise ValueError("no slots")
    return Granted(
        now=int(words[1]) / _MICRO,
        generation=words[2],
        turn=int(words[3]),
        begun=words[4],
        width=int(words[5]) / _MICRO,
        limit=int(words[6]),
        peers=int(words[7]),
        blocked=int(words[8]) / _MICRO,
        retry=int(words[9]) / _MICRO,
        tail=int(words[10]) / _MICRO,
        runs=runs,
    )


def _text(word: object) -> str:
    if isinstance(word, bytes):
        return word.decode()
    if not isinstance(word, str):
        raise TypeError(type(word).__name__)
    return word
