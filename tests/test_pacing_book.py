"""The book of ends: never fewer requests than there can be, whoever writes, whatever is cut off in the middle."""

from __future__ import annotations

import contextlib
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from moe_bulk.config import Rate
from moe_bulk.pacing import book as book_module
from moe_bulk.pacing.book import BINS, BINS_A_WINDOW, BINS_AT, CREDIT, LINES, SIZE, Book, Torn, exponent_for
from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE
from tests.effort import examples

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 30.0
MINUTE = Rate(10_000, 60.0)
HEAD_SIZE = book_module._HEAD_SIZE
HOLD = 60.0 * (1 + CLOCK_MARGIN)


class Killed(Exception):
    """The process ended in the middle of a change."""


class Memory:
    """Pages in memory; after `left` more writes whoever writes is killed, before the write."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.left: int | None = None
        self.writes = 0

    def read(self, offset: int, size: int) -> bytes:
        """Give bytes."""
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Take bytes."""
        if self.left is not None:
            if not self.left:
                raise Killed
            self.left -= 1
        self.writes += 1
        self.data[offset : offset + len(data)] = data


def book(now: float = 1000.0, rate: Rate = MINUTE) -> Book:
    """Give a new book."""
    return Book.blank(Memory(), now, exponent_for(rate, TIMEOUT))


def reopened(of: Book) -> Book:
    """Give the same book as another process reads it."""
    again = Book(of._pages)
    again.load()
    return again


def test_a_request_counts_until_a_window_after_its_end() -> None:
    """Its bin's end and the clocks' drift are added, and no more."""
    one = book()
    one.add(1010.0)
    assert 1 == one.held(60.0, 1010.0 + HOLD - 0.001)
    assert 0 == one.held(60.0, 1010.0 + HOLD + one.width)


def test_an_answer_shortens_it() -> None:
    """What was to end at its timeout ends at its answer instead."""
    one = book()
    one.add(1035.0)
    one.move(1035.0, 1000.5)
    assert 0 == one.held(60.0, 1000.5 + HOLD + one.width)


def test_what_one_process_writes_the_others_read() -> None:
    """Everything that matters stands in the pages."""
    first = book()
    for each in range(5):
        first.add(1000.0 + each)
    first.turn(1000.0, 0.5)
    first.generation, first.blocked_until = 7, 1003.0
    first.save()
    second = reopened(first)
    assert 5 == second.held(60.0, 1000.0)
    assert (7, 1003.0, 1000.5) == (second.generation, second.blocked_until, second.turn(1000.0, 1.0))


def test_turns_come_one_behind_the_other() -> None:
    """Each takes the next one; what nobody took is caught up for a quarter of a second."""
    one = book(1000.0)
    one.no_turn_before(1000.0)
    assert [1000.0, 1000.5, 1001.0] == [one.turn(1000.0, 0.5) for _ in range(3)]
    assert 1100.0 - CREDIT == one.turn(1100.0, 0.5)
    one.no_turn_before(1200.0)
    assert 1200.0 == one.turn(1101.0, 0.5)


def test_free_at_tells_when_enough_has_passed() -> None:
    """With two too many it is the third end that matters."""
    one = book()
    for end in (1001.0, 1002.0, 1003.0, 1004.0):
        one.add(end)
    assert 1000.0 == one.free_at(Rate(5, 60.0), 1000.0)
    at = one.free_at(Rate(2, 60.0), 1000.0)
    assert 1003.0 + HOLD <= at <= 1003.0 + HOLD + one.width
    assert at == one.free_at(Rate(2, 60.0), at)


def test_windows_of_several_lengths() -> None:
    """Each counts what lies in it; the ninth takes the place of the one that was not asked for longest."""
    one = book()
    for second in range(60):
        one.add(1000.0 + second)
    for per in range(1, LINES + 3):
        assert per <= one.held(float(per), 1060.0) <= per + 1
    assert LINES == len(one.lines)
    assert 1 <= one.held(1.0, 1060.0) <= 2


