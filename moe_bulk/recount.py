"""Count a run's result lines anew, knowing nothing but the lines: how many of which, each once, and the busiest window.

Lines stand in the order in which rows settled, so all that needs an order is sorted in pieces, beside the lines: the
memory is bounded, and 8 bytes for each row, each request and each failure go to temporary files.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from contextlib import ExitStack
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

from moe_bulk.causes import Causes
from moe_bulk.latency import Latency
from moe_bulk.outcome import FAILED, Result, Status
from moe_bulk.settled import ITEM_BITS, key
from moe_bulk.spill import IN_MEMORY, Sorted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.outcome import Attempt

_MICRO = 1_000_000
_ROUNDED = 2
"""Microseconds by which a distance of two times can be off: both were rounded."""
_LATEST = 2**62
_STATUSES = tuple(sorted(FAILED))
_LINES = 1 << 44
_TOLD = 5
"""Contradictions of one kind that are named; the others are counted."""


class Busiest(NamedTuple):
    """The window that held the most requests: `least` and `most` differ where rounding leaves it open.

    `at` is where it begins, in epoch seconds.
    """

    least: int = 0
    most: int = 0
    at: float | None = None


class Span:
    """The first and the last of some times; before there is one, `first` is later than `last`."""

    def __init__(self) -> None:
        self.first, self.last = math.inf, -math.inf

    def add(self, at: float) -> None:
        """Take one in."""
        self.first, self.last = min(self.first, at), max(self.last, at)


class Faults:
    """What cannot be, by kind; of each kind the first few are named."""

    def __init__(self) -> None:
        self._said: dict[str, list[str]] = {}
        self._count: Counter[str] = Counter()

    def add(self, kind: str, said: str = "") -> None:
        """Note one."""
        self._count[kind] += 1
        if self._count[kind] <= _TOLD:
            self._said.setdefault(kind, []).append(said)

    def told(self) -> list[str]:
        """Each kind in one line, with its first examples."""
        return [self._line(kind, named) for kind, named in self._said.items()]

    def _line(self, kind: str, named: list[str]) -> str:
        examples = "; ".join(filter(None, named))
        more = self._count[kind] - len(named)
        return f"{kind}{': ' if examples else ''}{examples}{f'; and {more:,} more' if more else ''}"


class Recount:
    """The numbers of a run as its result lines tell them; `add` them in any order, and ask when all are in.

    Use it as a context manager: it has temporary files.
    """

    def __init__(self, in_memory: int = IN_MEMORY, window: tuple[float, float] | None = None) -> None:
        self.statuses: Counter[Status] = Counter()
        self.tries = self.retries = self.attempts = self.untold = 0
        self.sent = Span()
        """From the first request to the last, in epoch seconds."""
        self.at = Span()
        """The same in seconds of the boot clock, which is one clock only within one session."""
        self.settled_at = 0.0
        """When the last row settled, epoch seconds."""
        self.within = (0, 0)
        """Requests in the `window` (from epoch second to epoch second): surely, and where rounding leaves it open."""
        self._window = window
        self.latency = Latency()
        self.causes = Causes()
        self.faults = Faults()
        self._last: dict[int, int] = {}
        """The last request by the clock that told when, in microseconds; clocks go by the epoch ms of their zero."""
        self._stack = ExitStack()
        self._rows = self._stack.enter_context(Sorted[str](in_memory))
        self._failed = self._stack.enter_context(Sorted[str](in_memory))
        self._times = self._stack.enter_context(Sorted[int](in_memory))

    @property
    def lines(self) -> int:
        """Results that were counted."""
        return self.statuses.total()

    @property
    def failed(self) -> int:
        """Results that need a dead letter."""
        return sum(self.statuses[status] for status in FAILED)

    def add(self, result: Result, line: int, since: float = 0.0) -> None:
        """Count the result that stands in this line of the file; of its attempts, for the window, those `since` then.

        Raises ValueError where no row can stand where it says.
        """
        self._rows.add(result.position.source, key(result.position))
        self.statuses[result.status] += 1
        self.tries += result.tries
        self.retries += max(0, result.tries - 1)
        self.untold += max(0, result.tries - len(result.attempts))
        if result.failed:
            self.causes.add(result)
            self._failed.add(result.position.source, _letter(result.position.line, result.position.item, result.status))
        self.settled_at = max(self.settled_at, result.settled_at)
        self._check(result, line)
        for attempt in result.attempts:
            self.attempts += 1
            if attempt.error is None:
                self.latency.add(attempt.ms)
            self.sent.add(attempt.sent)
            self.at.add(attempt.at)
            self._place(attempt.sent)
            if attempt.sent >= since:
                self._time(attempt, line)

    def _place(self, sent: float) -> None:
        if self._window is not None:
            begin, end = self._window
            surely, maybe = self.within
            off = _ROUNDED / _MICRO
            self.within = surely + (begin + off <= sent < end - off), maybe + (begin - off <= sent < end + off)

    def _time(self, attempt: Attempt, line: int) -> None:
        at = round(attempt.at * _MICRO)
        if 0 <= at < _LATEST:
            zero = round((attempt.sent - attempt.at) * 1_000)
            self._times.add(zero, at)
            if at > self._last.get(zero, 0):
                self._last[zero] = at
        else:
            self.faults.add("a time that no clock shows", f"line {line:,}")

    def _check(self, result: Result, line: int) -> None:
        """What must hold within one line: its attempts follow each other, the last of them ended before it settled."""
        attempts = result.attempts
        if len(attempts) > result.tries:
            self.faults.add("more attempts than tries", f"line {line:,}")
        if any(_ends(one) > other.at + 1e-3 for one, other in pairwise(attempts)):
            self.faults.add("attempts of one row that overlap", f"line {line:,}")
        if attempts and attempts[-1].sent + attempts[-1].ms / 1_000 > result.settled_at + 1e-3:
            self.faults.add("an attempt that ended after its row settled", f"line {line:,}")
        if result.status is Status.ACCEPTED and (not attempts or attempts[-1].http_status != 200):
            self.faults.add("a row that is accepted, and its last attempt was not", f"line {line:,}")

    def twice(self) -> Iterator[tuple[str, int, int, int]]:
        """Rows that have more than one result: source, offset, item and how many."""
        for source in self._rows.names():
            for row, found in groupby(self._rows.under(source)):
                count = sum(1 for _ in found)
                if count > 1:
                    yield source, row >> ITEM_BITS, row & (1 << ITEM_BITS) - 1, count

    def letters(self, letters: Letters) -> Iterator[tuple[str, int, str, bool]]:
        """Where failed rows and dead letters differ: source, line, status, and whether it is the letter that lacks."""
        for source in dict.fromkeys([*self._failed.names(), *letters.rows.names()]):
            failed = ((row, True) for row in self._failed.under(source))
            written = ((row, False) for row in letters.rows.under(source))
            for row, group in groupby(heapq.merge(failed, written), lambda each: each[0]):
                sides = [is_failed for _, is_failed in group]
                if 2 * sum(sides) != len(sides):
                    yield source, row >> 2 >> ITEM_BITS, _STATUSES[row & 3], 2 * sum(sides) > len(sides)

    # -- time ------------------------------------------------------------------------------------------------------

    def clocks(self) -> int:
        """How many processes' clocks the attempts tell of: each was set once, when its process began."""
        zeros = sorted(self._times.names())
        return sum(1 for number, zero in enumerate(zeros) if number == 0 or zero - zeros[number - 1] > 1)

    @property
    def spread(self) -> float:
        """Seconds by which the clocks differ as to when their zero was: little where none was set meanwhile."""
        zeros = self._times.names()
        return (max(zeros) - min(zeros)) / 1_000 if zeros else 0.0

    def busiest(self, per: float) -> Busiest:
        """The window of `per` seconds that held the most requests; within one boot, whose clock never goes back."""
        found = Busiest()
        for boot in self._boots():
            here = self._busiest(boot, per)
            found = max(found, here, key=lambda each: each.most)
        return found

    def _boots(self) -> list[list[int]]:
        """The clocks of each boot together: a machine started after everything that was sent before it did."""
        boots: list[list[int]] = []
        until = -1.0
        for zero in sorted(self._times.names()):
            last = zero / 1_000 + self._last.get(zero, 0) / _MICRO
            if not boots or zero / 1_000 > until:
                boots.append([])
            boots[-1].append(zero)
            until = max(until, last)
        return boots

    def _busiest(self, zeros: list[int], per: float) -> Busiest:
        length = round(per * _MICRO)
        surely, maybe = _Window(length - _ROUNDED), _Window(length + _ROUNDED)
        for at, zero in heapq.merge(*map(self._told_by, zeros)):
            surely.add(at, zero)
            maybe.add(at, zero)
        at, zero = maybe.began
        return Busiest(surely.count, maybe.count, round(at / _MICRO + zero / 1_000, 3))

    def _told_by(self, zero: int) -> Iterator[tuple[int, int]]:
        return ((at, zero) for at in self._times.under(zero))

    def close(self) -> None:
        """Give the room back."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Window:
    """The most times within `length` microseconds, of times that ascend."""

    def __init__(self, length: int) -> None:
        self.count = 0
        self.began = (0, 0)
        self._length = length
        self._recent: deque[tuple[int, int]] = deque()

    def add(self, at: int, zero: int) -> None:
        self._recent.append((at, zero))
        while at - self._recent[0][0] >= self._length:
            self._recent.popleft()
        if len(self._recent) > self.count:
            self.count, self.began = len(self._recent), self._recent[0]


class Letters:
    """The dead letters, as their notes tell them; use it as a context manager."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self.count = 0
        self.rows: Sorted[str] = Sorted(in_memory)

    def add(self, note: object) -> None:
        """Count one by its note; ValueError where it is none."""
        match note:
            case {"source": str(source), "line": int(line), "item": int(item), "status": str(status)}:
                self.rows.add(source, _letter(line, item, Status(status)))
                self.count += 1
            case _:
                raise ValueError("it has no note of ours")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rows.close()


def _letter(line: int, item: int, status: Status) -> int:
    """A failed row and what it came to as one number."""
    if status not in FAILED or not (0 <= line < _LINES and 0 <= item < 1 << ITEM_BITS):
        raise ValueError("no row can fail so")
    return (line << ITEM_BITS | item) << 2 | _STATUSES.index(status)


def _ends(attempt: Attempt) -> float:
    return attempt.at + attempt.ms / 1_000
