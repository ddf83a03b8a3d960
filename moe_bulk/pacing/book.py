"""Which requests may still count in a window, for any number of processes: plain arithmetic over a few pages of bytes.

A request counts until one window after its *end*, the last moment at which the service can have received it: its
answer, or, as long as there is none, its timeout and some grace. Ends are counted in bins of a fraction of a second,
each rounded up to its bin's end, so that the book has one size whatever the limit, and a process that was killed leaves
nothing undecided: the ends of its requests stand there already, and pass.

Bins form a ring. Each length of a window that is in use has a line: how far its bins have passed, and how many
requests stand in the others. Several processes write one book, one at a time; whoever is killed while writing leaves a
mark, and the next counts the bins again. Each step on the way errs on the side of one request too many.
"""

from __future__ import annotations

import math
import struct
import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from moe_bulk.config import Rate

BINS = 65_536
BINS_A_WINDOW = 4096
"""A window is cut into at least so many: rounding an end up costs a 4,096th of the limit at most."""

WIDE = 2
"""Bins of up to 2 to the power of this times the width that suits a rate are fine enough for it."""

LINES = 8
MAGIC = b"moepace1"
_HEAD = struct.Struct("<8siIqdddd")
_LINE = struct.Struct("<dqqd")
_SUM = struct.Struct("<I")
_HEAD_SIZE = _HEAD.size + LINES * _LINE.size + _SUM.size
_MARK = struct.Struct("<I")
"""Stands directly behind the head, so that one write of both ends a change."""
_CHANGING, _WIDENING = 1, 2

BINS_AT = 32_768
"""Where the bins begin; between the head and them is room for the list of processes."""
_BIN = 4
SIZE = BINS_AT + BINS * _BIN

CREDIT = 0.25
"""Seconds of unused pace that may be caught up after a late wake-up."""


class Torn(ValueError):
    """The bytes are no book: damaged, cut off, or of another version."""


class Pages(Protocol):
    """Where a book is kept: bytes at offsets."""

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes; fewer where the pages have been cut off."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of it."""


@dataclass(slots=True)
class Line:
    """The account of one length of window: bins up to `cut` have passed, `held` requests stand in those behind it."""

    per: float
    cut: int
    held: int
    used_at: float


def exponent_for(rate: Rate, timeout: float) -> int:
    """The width of bins, as a power of two of a second, that serves windows of this length well."""
    return math.ceil(math.log2(max(rate.per / BINS_A_WINDOW, _horizon(rate.per, timeout) / (BINS - 2))))


def _horizon(per: float, timeout: float) -> float:
    """The longest time that an end can stand in the book before it has passed."""
    return _hold(per) + timeout + GRACE + 1.0


def _hold(per: float) -> float:
    return per * (1 + CLOCK_MARGIN)