def test_a_longer_window_makes_the_bins_wider() -> None:
    """What stood there counts on; what had been overwritten is not known, so that the longer window waits."""
    one = book(1000.0, Rate(1000, 6.0))
    for each in range(100):
        one.add(1000.0 + each / 10)
    before = one.width
    hour = Rate(500_000, 3600.0)
    one.suit(hour, TIMEOUT)
    assert one.width > before
    assert 100 == one.held(6.0, 1000.0)
    assert 100 == one.held(3600.0, 1010.0)
    assert one.known_since > 0
    assert one.free_at(hour, 1010.0) == one.known_since + 3600 * (1 + CLOCK_MARGIN)


@pytest.mark.parametrize("per", [0.01, 1.0, 6.0, 60.0, 3600.0, 86400.0])
@pytest.mark.parametrize("timeout", [0.1, 30.0, 600.0])
def test_bins_suit_any_rate(per: float, timeout: float) -> None:
    """The ring is long enough for the last end, and a bin no wider than it must be."""
    rate = Rate(10, per)
    width = 2.0 ** exponent_for(rate, timeout)
    assert BINS * width > per * (1 + CLOCK_MARGIN) + timeout + GRACE
    assert width <= 2 * max(per / BINS_A_WINDOW, (per * 1.001 + timeout + GRACE + 1) / (BINS - 2))


def test_a_long_silence_empties_it() -> None:
    """After more than a whole ring of time nothing is left of before, and it counts as ever."""
    one = book()
    for _ in range(10):
        one.add(1010.0)
    assert 10 == one.held(60.0, 1010.0)
    assert 0 == one.held(60.0, 100_000.0)
    one.add(100_035.0)
    assert 1 == one.held(60.0, 100_000.0)
    one.add(1010.0)  # so old that its bin is another's now
    assert 1 == one.held(60.0, 100_000.0)


def test_a_line_that_nobody_asked_for_in_ages_is_counted_anew() -> None:
    """Bins that it counted are in use again: what stands there now is not taken from its number."""
    one = book(1000.0, Rate(1000, 6.0))
    one.add(1000.0)
    assert 1 == one.held(6.0, 1001.0)
    for hundredth in range(1000):
        one.add(1600.0 + hundredth / 100)
    assert 600 <= one.held(6.0, 1610.0) <= 602


@pytest.mark.parametrize("left", range(6))
def test_killed_while_making_bins_wider(left: int) -> None:
    """The others find all that stood there, or that it is no book any more."""
    one = book(1000.0, Rate(1000, 6.0))
    for each in range(100):
        one.add(1000.0 + each / 3)
    assert 18 <= one.held(6.0, 1033.0)
    one.save()
    one._pages.left = left  # type: ignore[attr-defined]  # they are in memory
    with contextlib.suppress(Killed):
        one.suit(Rate(1000, 600.0), TIMEOUT)
        one.save()
    one._pages.left = None  # type: ignore[attr-defined]  # they are in memory
    with contextlib.suppress(Torn):
        assert 18 <= reopened(one).held(6.0, 1033.0)


def test_a_bin_that_is_used_again_is_empty() -> None:
    """A ring later the same bytes count anew."""
    one = book()
    for _ in range(10):
        one.add(1010.0)
    later = 1010.0 + BINS * one.width
    one.add(later)
    assert 1 == one.held(60.0, later)


def test_an_end_that_has_been_overwritten_is_not_taken_away() -> None:
    """Nor where the bins were made wider since, so that its place would be in the ring again."""
    one = book(1000.0, Rate(1000, 6.0))
    later = 1010.0 + 1.5 * BINS * one.width
    one.add(1010.0)
    one.add(later)
    one.suit(Rate(10_000, 60.0), 300.0)
    one.move(1010.0, later + 1.0)
    assert 2 == one.held(60.0, later + 1.0)


@pytest.mark.parametrize("kill", range(12))
def test_a_kill_while_an_end_moves_beyond_all_others(kill: int) -> None:
    """Wherever it comes, the request counts until its first end at least."""
    one = book()
    one.add(1035.0)
    one.held(60.0, 1000.0)
    one.save()
    one._pages.left = kill  # type: ignore[attr-defined]  # they are in memory
    with suppress(Killed):
        one.move(1035.0, 1037.0)
        one.save()
    one._pages.left = None  # type: ignore[attr-defined]  # they are in memory
    assert reopened(one).held(60.0, 1034.0 + HOLD) >= 1


@pytest.mark.parametrize("at", [*range(0, HEAD_SIZE, 7), HEAD_SIZE, HEAD_SIZE + 3])
def test_a_damaged_head_is_seen(at: int) -> None:
    """A byte that changed is no book, or says that somebody was killed while writing it: then the bins are counted."""
    one = book()
    one.add(1010.0)
    one.held(60.0, 1000.0)
    one.save()
    one._pages.data[at] ^= 0x5A  # type: ignore[attr-defined]  # they are in memory
    try:
        assert 1 == reopened(one).held(60.0, 1000.0)
    except Torn:
        assert at < HEAD_SIZE
    else:
        assert at >= HEAD_SIZE


def test_a_book_that_is_cut_off_is_seen() -> None:
    """Its head or its bins end too early."""
    one = book()
    one.add(1010.0)
    one.save()
    del one._pages.data[BINS_AT:]  # type: ignore[attr-defined]  # they are in memory
    with pytest.raises(Torn):
        reopened(one).held(60.0, 1000.0)
    del one._pages.data[100:]  # type: ignore[attr-defined]  # they are in memory
    with pytest.raises(Torn):
        reopened(one)


def test_bins_that_lost_something_are_seen() -> None:
    """Fewer in the bins than in the head, and taking away what is not there: both mean damage."""
    one = book()
    one.add(1010.0)
    one.held(60.0, 1000.0)
    one._pages.write(BINS_AT, bytes(SIZE - BINS_AT))
    with pytest.raises(Torn, match="fewer"):
        one.free_at(Rate(1, 60.0), 1000.0)
    with pytest.raises(Torn, match="lost"):
        one.move(1010.0, 1001.0)
    one._pages.write(BINS_AT, b"\xff" * (SIZE - BINS_AT))
    with pytest.raises(Torn, match="never had so many"):
        one.add(1005.0)


def test_another_version_is_no_book() -> None:
    """Of a later program's file nothing is guessed."""
    one = book()
    head = bytearray(one._pages.read(0, HEAD_SIZE))
    head[:8] = b"moepace2"
    head[-4:] = struct.pack("<I", zlib.crc32(head[:-4]))
    one._pages.write(0, bytes(head))
    with pytest.raises(Torn, match="version"):
        reopened(one)