class Book:
    """The book as one process sees it while nobody else writes: read it, ask and note, `save` it.

    All times are boot-clock seconds.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._changing = False
        self._known = b""
        self.exponent = 0
        self.width = 1.0
        self.front = 0
        """The newest bin that is in use; the ring holds those `BINS` up to it."""
        self.born = 0.0
        """When it was begun; of requests sent before it knows nothing."""
        self.generation = 0
        """Counts the comings and goings of processes."""
        self.next_turn = 0.0
        """When the next request's turn is, by the even pace of all."""
        self.blocked_until = 0.0
        """Until when nothing may be sent because what was sent before is not known."""
        self.known_since = 0.0
        """Ends before this moment have been overwritten."""
        self.lines: list[Line] = []

    @classmethod
    def blank(
        cls, pages: Pages, now: float, exponent: int, *, blocked_until: float = 0.0, known_since: float = 0.0
    ) -> Book:
        """Begin a new book in `pages`, which become all zeros but for its head."""
        book = cls(pages)
        pages.write(0, bytes(SIZE))
        book._set_width(exponent)
        book.front = book._passed(now)
        book.born = book.next_turn = now
        book.blocked_until, book.known_since = blocked_until, known_since
        book.save()
        return book

    def load(self) -> None:
        """Read what the others wrote since; raises Torn."""
        raw = self._pages.read(0, _HEAD_SIZE + _MARK.size)
        if raw == self._known:
            return
        head = raw[:_HEAD_SIZE]
        if len(raw) != _HEAD_SIZE + _MARK.size or _SUM.unpack(head[-_SUM.size :])[0] != zlib.crc32(head[: -_SUM.size]):
            raise Torn("its head is damaged")
        magic, exponent, self.generation, self.front, self.born, *times = _HEAD.unpack_from(head)
        self.next_turn, self.blocked_until, self.known_since = times
        if magic != MAGIC:
            raise Torn("it is of another version")
        self._set_width(exponent)
        table = head[_HEAD.size : -_SUM.size]
        self.lines = [Line(*each) for each in _LINE.iter_unpack(table) if each[0]]
        self._known = raw
        mark = _MARK.unpack(raw[_HEAD_SIZE:])[0]
        if mark == _WIDENING:
            raise Torn("somebody was killed while making its bins wider")
        if mark:
            self._recount()

    def save(self) -> None:
        """Write what was noted, and that the book is whole; one write, which no kill can cut in two."""
        filled = [_LINE.pack(each.per, each.cut, each.held, each.used_at) for each in self.lines]
        head = b"".join(
            (
                _HEAD.pack(
                    MAGIC,
                    self.exponent,
                    self.generation,
                    self.front,
                    self.born,
                    self.next_turn,
                    self.blocked_until,
                    self.known_since,
                ),
                *filled,
                bytes(_LINE.size * (LINES - len(filled))),
            )
        )
        raw = head + _SUM.pack(zlib.crc32(head)) + _MARK.pack(0)
        if raw != self._known or self._changing:
            self._pages.write(0, raw)
        self._known, self._changing = raw, False

    # -- ends ---------------------------------------------------------------------------------------------------------

    def add(self, end: float) -> None:
        """Count one more request, which ends at `end`, unless that is so long ago that its bin is in use again."""
        if self._in_ring(number := self._bin(end)):
            self._change(number, 1)

    def move(self, old: float, new: float) -> None:
        """A request that was to end at `old` ends at `new` instead; where `old` has been overwritten it is added."""
        before, after, front = self._bin(old), self._bin(new), self.front
        if before == after:
            return
        self.add(new)
        if self._in_ring(before) and old > self.known_since:
            if after > front:  # a new bin counts once the head knows of it, so before the old one lets go
                self.save()
            self._change(before, -1)

    def held(self, per: float, now: float) -> int:
        """How many requests count at `now` in a window of `per` seconds."""
        line = self._line(per, now)
        self._advance(line, now)
        return line.held

    def free_at(self, rate: Rate, now: float) -> float:
        """When there is room for one more request in windows of this rate: `now`, or when enough ends will have passed.

        Answers that come before may make it earlier.
        """
        line = self._line(rate.per, now)
        self._advance(line, now)
        known = self.known_since + _hold(rate.per)
        over = line.held - rate.limit
        if over < 0 or known > now:
            return max(now, known)
        for number, count in self._counts(line.cut + 1, self.front):
            over -= count
            if over < 0:
                return max(now, number * self.width + _hold(rate.per))
        raise Torn("its bins hold fewer requests than its head says")

    # -- turns: the even pace of all together -------------------------------------------------------------------------

    def turn(self, now: float, seconds: float) -> float:
        """Take the next turn, after which the one behind it comes `seconds` later; returns when it is."""
        at = max(self.next_turn, now - CREDIT)
        self.next_turn = at + seconds
        return at

    def no_turn_before(self, at: float) -> None:
        """The window is full until `at`: turns before would only meet there."""
        self.next_turn = max(self.next_turn, at)

    # -- its shape ----------------------------------------------------------------------------------------------------

    def renewed(self, rate: Rate, timeout: float, now: float) -> Book:
        """One with finer bins, for who is alone and finds them far too wide for its window, which is empty.

        Whoever needs to know of an earlier time waits, as behind ends that have been overwritten.
        """
        exponent, newest = exponent_for(rate, timeout), self.front * self.width
        if self.exponent <= exponent + WIDE or newest + _hold(rate.per) >= now:
            return self
        return Book.blank(self._pages, now, exponent, blocked_until=self.blocked_until, known_since=newest)

    def suit(self, rate: Rate, timeout: float) -> None:
        """Make the bins wide enough for the ring to span windows of this length."""
        while _horizon(rate.per, timeout) > (BINS - 2) * self.width:
            self._widen()

    def _widen(self) -> None:
        """Make bins twice as wide: each end moves up to the end of its new bin."""
        first = self.front - BINS + 1
        ring = array("I", bytes(BINS * _BIN))
        for number, count in self._counts(first, self.front):
            ring[-(-number // 2) % BINS] += count
        self._mark(_WIDENING)  # until it is saved, the head does not fit the bins
        self.known_since = max(self.known_since, first * self.width)
        self._pages.write(BINS_AT, ring.tobytes())
        self.front = -(-self.front // 2)
        for line in self.lines:
            line.cut //= 2
        self._set_width(self.exponent + 1)
        self._recount()

    def _set_width(self, exponent: int) -> None:
        if not -20 <= exponent <= 20:
            raise Torn("its bins have no sensible width")
        self.exponent, self.width = exponent, 2.0**exponent

    def _bin(self, end: float) -> int:
        return math.ceil(end / self.width)

    def _in_ring(self, number: int) -> bool:
        return number > self.front - BINS

    def _passed(self, before: float) -> int:
        """The newest bin that lies wholly before that moment."""
        return math.floor(before / self.width)

    def _line(self, per: float, now: float) -> Line:
        for line in self.lines:
            if line.per == per:
                line.used_at = now
                return line
        if len(self.lines) == LINES:  # whoever used it will have it counted again
            self.lines.remove(min(self.lines, key=lambda line: line.used_at))
        line = Line(per, self._passed(now - _hold(per)), 0, now)
        line.held = self._count_behind(line.cut)
        self.lines.append(line)
        return line

    def _advance(self, line: Line, now: float) -> None:
        """Let those ends pass that lie a window back."""
        passed = self._passed(now - _hold(line.per))
        if line.cut < self.front - BINS:  # nobody asked for so long that bins which it counts are in use again
            line.cut = max(passed, self.front - BINS)
            line.held = self._count_behind(line.cut)
        elif passed >= self.front:
            line.held = 0
        elif passed > line.cut:
            line.held -= sum(count for _, count in self._counts(line.cut + 1, passed))
        line.cut = max(line.cut, passed)

    def _change(self, number: int, by: int) -> None:
        self._mark()
        if number > self.front:
            self._clear(self.front + 1, number)
            self.front = number
        at = BINS_AT + number % BINS * _BIN
        count = int.from_bytes(self._pages.read(at, _BIN), "little") + by
        if not 0 <= count < 2 ** (8 * _BIN):
            raise Torn("it has lost a request, or never had so many")
        self._pages.write(at, count.to_bytes(_BIN, "little"))
        for line in self.lines:
            if number > line.cut:
                line.held += by

    def _mark(self, what: int = _CHANGING) -> None:
        """Say that the bins are being changed, before the first of them is."""
        if not self._changing or what == _WIDENING:
            self._changing = True
            self._pages.write(_HEAD_SIZE, _MARK.pack(what))

    def _recount(self) -> None:
        """Take the numbers of all lines from the bins."""
        self._changing = True
        for line in self.lines:
            line.held = self._count_behind(line.cut)

    def _count_behind(self, cut: int) -> int:
        return sum(count for _, count in self._counts(max(cut, self.front - BINS) + 1, self.front))

    def _counts(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The bins from `first` to `last` that hold something, and how much."""
        for start, end in _pieces(first, last):
            raw = self._pages.read(BINS_AT + start % BINS * _BIN, (end - start) * _BIN)
            if len(raw) != (end - start) * _BIN:
                raise Torn("it is cut off")
            if raw.count(0) != len(raw):
                counts = struct.unpack(f"<{end - start}I", raw)
                yield from ((start + index, count) for index, count in enumerate(counts) if count)

    def _clear(self, first: int, last: int) -> None:
        """Make room for bins that are new in the ring; what they overwrite has passed long ago."""
        first = max(first, last - BINS + 1)
        for start, end in _pieces(first, last):
            self._pages.write(BINS_AT + start % BINS * _BIN, bytes((end - start) * _BIN))
        self.known_since = max(self.known_since, (last - BINS + 1) * self.width)


def _pieces(first: int, last: int) -> Iterable[tuple[int, int]]:
    """The bins from `first` to `last` in pieces of at most 1,024 that lie in one row in the ring, ends excluded."""
    while first <= last:
        end = min(last + 1, first + 1024, (first // BINS + 1) * BINS)
        yield first, end
        first = end