class AnyProcesses(RuleBasedStateMachine):
    """Whatever several processes add, move and are killed in: no window is ever thought emptier than it is."""

    @initialize(per=st.sampled_from([0.5, 6.0, 60.0]), limit=st.integers(1, 5))
    def begin(self, per: float, limit: int) -> None:
        """Open a book."""
        self.now = 5000.0
        self.pages = Memory()
        self.pers = [per]
        self.limit = limit
        self.mine = Book.blank(self.pages, self.now, exponent_for(Rate(limit, per), 5.0))
        self.ends: dict[int, float] = {}
        self.lost: set[int] = set()
        """Those whose process was killed while it moved their end: nobody moves it any more."""

    def open(self) -> Book:
        """Read it as the next process."""
        self.mine.load()
        return self.mine

    @rule(seconds=st.floats(0, 80) | st.floats(70, 2000))
    def wait(self, seconds: float) -> None:
        """Let time pass, at times more than the ring is long."""
        self.now += seconds

    @rule()
    def other_process(self) -> None:
        """Go on as a process that has just begun."""
        self.mine = Book(self.pages)

    @rule(per=st.sampled_from([0.5, 3.0, 6.0, 60.0, 600.0]), kill=st.none() | st.integers(0, 4))
    def other_window(self, per: float, kill: int | None) -> None:
        """Somebody comes with a window of another length, and may be killed while making the bins wider."""
        if per not in self.pers:
            try:
                self.change(lambda book: book.suit(Rate(1, per), 5.0), kill, lambda: self.pers.append(per))
                self.open()
            except Torn as error:
                assert "wider" in str(error)  # noqa: PT017  then it counts as full, which the window sees to
                self.begin(self.pers[0], self.limit)

    @rule(kill=st.none() | st.integers(0, 8))
    def send(self, kill: int | None) -> None:
        """Note a request; the process may be killed on the way, and then the request is not sent."""
        self.change(
            lambda book: book.add(self.now + 10.0), kill, lambda: self.ends.update({len(self.ends): self.now + 10.0})
        )

    @rule(which=st.integers(0, 1000), kill=st.none() | st.integers(0, 8))
    def answer(self, which: int, kill: int | None) -> None:
        """Note an answer; killed on the way the end stays where it was, or it is the answer's."""
        open_ones = [number for number, end in self.ends.items() if end > self.now and number not in self.lost]
        if open_ones:
            number = open_ones[which % len(open_ones)]
            old = self.ends[number]
            done = lambda: self.ends.update({number: self.now})  # noqa: E731
            self.change(lambda book: book.move(old, self.now), kill, done, killed=number)

    @rule(which=st.integers(0, 1000), late=st.floats(0, 400), kill=st.none() | st.integers(0, 8))
    def give_up_late(self, which: int, late: float, kill: int | None) -> None:
        """Note that a request ended later than was thought, after its process had stood still."""
        there = sorted(self.ends.keys() - self.lost)
        if there:
            number = there[which % len(there)]
            old, new = self.ends[number], self.now + 10.0
            self.now += late
            done = lambda: self.ends.update({number: max(old, new)})  # noqa: E731
            self.change(lambda book: book.move(old, max(old, new)), kill, done, killed=number)

    def change(
        self, work: Callable[[Book], None], kill: int | None, done: Callable[[], None], killed: int | None = None
    ) -> None:
        """Do it, or be killed before the write after so many more, in the midst of what concerns the request `killed`.

        Then its end is where it was or where it was to be, whichever is earlier.
        """
        found = self.open()
        self.pages.left = kill
        try:
            work(found)
            found.save()
        except Killed:
            self.mine = Book(self.pages)
            if killed is not None:
                before = self.ends[killed]
                done()
                self.ends[killed] = min(before, self.ends[killed])
                self.lost.add(killed)
        else:
            done()
        finally:
            self.pages.left = None

    @rule(which=st.integers(0, 15))
    def holds(self, which: int) -> None:
        """At least what counts is counted, in windows whose past is known; windows may rest for long."""
        found = self.open()
        for number, per in enumerate(self.pers):
            if not which >> number % 4 & 1:
                continue
            counts = sum(end > self.now - per for end in self.ends.values())
            held = found.held(per, self.now)
            assert held >= counts or found.known_since > self.now - per * (1 + CLOCK_MARGIN)
        found.save()

    def teardown(self) -> None:
        """Ask all windows at the end."""
        if hasattr(self, "pers"):
            self.holds(15)


TestAnyProcesses = AnyProcesses.TestCase
TestAnyProcesses.settings = settings(max_examples=examples(100), stateful_step_count=50, deadline=None)


@given(ends=st.lists(st.floats(1000, 1100), max_size=40), later=st.floats(0, 200))
def test_without_kills_the_count_is_exact_but_for_a_bin(ends: list[float], later: float) -> None:
    """Nothing counts longer than a window and a bin."""
    one = book()
    for end in ends:
        one.add(end)
    now = 1000.0 + later
    least = sum(end > now - HOLD for end in ends)
    most = sum(end > now - HOLD - 2 * one.width for end in ends)
    assert least <= one.held(60.0, now) <= most
